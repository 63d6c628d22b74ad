//! Runs a command and writes what the kernel counted for it, as JSON.
//!
//! The peak of resident memory that a process inherits over `exec` is its parent's, so the parent
//! that is measured from has to be small; Python is not.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, exit};
use std::time::{Duration, Instant};
use std::{env, mem, thread};

const USAGE: &str = "usage: measured RESULT SYNC_DIR CGROUP|- TIMEOUT_SECONDS COMMAND …";

#[expect(clippy::zombie_processes, reason = "waited for below, with `wait4`")]
fn main() {
    let arguments: Vec<_> = env::args_os().skip(1).collect();
    let [result, sync_dir, cgroup, timeout, program, rest @ ..] = arguments.as_slice() else {
        eprintln!("{USAGE}");
        exit(2);
    };
    let timeout = timeout.to_str().and_then(|text| text.parse().ok()).unwrap_or(3600);
    let mut command = Command::new(program);
    command.args(rest).process_group(0);
    let group =
        (cgroup != "-").then(|| File::options().write(true).open(cgroup).expect("a control group"));
    let in_place = move || {
        // Whoever stops this program stops what it measures.
        // SAFETY: takes plain numbers.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        group.as_ref().map_or(Ok(()), |mut file| file.write_all(b"0"))
    };
    // SAFETY: nothing but system calls between `fork` and `exec`.
    unsafe { command.pre_exec(in_place) };
    let since = Instant::now();
    let child = command.spawn().unwrap_or_else(|error| {
        eprintln!("measured: {}: {error}", program.display());
        exit(127)
    });
    let pid = child.id() as libc::pid_t;
    thread::spawn(move || {
        thread::sleep(Duration::from_secs(timeout));
        // SAFETY: the group is the child's own, made above.
        unsafe { libc::kill(-pid, libc::SIGKILL) };
    });
    let (status, usage) = wait(pid);
    let wall = since.elapsed();
    let since = Instant::now();
    // A command that failed may not have made the directory.
    let synced = File::open(sync_dir).and_then(|dir| sync(&dir)).is_ok();
    let sync = since.elapsed();
    let code = if libc::WIFEXITED(status) {
        libc::WEXITSTATUS(status)
    } else {
        128 + libc::WTERMSIG(status)
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    let json = format!(
        "{{\"exit\": {code}, \"wall\": {:.6}, \"sync\": {:.6}, \"synced\": {synced}, \
         \"user\": {:.6}, \"system\": {:.6}, \"peak_kib\": {}, \"read_blocks\": {}, \
         \"written_blocks\": {}, \"switches\": {}}}\n",
        wall.as_secs_f64(),
        sync.as_secs_f64(),
        seconds(usage.ru_utime),
        seconds(usage.ru_stime),
        usage.ru_maxrss,
        usage.ru_inblock,
        usage.ru_oublock,
        usage.ru_nvcsw + usage.ru_nivcsw,
    );
    std::fs::write(result, json).expect("a place for the result");
}

/// The status of the child and what it and the children it waited for have used.
fn wait(pid: libc::pid_t) -> (libc::c_int, libc::rusage) {
    // SAFETY: both are plain numbers, for which zero is a value.
    let (mut status, mut usage): (libc::c_int, libc::rusage) = unsafe { mem::zeroed() };
    // SAFETY: the pointers are to the locals above.
    while unsafe { libc::wait4(pid, &mut status, 0, &mut usage) } == -1 {
        let error = io::Error::last_os_error();
        assert!(error.kind() == io::ErrorKind::Interrupted, "wait4: {error}");
    }
    (status, usage)
}

fn sync(dir: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open.
    match unsafe { libc::syncfs(dir.as_raw_fd()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
