//! Which engines this process can open on this machine, and why it can't open the others.

use std::io;

use crate::driver::{Config, Engine};
use crate::errno::named;
use crate::locked;
use crate::open::open;

/// Whether one engine can be opened.
#[derive(Clone, Debug)]
pub struct EngineReport {
    pub engine: Engine,
    /// `None`: the engine can be opened. Otherwise the reason why not, in one line.
    pub reason: Option<String>,
}

/// The reason why an engine can't be opened, in one line.
pub fn explain(engine: Engine, error: &io::Error) -> String {
    let Some(errno) = error.raw_os_error() else {
        return error.to_string();
    };
    let cause = match (engine, errno) {
        (Engine::IoUring, libc::EPERM) => "; forbidden by seccomp or by the sysctl kernel.io_uring_disabled",
        (Engine::IoUring, libc::ENOSYS) => "; not in this kernel, or hidden by seccomp",
        (Engine::IoUring, libc::ENOMEM) => {
            let needed = Config::default().locked_memory(locked::limit()) / 1024;
            return format!(
                "{}; a ring takes {needed} KiB of locked memory, and the user's limit, which all processes of the \
                 user share, is used up: raise it (ulimit -l; LimitMEMLOCK= of systemd)",
                named(error)
            );
        }
        (Engine::Select, libc::ERANGE) => "; fds at or above FD_SETSIZE (1024) can't be watched",
        _ => "",
    };
    format!("{}{cause}", named(error))
}

/// Opens and closes each engine to find out.
pub fn engine_report(config: &Config) -> Vec<EngineReport> {
    let small = Config {
        entries: 8,
        buffers: 1,
        max_buffers: 8,
        ..config.clone()
    };
    Engine::ALL
        .into_iter()
        .map(|engine| match open(engine, &small) {
            Ok(_) => EngineReport { engine, reason: None },
            Err(error) => EngineReport {
                engine,
                reason: Some(explain(engine, &error)),
            },
        })
        .collect()
}
