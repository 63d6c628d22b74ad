//! An archive is unpacked by a thread of its own, which gets the bytes as they come: decoders want to read, and
//! a connection that breaks must not make them begin again.

use std::io::{self, ErrorKind, Read};

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use tokio::sync::{mpsc, oneshot};

use super::archive::{Changes, Unpacker};
use super::archive_problem::ArchiveProblem;
use super::layers::{Packed, Packing};
use super::tar;
use crate::fs::Dir;
use crate::model::text;
use crate::net::SourceError;

/// Pieces that wait for the thread; each is what a connection brings at once.
const WAITING: usize = 8;
/// What a frame of zstd may ask a reader to remember: more than every level up to 19 does.
const MAX_WINDOW_BYTES: u64 = 32 << 20;
/// Decoded at once.
const BLOCK_BYTES: usize = 256 << 10;

/// An archive that is being unpacked.
pub struct Stream {
    /// `None` says that the archive is whole.
    pieces: mpsc::Sender<Option<Bytes>>,
    outcome: oneshot::Receiver<Result<Changes, ArchiveProblem>>,
}

impl Stream {
    pub fn start(packed: &Packed, scratch: Option<(Dir, String)>) -> Result<Self, SourceError> {
        let (pieces, arriving) = mpsc::channel(WAITING);
        let (told, outcome) = oneshot::channel();
        let unpacker = Unpacker::new(packed.root, packed.size, scratch);
        let packing = packed.packing;
        let work = move || _ = told.send(unpack(packing, arriving, unpacker));
        let started = std::thread::Builder::new().name("unpack".into()).spawn(work);
        started.map_err(|error| {
            let why = format!("cannot start a thread: {error}");
            SourceError::Unusable(ArchiveProblem::Write(text::inert(&why, 200)).into())
        })?;
        Ok(Self { pieces, outcome })
    }

    /// Fails where the thread has ended: there is no use in more.
    pub async fn push(&mut self, piece: Bytes) -> Result<(), ArchiveProblem> {
        match self.pieces.send(Some(piece)).await {
            Ok(()) => Ok(()),
            Err(_) => match (&mut self.outcome).await {
                Ok(Err(problem)) => Err(problem),
                Ok(Ok(_)) | Err(_) => Err(ArchiveProblem::GivenUp),
            },
        }
    }

    /// What the archive holds, once all of it was pushed.
    pub async fn finish(self) -> Result<Changes, ArchiveProblem> {
        let _ = self.pieces.send(None).await;
        self.outcome.await.unwrap_or(Err(ArchiveProblem::GivenUp))
    }
}

fn unpack(
    packing: Packing,
    arriving: mpsc::Receiver<Option<Bytes>>,
    mut unpacker: Unpacker,
) -> Result<Changes, ArchiveProblem> {
    let mut packed = Arriving { pieces: arriving, piece: Bytes::new(), is_over: false };
    match packing {
        Packing::Tar => tar::read(&mut packed, &mut unpacker)?,
        Packing::Gzip => tar::read(MultiGzDecoder::new(&mut packed), &mut unpacker)?,
        Packing::Zstd => tar::read(Zstd::new(&mut packed), &mut unpacker)?,
    }
    // What follows the end of an archive is not looked at.
    io::copy(&mut packed, &mut io::sink())?;
    unpacker.finish()
}

/// The pieces as something to read from; an error where they stop before the end.
struct Arriving {
    pieces: mpsc::Receiver<Option<Bytes>>,
    piece: Bytes,
    is_over: bool,
}

impl Read for Arriving {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() && !self.is_over {
            match self.pieces.blocking_recv() {
                Some(Some(piece)) => self.piece = piece,
                Some(None) => self.is_over = true,
                None => return Err(io::Error::new(ErrorKind::BrokenPipe, "given up")),
            }
        }
        let len = into.len().min(self.piece.len());
        into[..len].copy_from_slice(&self.piece.split_to(len));
        Ok(len)
    }
}

/// Frames of zstd, one behind the other.
struct Zstd<R> {
    from: R,
    decoder: FrameDecoder,
    is_in_frame: bool,
}

impl<R: Read> Zstd<R> {
    fn new(from: R) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(MAX_WINDOW_BYTES);
        Self { from, decoder, is_in_frame: false }
    }

    /// Begins the next frame, if there is one.
    fn begin(&mut self) -> io::Result<bool> {
        loop {
            // An end is no error here, and only here.
            let mut first = [0; 1];
            if self.from.read(&mut first)? == 0 {
                return Ok(false);
            }
            match self.decoder.reset((&first[..]).chain(&mut self.from)) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let length = u64::from(length);
                    io::copy(&mut (&mut self.from).take(length), &mut io::sink())?;
                }
                Err(error) => return Err(broken(&error)),
            }
        }
    }
}

impl<R: Read> Read for Zstd<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.is_in_frame {
                if !self.begin()? {
                    return Ok(0);
                }
                self.is_in_frame = true;
            }
            if self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                let much = BlockDecodingStrategy::UptoBytes(BLOCK_BYTES);
                self.decoder.decode_blocks(&mut self.from, much).map_err(|it| broken(&it))?;
            }
            let len = self.decoder.read(into)?;
            if len > 0 || into.is_empty() {
                return Ok(len);
            }
            self.is_in_frame = !self.decoder.is_finished();
        }
    }
}

fn broken(error: &FrameDecoderError) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, text::inert(&error.to_string(), 200))
}
