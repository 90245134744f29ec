//! A table by small numbers, such as file descriptors, that grows by pages. A vector would be copied whenever it doubles: with a
//! million connections that takes milliseconds, and leaves the memory of the smaller one behind.

use std::ops::{Index, IndexMut};

/// Entries of a page.
const PAGE: usize = 64;

pub struct Pages<T> {
    pages: Vec<Box<[T; PAGE]>>,
}

impl<T> Default for Pages<T> {
    fn default() -> Pages<T> {
        Pages { pages: Vec::new() }
    }
}

impl<T: Default> Pages<T> {
    /// Grows the table so that it has this index. New entries have their default.
    pub fn reach(&mut self, index: usize) {
        while self.len() <= index {
            self.pages.push(Box::new(std::array::from_fn(|_| T::default())));
        }
    }
}

impl<T> Pages<T> {
    /// How many entries there are. All indexes below are in the table.
    #[inline]
    pub fn len(&self) -> usize {
        self.pages.len() * PAGE
    }

    pub fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    #[inline]
    pub fn get(&self, index: usize) -> Option<&T> {
        Some(&self.pages.get(index / PAGE)?[index % PAGE])
    }

    #[inline]
    pub fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        Some(&mut self.pages.get_mut(index / PAGE)?[index % PAGE])
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.pages.iter().flat_map(|page| page.iter())
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.pages.iter_mut().flat_map(|page| page.iter_mut())
    }
}

impl<T> Index<usize> for Pages<T> {
    type Output = T;

    #[inline]
    fn index(&self, index: usize) -> &T {
        &self.pages[index / PAGE][index % PAGE]
    }
}

impl<T> IndexMut<usize> for Pages<T> {
    #[inline]
    fn index_mut(&mut self, index: usize) -> &mut T {
        &mut self.pages[index / PAGE][index % PAGE]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_and_keeps_what_it_has() {
        let mut table = Pages::<usize>::default();
        assert!(table.is_empty() && table.get(0).is_none() && table.get_mut(0).is_none());
        for index in [0, 63, 64, 1000] {
            table.reach(index);
            table[index] = index;
        }
        table.reach(3);
        assert_eq!(table.len(), 1024);
        assert_eq!(table.iter().sum::<usize>(), 63 + 64 + 1000);
        assert_eq!((table.get(1000), table.get(1024)), (Some(&1000), None));
        table.iter_mut().for_each(|entry| *entry += 1);
        assert_eq!(table[5], 1);
    }
}
