//! Runs a command and writes what the kernel counted for it, as JSON.
//!
//! The peak of resident memory that a process inherits over `exec` is its parent's, so the parent
//! that is measured from has to be small; Python is not.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};
use std::time::{Duration, Instant};
use std::{env, mem, ptr, thread};

const USAGE: &str = "usage: measured RESULT SYNC_DIR CGROUPS|- READ_DIR|- TIMEOUT_SECONDS COMMAND …

CGROUPS   files to write the process into, with commas between them
READ_DIR  whose files are read once when the command has ended, before the sync";

#[expect(clippy::zombie_processes, reason = "waited for below, with `wait4`")]
fn main() {
    let arguments: Vec<_> = env::args_os().skip(1).collect();
    let [result, sync_dir, cgroups, read_dir, timeout, program, rest @ ..] = arguments.as_slice()
    else {
        eprintln!("{USAGE}");
        exit(2);
    };
    let timeout = timeout.to_str().and_then(|text| text.parse().ok()).unwrap_or(3600);
    let mut command = Command::new(program);
    command.args(rest).process_group(0);
    let groups: Vec<File> = cgroups
        .to_str()
        .into_iter()
        .flat_map(|names| names.split(',').filter(|it| *it != "-"))
        .map(|it| File::options().write(true).open(it).expect("a control group"))
        .collect();
    let in_place = move || {
        // Whoever stops this program stops what it measures.
        // SAFETY: takes plain numbers.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        groups.iter().try_for_each(|mut file| file.write_all(b"0"))
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
    // What a killed program leaves behind would be there in the next run.
    // SAFETY: the group is the child's own.
    unsafe { libc::kill(-pid, libc::SIGKILL) };
    let first_read = if read_dir == "-" { String::new() } else { first_read(read_dir.as_ref()) };
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
         \"written_blocks\": {}, \"switches\": {}{first_read}}}\n",
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

/// Reads every file as a server that loads it would, and says how much of it was in memory before.
fn first_read(dir: &Path) -> String {
    let mut files = Vec::new();
    // A command that failed may have left nothing.
    let _ = files_below(dir, &mut files);
    files.sort();
    let (mut pages, mut in_memory) = (0, 0);
    for path in &files {
        let (here, of) = File::open(path).and_then(|file| cached(&file)).unwrap_or_default();
        in_memory += here;
        pages += of;
    }
    let since = Instant::now();
    let mut buffer = vec![0; READ_SIZE];
    for path in &files {
        let mut file = File::open(path).expect("it was there before");
        while file.read(&mut buffer).is_ok_and(|count| count > 0) {}
    }
    let share = in_memory as f64 / pages.max(1) as f64;
    format!(", \"read\": {:.6}, \"cached\": {share:.4}", since.elapsed().as_secs_f64())
}

const READ_SIZE: usize = 1 << 20;

/// Neither links, which lead to files that are found anyway, nor what a downloader keeps for itself.
fn files_below(dir: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in dir.read_dir()? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        } else if kind.is_dir() {
            files_below(&entry.path(), found)?;
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    Ok(())
}

/// How many pages of a file are in memory, and how many it has.
fn cached(file: &File) -> io::Result<(usize, usize)> {
    let size = file.metadata()?.len() as usize;
    if size == 0 {
        return Ok((0, 0));
    }
    let mut pages = vec![0_u8; size.div_ceil(PAGE)];
    // SAFETY: a mapping of its own, which nothing touches, of a file that nobody else has; `mincore`
    // writes one byte for each page of it.
    let failed = unsafe {
        let fd = file.as_raw_fd();
        let start = libc::mmap(ptr::null_mut(), size, libc::PROT_READ, libc::MAP_SHARED, fd, 0);
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let failed = libc::mincore(start, size, pages.as_mut_ptr()) != 0;
        libc::munmap(start, size);
        failed
    };
    if failed {
        return Err(io::Error::last_os_error());
    }
    Ok((pages.iter().filter(|it| **it & 1 == 1).count(), pages.len()))
}

const PAGE: usize = 4096;

fn sync(dir: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open.
    match unsafe { libc::syncfs(dir.as_raw_fd()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
