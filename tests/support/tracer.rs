//! Runs a command under `ptrace` and interferes with chosen system calls below a directory.
//!
//! `strace --inject` counts the calls of each thread and of each kind apart, so it cannot name "the
//! k-th thing that happens to the volume". Here all threads are one sequence.

#![allow(dead_code)]

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc::user_regs_struct as Registers;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::{Run, under};

/// A run that lasts longer than this hangs, and is killed.
const BOUND: Duration = Duration::from_secs(90);

/// A system call that touches the directory, as it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub name: &'static str,
    /// What it touches; of a rename, the new name.
    pub path: PathBuf,
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It changes what a crash can leave behind, or makes it durable.
    Changes,
    /// It writes bytes, and may be cut in half.
    Writes,
    Looks,
}

impl Call {
    pub fn changes(&self) -> bool {
        self.kind != Kind::Looks
    }
}

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Pass,
    /// The process is killed before it.
    Kill,
    /// Half of the bytes are written, then the process is killed.
    Tear,
    /// Half of the bytes are written, and the process is told so.
    Shorten,
    /// It does nothing but fail.
    Fail(Errno),
}

/// Runs `command` to its end. `decide` is asked before every call that touches something below
/// `dir`. A killed run has the code -1.
#[allow(clippy::zombie_processes)] // The tracer waits for it.
pub fn traced(command: &Command, dir: &Path, mut decide: impl FnMut(&Call) -> Act) -> Run {
    let (stdout, stderr) = (tempfile::NamedTempFile::new(), tempfile::NamedTempFile::new());
    let (stdout, stderr) = (stdout.unwrap(), stderr.unwrap());
    // The shell waits until it is traced, so that no call is missed.
    let mut waiting = under(&["sh", "-c", "read -r go && exec \"$0\" \"$@\""], command);
    let mut child = waiting
        .stdin(Stdio::piped())
        .stdout(stdout.reopen().unwrap())
        .stderr(stderr.reopen().unwrap())
        .spawn()
        .unwrap();
    let leader = Pid::from_raw(child.id() as i32);
    let options = ptrace::Options::PTRACE_O_TRACESYSGOOD
        | ptrace::Options::PTRACE_O_TRACECLONE
        | ptrace::Options::PTRACE_O_TRACEEXEC
        | ptrace::Options::PTRACE_O_EXITKILL;
    ptrace::seize(leader, options).unwrap();
    ptrace::interrupt(leader).unwrap();
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let (ended, is_over) = std::sync::mpsc::channel::<()>();
    let bound = std::thread::spawn(move || {
        use std::sync::mpsc::RecvTimeoutError::Timeout;
        let hangs = is_over.recv_timeout(BOUND) == Err(Timeout);
        if hangs {
            let _ = kill(leader, Signal::SIGKILL);
        }
        hangs
    });
    let status = Tracer { leader, dir, inside: HashMap::new() }.follow(&mut decide);
    drop(ended);
    assert!(!bound.join().unwrap(), "still running after {BOUND:?}");
    let read = |file: tempfile::NamedTempFile| std::fs::read(file.path()).unwrap();
    Run::from(&Output { status, stdout: read(stdout), stderr: read(stderr) })
}

struct Tracer<'a> {
    leader: Pid,
    dir: &'a Path,
    /// The threads that are inside a call: what happens to it, and its registers as they were.
    inside: HashMap<Pid, (Act, Registers)>,
}

impl Tracer<'_> {
    fn follow(mut self, decide: &mut impl FnMut(&Call) -> Act) -> ExitStatus {
        let mut has_begun = false;
        loop {
            // Only what this thread has started or traces: other tests run beside it.
            let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
            let (thread, signal) = match waitpid(Pid::from_raw(-1), Some(flags)).unwrap() {
                WaitStatus::Exited(pid, code) if pid == self.leader => {
                    return ExitStatus::from_raw(code << 8);
                }
                WaitStatus::Signaled(pid, signal, _) if pid == self.leader => {
                    return ExitStatus::from_raw(signal as i32);
                }
                WaitStatus::PtraceEvent(pid, _, event) => {
                    has_begun |= event == ptrace::Event::PTRACE_EVENT_EXEC as i32;
                    (pid, None)
                }
                WaitStatus::PtraceSyscall(pid) => {
                    if has_begun && self.at_call(pid, decide).is_none() {
                        // Killed; whatever else is reported of it follows by itself.
                        continue;
                    }
                    (pid, None)
                }
                WaitStatus::Stopped(pid, signal) => (pid, Some(signal)),
                _ => continue,
            };
            // A thread may be gone meanwhile, by a kill.
            let _ = ptrace::syscall(thread, signal);
        }
    }

    /// At the beginning or the end of a call; `None` if the process is to run no further.
    fn at_call(&mut self, thread: Pid, decide: &mut impl FnMut(&Call) -> Act) -> Option<()> {
        let Ok(registers) = ptrace::getregs(thread) else { return Some(()) };
        if let Some((act, before)) = self.inside.remove(&thread) {
            return self.at_end(thread, act, before, registers);
        }
        if registers.rax as i64 != -(Errno::ENOSYS as i64) {
            return Some(());
        }
        let call = self.call(thread, &registers);
        let act = call.map_or(Act::Pass, |call| decide(&call));
        let mut changed = registers;
        match act {
            Act::Kill => {
                let _ = kill(self.leader, Signal::SIGKILL);
                return None;
            }
            Act::Fail(_) => changed.orig_rax = u64::MAX,
            Act::Tear | Act::Shorten => changed.rdx = registers.rdx.div_ceil(2),
            Act::Pass => {}
        }
        if act != Act::Pass {
            let _ = ptrace::setregs(thread, changed);
        }
        self.inside.insert(thread, (act, registers));
        Some(())
    }

    fn at_end(
        &self,
        thread: Pid,
        act: Act,
        before: Registers,
        mut registers: Registers,
    ) -> Option<()> {
        match act {
            Act::Pass | Act::Kill => return Some(()),
            Act::Tear => {
                let _ = kill(self.leader, Signal::SIGKILL);
                return None;
            }
            Act::Fail(errno) => registers.rax = (errno as i64).wrapping_neg() as u64,
            Act::Shorten => registers.rdx = before.rdx,
        }
        let _ = ptrace::setregs(thread, registers);
        Some(())
    }

    /// The call that begins, if it touches the directory.
    fn call(&self, thread: Pid, registers: &Registers) -> Option<Call> {
        let (name, touches, kind) = known(registers)?;
        let [first, second, third, fourth] =
            [registers.rdi, registers.rsi, registers.rdx, registers.r10];
        let path = match touches {
            Touches::Open => descriptor(thread, first)?,
            Touches::Path => resolve(thread, u64::MAX, first)?,
            Touches::At => resolve(thread, first, second)?,
            Touches::SecondAt => resolve(thread, second, third)?,
            Touches::ThirdAt => resolve(thread, third, fourth)?,
        };
        path.starts_with(self.dir).then_some(Call { name, path, kind })
    }
}

/// Where a call has what it touches.
enum Touches {
    /// An open file, its first argument.
    Open,
    /// A path, its first argument.
    Path,
    /// A name below an open directory: its first two arguments, or later ones.
    At,
    SecondAt,
    ThirdAt,
}

fn known(registers: &Registers) -> Option<(&'static str, Touches, Kind)> {
    use Kind::{Changes, Looks, Writes};
    use Touches::{At, Open, Path, SecondAt, ThirdAt};
    use nix::libc;
    let opens = if registers.rdx as i32 & libc::O_CREAT == 0 { Looks } else { Changes };
    Some(match registers.orig_rax as i64 {
        libc::SYS_read => ("read", Open, Looks),
        libc::SYS_pread64 => ("pread64", Open, Looks),
        libc::SYS_write => ("write", Open, Writes),
        libc::SYS_pwrite64 => ("pwrite64", Open, Writes),
        libc::SYS_writev => ("writev", Open, Changes),
        libc::SYS_pwritev => ("pwritev", Open, Changes),
        libc::SYS_copy_file_range => ("copy_file_range", Open, Changes),
        libc::SYS_ioctl => ("ioctl", Open, Changes),
        libc::SYS_fsync => ("fsync", Open, Changes),
        libc::SYS_fdatasync => ("fdatasync", Open, Changes),
        libc::SYS_syncfs => ("syncfs", Open, Changes),
        libc::SYS_sync_file_range => ("sync_file_range", Open, Changes),
        libc::SYS_fadvise64 => ("fadvise64", Open, Changes),
        libc::SYS_fallocate => ("fallocate", Open, Changes),
        libc::SYS_ftruncate => ("ftruncate", Open, Changes),
        libc::SYS_fchmod => ("fchmod", Open, Changes),
        libc::SYS_flock => ("flock", Open, Looks),
        libc::SYS_fstat => ("fstat", Open, Looks),
        libc::SYS_fstatfs => ("fstatfs", Open, Looks),
        libc::SYS_getdents64 => ("getdents64", Open, Looks),
        libc::SYS_mkdir => ("mkdir", Path, Changes),
        libc::SYS_openat => ("openat", At, opens),
        libc::SYS_mkdirat => ("mkdirat", At, Changes),
        libc::SYS_unlinkat => ("unlinkat", At, Changes),
        libc::SYS_newfstatat => ("newfstatat", At, Looks),
        libc::SYS_statx => ("statx", At, Looks),
        libc::SYS_readlinkat => ("readlinkat", At, Looks),
        libc::SYS_symlinkat => ("symlinkat", SecondAt, Changes),
        libc::SYS_renameat => ("renameat", ThirdAt, Changes),
        libc::SYS_renameat2 => ("renameat2", ThirdAt, Changes),
        libc::SYS_linkat => ("linkat", ThirdAt, Changes),
        _ => return None,
    })
}

fn descriptor(thread: Pid, number: u64) -> Option<PathBuf> {
    let number = number as i32;
    let link = if number == nix::libc::AT_FDCWD { "cwd".into() } else { format!("fd/{number}") };
    std::fs::read_link(format!("/proc/{thread}/{link}")).ok()
}

/// The path that `name`, a string in the memory of the thread, stands for.
fn resolve(thread: Pid, dir: u64, name: u64) -> Option<PathBuf> {
    let memory = std::fs::File::open(format!("/proc/{thread}/mem")).ok()?;
    let mut bytes = vec![0; 4096];
    let len = memory.read_at(&mut bytes, name).ok()?;
    let end = bytes[..len].iter().position(|byte| *byte == 0)?;
    let name = Path::new(OsStr::from_bytes(&bytes[..end]));
    if name.is_absolute() {
        return Some(name.to_owned());
    }
    let dir = if dir == u64::MAX { nix::libc::AT_FDCWD as u64 } else { dir };
    Some(descriptor(thread, dir)?.join(name))
}
