//! Mapping a new segment's memory in one system call instead of one page fault per 4 KiB.
//!
//! Until the log is full for the first time every frame is copied into memory that was never touched. At 20,000
//! envelopes of 468 bytes a second that is 2,400 page faults, which were a fifth of the doppler's processor time. Later
//! segments are used again and nothing of this runs.

#![allow(unsafe_code)] // One call, see below; the reason is in docs/decisions.

use std::mem::MaybeUninit;

/// Has the kernel provide the pages of `memory` now. What cannot be done is left to page faults.
pub(crate) fn populate(memory: &mut [MaybeUninit<u8>]) {
    let pages = inner_pages(memory.as_ptr().addr(), memory.len());
    #[cfg(all(target_os = "linux", not(miri)))]
    if let Some((offset, len)) = pages {
        // Kernels before 5.14 answer EINVAL, and then the pages come one by one as they always did.
        // SAFETY: `offset + len` is within `memory`, which is borrowed exclusively, and the address is a multiple of
        // the page size. MADV_POPULATE_WRITE prefaults pages as a write to each would, without changing a byte.
        let _ = unsafe {
            libc::madvise(
                memory.as_mut_ptr().add(offset).cast(),
                len,
                libc::MADV_POPULATE_WRITE,
            )
        };
    }
    #[cfg(not(all(target_os = "linux", not(miri))))]
    let _ = pages;
}

/// Offset and length of the whole pages in `len` bytes at `address`; `None` if there is none.
fn inner_pages(address: usize, len: usize) -> Option<(usize, usize)> {
    // The page size of every Linux this runs on divides 64 KiB; a multiple of the page size is as good.
    const PAGE: usize = 64 << 10;
    let offset = address.next_multiple_of(PAGE) - address;
    let inner = len.checked_sub(offset)? / PAGE * PAGE;
    (inner > 0).then_some((offset, inner))
}

#[cfg(test)]
mod tests {
    use super::{inner_pages, populate};

    #[test]
    fn only_whole_pages_within_the_memory_are_asked_for() {
        const PAGE: usize = 64 << 10;
        assert_eq!(inner_pages(PAGE, 3 * PAGE), Some((0, 3 * PAGE)));
        assert_eq!(
            inner_pages(PAGE + 16, 3 * PAGE),
            Some((PAGE - 16, 2 * PAGE))
        );
        assert_eq!(inner_pages(PAGE + 16, PAGE), None);
        assert_eq!(inner_pages(PAGE, PAGE - 1), None);
        assert_eq!(inner_pages(PAGE, 0), None);
    }

    #[test]
    fn contents_stay() {
        let mut memory: Vec<u8> = vec![7; 100];
        memory.reserve(1 << 20);
        populate(memory.spare_capacity_mut());
        memory.extend_from_slice(&[9; 1 << 20]);
        assert!(memory[..100].iter().all(|b| *b == 7) && memory[100..].iter().all(|b| *b == 9));
    }
}
