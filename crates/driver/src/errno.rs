//! Symbolic names of errors.

use std::io;

/// Formats an error as "EPERM: Operation not permitted": people search for the symbolic name.
pub(crate) fn named(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(errno) => format!("{}: {error}", errno_name(errno)),
        None => error.to_string(),
    }
}

fn errno_name(errno: i32) -> &'static str {
    match errno {
        libc::ENOSYS => "ENOSYS",
        libc::EPERM => "EPERM",
        libc::EINVAL => "EINVAL",
        libc::EACCES => "EACCES",
        libc::ENOMEM => "ENOMEM",
        libc::EMFILE => "EMFILE",
        libc::ENFILE => "ENFILE",
        libc::EOPNOTSUPP => "EOPNOTSUPP",
        libc::ERANGE => "ERANGE",
        _ => "errno",
    }
}
