//! Memory that is lent to the kernel for as long as the process lives: a ring registers it once, and reads into it past the page
//! cache no longer pin and release its pages each time.
//!
//! It is never unmapped, so an address in it never means other memory than what a ring has registered.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes of it. The kernel counts them as locked memory, once for each ring that registers them.
const SIZE: usize = 1 << 20;
/// Bytes: a multiple of what `O_DIRECT` asks of addresses.
const BLOCK: usize = 4096;
const BLOCKS: usize = SIZE / BLOCK;

struct Region {
    base: usize,
    /// Which blocks are in use. No lock: a forked child could find it held for ever by a thread that it does not have.
    used: [AtomicBool; BLOCKS],
}

/// `None` within: there was no memory.
static REGION: OnceLock<Option<Region>> = OnceLock::new();

impl Region {
    fn map() -> Option<Region> {
        // SAFETY: a fresh mapping of our own.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                SIZE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        (base != libc::MAP_FAILED).then_some(Region {
            base: base as usize,
            used: [const { AtomicBool::new(false) }; BLOCKS],
        })
    }

    /// Takes these blocks, all or none of them.
    fn claim(&self, first: usize, count: usize) -> bool {
        let blocks = &self.used[first..first + count];
        let taken = blocks
            .iter()
            .take_while(|block| !block.swap(true, Ordering::Acquire))
            .count();
        if taken < count {
            release(&blocks[..taken]);
        }
        taken == count
    }
}

fn release(blocks: &[AtomicBool]) {
    for block in blocks {
        block.store(false, Ordering::Release);
    }
}

/// Blocks of the lent memory, for one user. They hold what their last user has left in them.
#[derive(Debug)]
pub struct Loan {
    first: usize,
    count: usize,
}

impl Loan {
    /// So many bytes, at an address of whole blocks. `None`: there is no room for them.
    pub fn new(len: usize) -> Option<Loan> {
        let count = len.div_ceil(BLOCK).max(1);
        let region = REGION.get_or_init(Region::map).as_ref()?;
        let first = (0..=BLOCKS.checked_sub(count)?).find(|first| region.claim(*first, count))?;
        Some(Loan { first, count })
    }

    pub fn ptr(&self) -> *mut u8 {
        let base = region().map_or(0, |(base, _)| base as usize);
        (base + self.first * BLOCK) as *mut u8
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        if let Some(Some(region)) = REGION.get() {
            release(&region.used[self.first..self.first + self.count]);
        }
    }
}

/// Address and size of the lent memory; `None` until somebody has asked for some of it.
pub(crate) fn region() -> Option<(*mut u8, usize)> {
    let region = REGION.get()?.as_ref()?;
    Some((region.base as *mut u8, SIZE))
}

/// Whether the memory is lent.
pub(crate) fn holds(ptr: *const u8, len: usize) -> bool {
    region().is_some_and(|(base, size)| {
        let offset = (ptr as usize).wrapping_sub(base as usize);
        offset < size && len <= size - offset
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loans_do_not_overlap_and_come_back() {
        let loans: Vec<Loan> = (0..20).filter_map(|number| Loan::new(number * 3000)).collect();
        assert_eq!(loans.len(), 20);
        let mut places: Vec<_> = loans.iter().map(|loan| (loan.first, loan.count)).collect();
        places.sort_unstable();
        assert!(places.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0));
        for loan in &loans {
            assert_eq!(loan.ptr() as usize % BLOCK, 0);
            assert!(holds(loan.ptr(), loan.count * BLOCK));
        }
        assert!(Loan::new(SIZE).is_none());
        drop(loans);
        let all = Loan::new(SIZE).expect("all has come back");
        assert!(holds(all.ptr(), SIZE) && !holds(all.ptr(), SIZE + 1));
        assert!(!holds(all.ptr().wrapping_sub(1), 1) && !holds(all.ptr().wrapping_add(SIZE), 1));
        assert!(Loan::new(1).is_none() && Loan::new(usize::MAX).is_none());
    }
}
