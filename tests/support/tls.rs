//! TLS in front of a fake, with certificates that are good or not.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};

/// An authority of our own, made by `openssl`.
pub struct Authority {
    dir: tempfile::TempDir,
}

/// What becomes of a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Handshake {
    Done,
    /// And the connection ends without a word of farewell (`close_notify`).
    DoneWithoutFarewell,
    /// Behind a `CONNECT` to whatever host, as in a proxy that opens what it carries.
    DoneBehindConnect,
    /// The connection ends before it.
    Cut,
    /// It never comes.
    Silent,
    /// Somebody answers who does not speak TLS.
    Plain,
}

/// A port that speaks TLS and passes everything on to a fake.
pub struct Front {
    pub port: u16,
    accepted: Arc<AtomicUsize>,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let authority = Self { dir: tempfile::tempdir().unwrap() };
        let config = "[ca]\ndefault_ca=d\n[d]\ndatabase=index\nnew_certs_dir=.\nserial=serial\n\
                      default_md=sha256\npolicy=p\n[p]\n";
        authority.write("ca.conf", config);
        authority.write("index", "");
        authority.write("serial", "01\n");
        authority.openssl(&format!("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -keyout ca.key -out ca.pem -subj /CN={name}"));
        authority
    }

    /// Where its own certificate is.
    pub fn path(&self) -> String {
        self.dir.path().join("ca.pem").to_str().unwrap().to_owned()
    }

    /// A certificate for `names` (`DNS:x,IP:y`) that is valid between two years.
    pub fn certify(&self, names: &str, from_year: u32, to_year: u32) -> Arc<ServerConfig> {
        self.write("ext", &format!("subjectAltName={names}\n"));
        self.openssl("req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -out csr.pem -subj /CN=x");
        self.openssl(&format!("ca -batch -config ca.conf -cert ca.pem -keyfile ca.key -in csr.pem -out cert.pem -startdate {from_year}0101000000Z -enddate {to_year}0101000000Z -extfile ext -notext"));
        // The same subject again is no reason to refuse.
        self.write("index", "");
        let at = |name: &str| self.dir.path().join(name);
        let certificate = CertificateDer::from_pem_file(at("cert.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(at("key.pem")).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        Arc::new(builder.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap())
    }

    fn write(&self, name: &str, content: &str) {
        std::fs::write(self.dir.path().join(name), content).unwrap();
    }

    fn openssl(&self, arguments: &str) {
        let mut openssl = Command::new("openssl");
        openssl.args(arguments.split(' ')).current_dir(self.dir.path());
        let output = openssl.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Front {
    /// `handshake` decides by the number of the connection, counted from 0.
    pub fn start(
        config: Arc<ServerConfig>,
        upstream: u16,
        handshake: impl Fn(usize) -> Handshake + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = accepted.clone();
        // Ends with the test.
        std::thread::spawn(move || {
            let mut silent = Vec::new();
            for stream in listener.incoming().map_while(Result::ok) {
                match handshake(count.fetch_add(1, Ordering::AcqRel)) {
                    Handshake::Cut => drop(stream),
                    Handshake::Silent => silent.push(stream),
                    Handshake::Plain => {
                        let _ = (&stream).write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
                    }
                    done => {
                        let farewell = done != Handshake::DoneWithoutFarewell;
                        let config = config.clone();
                        std::thread::spawn(move || {
                            if done == Handshake::DoneBehindConnect {
                                let _ = open_tunnel(&stream);
                            }
                            carry(config, &stream, upstream, farewell)
                        });
                    }
                }
            }
        });
        Self { port, accepted }
    }

    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    pub fn connections(&self) -> usize {
        self.accepted.load(Ordering::Acquire)
    }
}

/// Reads the head of a `CONNECT`, and nothing that follows it, and says yes.
fn open_tunnel(mut stream: &TcpStream) -> io::Result<()> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
}

/// Both ways until one side ends.
fn carry(
    config: Arc<ServerConfig>,
    client: &TcpStream,
    upstream: u16,
    farewell: bool,
) -> io::Result<()> {
    let mut tls = ServerConnection::new(config).map_err(io::Error::other)?;
    while tls.is_handshaking() {
        tls.complete_io(&mut &*client)?;
    }
    let server = TcpStream::connect(("127.0.0.1", upstream))?;
    let tls = Mutex::new(tls);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _ = down(&tls, client, &server, farewell);
            let _ = client.shutdown(Shutdown::Both);
        });
        let result = up(&tls, client, &server);
        let _ = server.shutdown(Shutdown::Both);
        result
    })
}

fn down(
    tls: &Mutex<ServerConnection>,
    mut client: &TcpStream,
    mut server: &TcpStream,
    farewell: bool,
) -> io::Result<()> {
    let mut buffer = [0; 16 << 10];
    loop {
        let count = server.read(&mut buffer)?;
        let mut tls = tls.lock().unwrap();
        match count {
            0 if !farewell => return Ok(()),
            0 => tls.send_close_notify(),
            count => tls.writer().write_all(&buffer[..count])?,
        }
        while tls.wants_write() {
            tls.write_tls(&mut client)?;
        }
        if count == 0 {
            return Ok(());
        }
    }
}

fn up(
    tls: &Mutex<ServerConnection>,
    mut client: &TcpStream,
    mut server: &TcpStream,
) -> io::Result<()> {
    let mut buffer = [0; 16 << 10];
    let mut count = 0;
    loop {
        let mut plain = Vec::new();
        {
            let mut tls = tls.lock().unwrap();
            let mut rest = &buffer[..count];
            while !rest.is_empty() {
                tls.read_tls(&mut rest)?;
                tls.process_new_packets().map_err(io::Error::other)?;
            }
            // Also what came with the end of the handshake.
            let mut piece = [0; 16 << 10];
            while let Ok(read @ 1..) = tls.reader().read(&mut piece) {
                plain.extend_from_slice(&piece[..read]);
            }
            while tls.wants_write() {
                tls.write_tls(&mut client)?;
            }
        }
        server.write_all(&plain)?;
        count = client.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
    }
}
