//! A map whose keys are tokens.
//!
//! Most submitters number their ops: the low 32 bits of a token are a small index, which is used again, and the bits above
//! tell its tenants apart. So the values lie in a table by that index: a look-up needs no hash, and a table has no more memory
//! than entries, while a hash table is half empty. Any other token goes into a hash table.

use std::collections::HashMap;

use crate::completion::Token;
use crate::pages::Pages;

/// How far an index may be past the end of the table.
const GAP: usize = 1024;

struct Entry<V> {
    high: u32,
    value: Option<V>,
}

impl<V> Default for Entry<V> {
    fn default() -> Entry<V> {
        Entry { high: 0, value: None }
    }
}

pub(crate) struct TokenMap<V> {
    entries: Pages<Entry<V>>,
    others: HashMap<Token, V>,
    len: usize,
}

impl<V> Default for TokenMap<V> {
    fn default() -> TokenMap<V> {
        TokenMap {
            entries: Pages::default(),
            others: HashMap::new(),
            len: 0,
        }
    }
}

fn index(token: Token) -> usize {
    token as u32 as usize
}

fn high(token: Token) -> u32 {
    (token >> 32) as u32
}

impl<V> TokenMap<V> {
    fn entry(&mut self, token: Token) -> Option<&mut Entry<V>> {
        self.entries
            .get_mut(index(token))
            .filter(|entry| entry.high == high(token))
    }

    /// Returns the value that the token had.
    pub(crate) fn insert(&mut self, token: Token, value: V) -> Option<V> {
        let (index, high) = (index(token), high(token));
        if index >= self.entries.len() && index - self.entries.len() < GAP {
            self.entries.reach(index);
        }
        let before = match self.entries.get_mut(index) {
            Some(entry)
                if (entry.value.is_none() || entry.high == high) && !self.others.contains_key(&token) =>
            {
                entry.high = high;
                entry.value.replace(value)
            }
            _ => self.others.insert(token, value),
        };
        self.len += usize::from(before.is_none());
        before
    }

    #[inline]
    pub(crate) fn get(&self, token: Token) -> Option<&V> {
        match self.entries.get(index(token)) {
            Some(entry) if entry.high == high(token) && entry.value.is_some() => entry.value.as_ref(),
            _ => self.others.get(&token),
        }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, token: Token) -> Option<&mut V> {
        match self.entries.get_mut(index(token)) {
            Some(entry) if entry.high == high(token) && entry.value.is_some() => entry.value.as_mut(),
            _ => self.others.get_mut(&token),
        }
    }

    pub(crate) fn remove(&mut self, token: Token) -> Option<V> {
        let value = self.entry(token).and_then(|entry| entry.value.take());
        let value = value.or_else(|| self.others.remove(&token));
        self.len -= usize::from(value.is_some());
        value
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Token, &V)> {
        let entries = self.entries.iter().enumerate().filter_map(|(index, entry)| {
            let token = u64::from(entry.high) << 32 | index as u64;
            Some((token, entry.value.as_ref()?))
        });
        entries.chain(self.others.iter().map(|(token, value)| (*token, value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a hash table does, with indexes that collide, leave gaps, and are huge.
    #[test]
    fn acts_like_a_hash_table() {
        let mut ours = TokenMap::default();
        let mut model = HashMap::new();
        let mut random = 1u64;
        for step in 0..200_000u64 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let bits = random >> 33;
            let index = match bits % 50 {
                0 => u64::from(u32::MAX) - bits % 7,
                1 => bits % 5000,
                _ => bits % 40,
            };
            let token = ((bits >> 8) % 3) << 32 | index;
            match bits % 3 {
                0 => assert_eq!(ours.insert(token, step), model.insert(token, step)),
                1 => assert_eq!(ours.remove(token), model.remove(&token)),
                _ => {
                    assert_eq!(ours.get(token), model.get(&token));
                    assert_eq!(ours.get_mut(token), model.get_mut(&token));
                }
            }
            assert_eq!((ours.len(), ours.is_empty()), (model.len(), model.is_empty()));
        }
        let mut all: Vec<_> = ours.iter().map(|(token, value)| (token, *value)).collect();
        let mut expected: Vec<_> = model.into_iter().collect();
        all.sort_unstable();
        expected.sort_unstable();
        assert_eq!(all, expected);
        assert!(ours.entries.len() < 10_000, "a huge index takes no memory");
    }
}
