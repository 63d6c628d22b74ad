//! The leanest program that receives files over plain HTTP, writes them and knows their SHA-256.
//!
//! Nothing is retried, resumed, compared or published. What it costs is the floor below which no
//! downloader that verifies can be on the same machine; the best of its variants counts.

use std::alloc::{Layout, alloc, dealloc};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::{env, fs, slice, thread};

use sha2::{Digest, Sha256};

const USAGE: &str = "usage: floor inline|handoff|reread|direct BUFFER_KIB CONNECTIONS FSYNC(0|1)
             HOST:PORT DEST LIST

inline   each connection takes whole files, and hashes what it has received
handoff  connections receive ranges of one file into buffers that one thread hashes in order
reread   connections receive and write ranges; one thread follows through the page cache
direct   as inline, written past the page cache

LIST has a line for each file: SIZE PATH-ON-SERVER NAME";

struct Job {
    host: String,
    dest: PathBuf,
    buffer: usize,
    connections: usize,
    fsync: bool,
    files: Vec<Wanted>,
}

struct Wanted {
    size: u64,
    target: String,
    name: String,
}

type Sum = (String, String);

fn main() -> io::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [mode, buffer, connections, fsync, host, dest, list] = arguments.as_slice() else {
        eprintln!("{USAGE}");
        std::process::exit(2);
    };
    let number = |text: &str| text.parse::<usize>().expect("a number");
    let job = Arc::new(Job {
        host: host.clone(),
        dest: dest.into(),
        buffer: number(buffer) << 10,
        connections: number(connections),
        fsync: fsync == "1",
        files: fs::read_to_string(list)?.lines().map(wanted).collect(),
    });
    let sums = match mode.as_str() {
        "inline" => whole_files(&job, false)?,
        "direct" => whole_files(&job, true)?,
        "handoff" => each_file(&job, handoff)?,
        "reread" => each_file(&job, reread)?,
        _ => panic!("{USAGE}"),
    };
    let mut out = io::stdout().lock();
    sums.iter().try_for_each(|(digest, name)| writeln!(out, "{digest}  {name}"))
}

fn wanted(line: &str) -> Wanted {
    let mut fields = line.splitn(3, ' ').map(str::to_owned);
    let mut field = || fields.next().expect("SIZE PATH NAME");
    Wanted { size: field().parse().expect("a size"), target: field(), name: field() }
}

/// Connections take the next file until there is none.
fn whole_files(job: &Arc<Job>, direct: bool) -> io::Result<Vec<Sum>> {
    let next = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = (0..job.connections)
        .map(|_| {
            let (job, next) = (Arc::clone(job), Arc::clone(&next));
            thread::spawn(move || -> io::Result<Vec<Sum>> {
                let mut connection = Connection::open(&job.host)?;
                let mut buffer = Aligned::new(job.buffer);
                let mut sums = Vec::new();
                while let Some(file) = job.files.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let path = job.path(&file.name)?;
                    let to = create(&path, if direct { libc::O_DIRECT } else { 0 })?;
                    let mut sha256 = Sha256::new();
                    connection.ask(&file.target, 0, file.size)?;
                    let mut at = 0;
                    while at < file.size {
                        let block = connection.fill(buffer.bytes(), file.size - at)?;
                        sha256.update(&buffer.bytes()[..block]);
                        // What is written directly has to be a multiple of the sector.
                        let padded = if direct { block.next_multiple_of(4096) } else { block };
                        to.write_all_at(&buffer.bytes()[..padded], at)?;
                        at += block as u64;
                    }
                    if direct {
                        to.set_len(file.size)?;
                    }
                    job.finish(&to)?;
                    sums.push((hex(sha256), file.name.clone()));
                }
                Ok(sums)
            })
        })
        .collect();
    let mut sums = Vec::new();
    for thread in threads {
        sums.extend(thread.join().expect("no panic")?);
    }
    Ok(sums)
}

fn each_file(
    job: &Arc<Job>,
    one: fn(&Arc<Job>, &Wanted, &Arc<File>) -> io::Result<Sha256>,
) -> io::Result<Vec<Sum>> {
    let sum = |file: &Wanted| {
        let to = Arc::new(create(&job.path(&file.name)?, 0)?);
        let sha256 = one(job, file, &to)?;
        job.finish(&to)?;
        Ok((hex(sha256), file.name.clone()))
    };
    job.files.iter().map(sum).collect()
}

/// Block `n` of the file comes over connection `n % connections`, in long requests.
fn handoff(job: &Arc<Job>, file: &Wanted, to: &Arc<File>) -> io::Result<Sha256> {
    let mut lanes = Vec::new();
    for lane in 0..job.connections as u64 {
        let (full, filled) = mpsc::sync_channel::<Vec<u8>>(SPAN as usize / job.buffer);
        let (give_back, empty) = mpsc::channel::<Vec<u8>>();
        let (job, to) = (Arc::clone(job), Arc::clone(to));
        let (target, size) = (file.target.clone(), file.size);
        let thread = thread::spawn(move || -> io::Result<()> {
            let mut connection = Connection::open(&job.host)?;
            let mut span = lane * SPAN;
            while span < size {
                let end = size.min(span + SPAN);
                connection.ask(&target, span, end)?;
                let mut at = span;
                while at < end {
                    let mut buffer = empty.try_recv().unwrap_or_default();
                    buffer.resize(job.buffer, 0);
                    let count = connection.fill(&mut buffer, end - at)?;
                    buffer.truncate(count);
                    to.write_all_at(&buffer, at)?;
                    at += count as u64;
                    full.send(buffer).map_err(io::Error::other)?;
                }
                span += SPAN * job.connections as u64;
            }
            Ok(())
        });
        lanes.push((thread, filled, give_back));
    }
    let mut sha256 = Sha256::new();
    let mut at = 0;
    while at < file.size {
        let (_, filled, give_back) = &lanes[(at / SPAN) as usize % lanes.len()];
        let buffer = filled.recv().map_err(io::Error::other)?;
        sha256.update(&buffer);
        at += buffer.len() as u64;
        let _ = give_back.send(buffer);
    }
    for (thread, ..) in lanes {
        thread.join().expect("no panic")?;
    }
    Ok(sha256)
}

/// As `handoff`, but the hash reads the file back; no memory beyond a buffer for each thread.
fn reread(job: &Arc<Job>, file: &Wanted, to: &Arc<File>) -> io::Result<Sha256> {
    let lanes = job.connections as u64;
    let written = Arc::new((0..lanes).map(|lane| AtomicU64::new(lane * SPAN)).collect::<Vec<_>>());
    let changed = Arc::new((Mutex::new(()), Condvar::new()));
    let threads: Vec<_> = (0..lanes)
        .map(|lane| {
            let (job, to) = (Arc::clone(job), Arc::clone(to));
            let (written, changed) = (Arc::clone(&written), Arc::clone(&changed));
            let (target, size) = (file.target.clone(), file.size);
            thread::spawn(move || -> io::Result<()> {
                let mut connection = Connection::open(&job.host)?;
                let mut buffer = vec![0; job.buffer];
                let mut span = lane * SPAN;
                while span < size {
                    let end = size.min(span + SPAN);
                    connection.ask(&target, span, end)?;
                    let mut at = span;
                    while at < end {
                        let count = connection.fill(&mut buffer, end - at)?;
                        to.write_all_at(&buffer[..count], at)?;
                        at += count as u64;
                        written[lane as usize].store(at, Ordering::Release);
                        let _held = changed.0.lock().expect("no panic");
                        changed.1.notify_one();
                    }
                    span += SPAN * job.connections as u64;
                    written[lane as usize].store(span.max(at), Ordering::Release);
                }
                Ok(())
            })
        })
        .collect();
    let mut sha256 = Sha256::new();
    let mut buffer = vec![0; job.buffer];
    let mut at = 0;
    while at < file.size {
        let span = at / SPAN;
        let count = (file.size.min((span + 1) * SPAN) - at).min(buffer.len() as u64);
        let lane = &written[(span % lanes) as usize];
        let mut held = changed.0.lock().expect("no panic");
        while lane.load(Ordering::Acquire) < at + count {
            held = changed.1.wait(held).expect("no panic");
        }
        drop(held);
        to.read_exact_at(&mut buffer[..count as usize], at)?;
        sha256.update(&buffer[..count as usize]);
        at += count;
    }
    for thread in threads {
        thread.join().expect("no panic")?;
    }
    Ok(sha256)
}

impl Job {
    fn path(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.dest.join(name);
        fs::create_dir_all(path.parent().unwrap_or(&self.dest))?;
        Ok(path)
    }

    fn finish(&self, file: &File) -> io::Result<()> {
        if self.fsync { file.sync_data() } else { Ok(()) }
    }
}

struct Connection {
    stream: BufReader<TcpStream>,
    host: String,
}

impl Connection {
    fn open(host: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(host)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::with_capacity(4096, stream), host: host.to_owned() })
    }

    /// Asks for bytes `from..to` and reads as far as the body.
    fn ask(&mut self, target: &str, from: u64, to: u64) -> io::Result<()> {
        let range = format!("bytes={from}-{}", to - 1);
        let request =
            format!("GET {target} HTTP/1.1\r\nHost: {}\r\nRange: {range}\r\n\r\n", self.host);
        self.stream.get_mut().write_all(request.as_bytes())?;
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        if !line.starts_with("HTTP/1.1 206") {
            return Err(io::Error::other(format!("{target}: {line}")));
        }
        while line != "\r\n" {
            line.clear();
            self.stream.read_line(&mut line)?;
        }
        Ok(())
    }

    /// Fills the buffer, or less at the end of the body.
    fn fill(&mut self, buffer: &mut [u8], left: u64) -> io::Result<usize> {
        let count = (buffer.len() as u64).min(left) as usize;
        self.stream.read_exact(&mut buffer[..count])?;
        Ok(count)
    }
}

/// Memory that may be written past the page cache.
struct Aligned {
    start: *mut u8,
    layout: Layout,
}

impl Aligned {
    fn new(size: usize) -> Self {
        let layout = Layout::from_size_align(size, 4096).expect("a size");
        // SAFETY: the size is not zero.
        let start = unsafe { alloc(layout) };
        assert!(!start.is_null(), "out of memory");
        // SAFETY: that much was allocated.
        unsafe { start.write_bytes(0, size) };
        Self { start, layout }
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: allocated and written by `new`, and borrowed as `self` is.
        unsafe { slice::from_raw_parts_mut(self.start, self.layout.size()) }
    }
}

impl Drop for Aligned {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { dealloc(self.start, self.layout) };
    }
}

fn create(path: &Path, flags: i32) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true).custom_flags(flags).open(path)
}

fn hex(sha256: Sha256) -> String {
    sha256.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What one request asks for when several connections share a file.
const SPAN: u64 = 8 << 20;
