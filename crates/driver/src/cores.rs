//! How many cores there are to use.

/// How many cores the thread may use. (`available_parallelism` asks the control groups too, which takes twenty calls.)
pub(crate) fn cores() -> u32 {
    // SAFETY: zeros are an empty set; a local structure to fill, and its size.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set);
        libc::CPU_COUNT(&set) as u32
    }
}
