//! Calls of the GNU C library on Linux.
#![expect(
    unsafe_code,
    reason = "mallopt, malloc_trim, dl_iterate_phdr and madvise"
)]

use std::ffi::{c_int, c_void};
use std::ptr;

/// Blocks from this size on are mappings of their own, in bytes. The library's
/// own threshold grows with what is freed, so that buffers of a burst end up
/// between what stays.
const MAPPED: c_int = 256 << 10;
/// Free memory at the end of the heap that is kept for what comes next.
const KEPT: c_int = 1 << 20;

pub(crate) fn economise() {
    // SAFETY: mallopt(3) sets numbers of the allocator.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
    }
}

pub(crate) fn trim() {
    // SAFETY: malloc_trim(3) locks what it works on and touches free memory
    // only.
    unsafe {
        libc::malloc_trim(0);
    }
}

pub(crate) fn unmap_program() {
    // SAFETY: the callback does not unwind, and uses no data.
    unsafe {
        libc::dl_iterate_phdr(Some(unmap_object), ptr::null_mut());
    }
}

pub(crate) fn release(buffer: &mut [u8]) {
    let page = page_size();
    let range = buffer.as_mut_ptr_range();
    let start = range.start.expose_provenance().next_multiple_of(page);
    let end = range.end.addr() & !(page - 1);
    if start < end {
        // SAFETY: the pages hold nothing but bytes of the buffer, which is
        // borrowed alone. They read as other bytes then: zeros, or what a file
        // has there.
        unsafe {
            libc::madvise(
                ptr::with_exposed_provenance_mut(start),
                end - start,
                libc::MADV_DONTNEED,
            );
        }
    }
}

/// In bytes.
fn page_size() -> usize {
    // SAFETY: asks for a number.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(page).unwrap_or(4096)
}

/// Drops the pages of all segments of a loaded object that nobody may write.
unsafe extern "C" fn unmap_object(
    object: *mut libc::dl_phdr_info,
    _size: usize,
    _data: *mut c_void,
) -> c_int {
    // SAFETY: dl_iterate_phdr(3) passes a valid object with its headers.
    let (base, headers) = unsafe {
        let object = &*object;
        let count = usize::from(object.dlpi_phnum);
        let headers = std::slice::from_raw_parts(object.dlpi_phdr, count);
        (object.dlpi_addr, headers)
    };
    let page = page_size();
    for header in headers {
        if header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0 {
            let address = (base + header.p_vaddr) as usize;
            let start = address & !(page - 1);
            let len = address - start + header.p_memsz as usize;
            // SAFETY: the segment is mapped from a file, and nobody may write
            // to it: what is touched again is read from the file again.
            unsafe {
                libc::madvise(
                    ptr::with_exposed_provenance_mut(start),
                    len,
                    libc::MADV_DONTNEED,
                );
            }
        }
    }
    0
}
