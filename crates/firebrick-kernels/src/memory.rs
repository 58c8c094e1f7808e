//! What the allocator does with freed blocks.

/// Lets the allocator keep freed memory instead of giving it back, for the whole process.
///
/// Tensors come and go with every operation. glibc gives large blocks back to the system each time, which then has to clear
/// every page anew: a seventh of the time of small models. Programs call this first; elsewhere than with glibc it does nothing.
pub fn keep_freed_memory() {
    #[cfg(target_env = "gnu")]
    {
        const LARGEST: libc::c_int = 1 << 30;
        // SAFETY: `mallopt` only sets parameters of the allocator, under its own lock.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, LARGEST);
            libc::mallopt(libc::M_TRIM_THRESHOLD, LARGEST);
        }
    }
}
