//! What a worker may still do once it has begun: read and write what is open, ask for memory, and end.
//!
//! A decoder's bug that let a file's author run code would find nothing to do harm with: no file can be opened, no address connected to,
//! no process started, watched or killed, for the kernel refuses all of it from then on. Beside that stand the bounds on memory,
//! processor time, and what may be open or written.

use std::io;

use rustix::process::{Resource, Rlimit, setrlimit};

/// Address space and processor time, in bytes and seconds.
const MEMORY: u64 = 3 << 29;
const PROCESSOR: u64 = 20;

/// Confines this thread, which is the process's only one, for good.
///
/// # Errors
/// The kernel's. Then it isn't confined.
pub(super) fn confine() -> io::Result<()> {
    let bounds = [
        (Resource::As, MEMORY),
        (Resource::Cpu, PROCESSOR),
        (Resource::Fsize, 0),
        (Resource::Core, 0),
        // Its three pipes are open; nothing else will be.
        (Resource::Nofile, 3),
    ];
    for (resource, most) in bounds {
        let bound = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        setrlimit(resource, bound)?;
    }
    refuse_calls()
}

/// From now on the kernel refuses this thread what a decoder doesn't need, as it refuses strangers' files: by an error, so that a
/// library that asks in vain goes on without.
#[cfg(target_os = "linux")]
pub(super) fn refuse_calls() -> io::Result<()> {
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter};

    /// What is left: input and output, memory, waking, the time, randomness for hash tables, and the end.
    const LEFT: &[i64] = &[
        libc::SYS_read,
        libc::SYS_write,
        libc::SYS_writev,
        libc::SYS_close,
        libc::SYS_brk,
        libc::SYS_mmap,
        libc::SYS_mprotect,
        libc::SYS_mremap,
        libc::SYS_munmap,
        libc::SYS_madvise,
        libc::SYS_futex,
        libc::SYS_sched_yield,
        libc::SYS_clock_gettime,
        libc::SYS_getrandom,
        libc::SYS_sigaltstack,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_exit,
        libc::SYS_exit_group,
    ];
    // On other machines the bounds stand alone.
    let Ok(machine) = TargetArch::try_from(std::env::consts::ARCH) else {
        return Ok(());
    };
    let refused = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let rules = LEFT.iter().map(|call| (*call, Vec::new())).collect();
    let filter = SeccompFilter::new(rules, refused, SeccompAction::Allow, machine);
    let program = filter.and_then(BpfProgram::try_from);
    let program = program.map_err(io::Error::other)?;
    apply_filter(&program).map_err(io::Error::other)
}

/// Where there is no such thing, the bounds stand alone.
#[cfg(not(target_os = "linux"))]
pub(super) fn refuse_calls() -> io::Result<()> {
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::{
        fs::File,
        net::{TcpListener, UdpSocket},
        process::Command,
    };

    use super::*;

    /// H5: code of a file's author would find no file, no network and no process.
    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "what is tried here is refused, in a thread that ends with it"
    )]
    fn h5_a_worker_reaches_nothing() {
        let confined = std::thread::spawn(|| {
            assert!(File::open("/proc/self/status").is_ok());
            refuse_calls().unwrap();
            let refused = [
                File::open("/proc/self/status").map(drop).unwrap_err(),
                File::create("/tmp/comity-of-a-worker")
                    .map(drop)
                    .unwrap_err(),
                UdpSocket::bind("127.0.0.1:0").map(drop).unwrap_err(),
                TcpListener::bind("127.0.0.1:0").map(drop).unwrap_err(),
                Command::new("/bin/true").spawn().map(drop).unwrap_err(),
                std::fs::remove_file("/tmp/comity-of-a-worker").unwrap_err(),
            ];
            refused.map(|error| error.kind())
        });
        let refused = confined.join().unwrap();
        assert_eq!(refused, [io::ErrorKind::PermissionDenied; 6]);
    }
}
