//! What the zygote does once, so that not each of its forks has to.

use std::fs::{self, File};
use std::hint::black_box;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::thread;

/// Makes forks cheaper. Where that fails, they only take longer.
pub(super) fn up() {
    start_a_thread();
    let _ = change_a_byte_in_each_mapping();
}

/// A process's first thread has the C library look up functions, and make an arena to allocate from. Both stay when the
/// thread is gone. Its stack is too small to be used for a test's, which comes cheaper new, and large enough for what an
/// allocator or a sanitizer does when a thread begins.
fn start_a_thread() {
    let thread = thread::Builder::new().stack_size(512 * 1024).spawn(|| drop(black_box(Box::new(0))));
    let _ = thread.map(thread::JoinHandle::join);
}

/// A fork copies the page tables of memory that the process has changed, and leaves out those of mapped files: each
/// process finds the code that it runs by faults, some fifteen in each of two processes a test. But the kernel decides
/// that for whole mappings (`vma_needs_copy` in mm/memory.c): one changed page, and the whole mapping is copied. So the
/// zygote changes one byte in each mapping of a file, to what it is already.
fn change_a_byte_in_each_mapping() -> io::Result<()> {
    // Through this file the kernel writes to pages that the process itself may only read. It makes a private copy first.
    let memory = File::options().read(true).write(true).open("/proc/self/mem")?;
    for start in fs::read_to_string("/proc/self/maps")?.lines().filter_map(start_of_file_mapping) {
        let mut byte = [0];
        memory.read_exact_at(&mut byte, start)?;
        memory.write_all_at(&byte, start)?;
    }
    Ok(())
}

/// Where a private mapping of a file begins that can be read and not written to. See proc_pid_maps(5).
fn start_of_file_mapping(line: &str) -> Option<u64> {
    let mut fields = line.split_ascii_whitespace();
    let (range, access, path) = (fields.next()?, fields.next()?, fields.nth(3)?);
    let fits = access.starts_with("r-") && access.ends_with('p') && path.starts_with('/');
    let start = range.split_once('-')?.0;
    u64::from_str_radix(start, 16).ok().filter(|_| fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_mappings_of_files_are_found() {
        let text = "7f00-8f00 r-xp 00001000 fe:00 42                         /usr/lib/libc.so.6";
        assert_eq!(start_of_file_mapping(text), Some(0x7f00));
        for other in [
            "7f00-8f00 rw-p 00001000 fe:00 42                         /usr/lib/libc.so.6",
            "7f00-8f00 r--s 00001000 fe:00 42                         /usr/lib/locale",
            "7f00-8f00 ---p 00001000 fe:00 42                         /usr/lib/libc.so.6",
            "7f00-8f00 r--p 00000000 00:00 0                          [vvar]",
            "7f00-8f00 r-xp 00000000 00:00 0 ",
        ] {
            assert_eq!(start_of_file_mapping(other), None, "{other}");
        }
    }
}
