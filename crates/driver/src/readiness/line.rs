//! The ops that wait for one direction of an fd, in their order. Nearly every fd has at most one, which needs no memory of its
//! own: of an idle connection an engine keeps little more than this.

use std::collections::VecDeque;

use super::Waiter;

#[derive(Default)]
pub(super) struct Line {
    /// `None`: nobody waits.
    first: Option<Waiter>,
    #[expect(
        clippy::box_collection,
        reason = "the box is the point: a word where nothing waits, not four"
    )]
    others: Option<Box<VecDeque<Waiter>>>,
}

impl Line {
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// The only op, if there is one and no other.
    pub(super) fn only(&self) -> Option<&Waiter> {
        let others = self.others.as_ref();
        self.first
            .as_ref()
            .filter(|_| others.is_none_or(|others| others.is_empty()))
    }

    pub(super) fn get(&self, index: usize) -> Option<&Waiter> {
        match index {
            0 => self.first.as_ref(),
            _ => self.others.as_ref()?.get(index - 1),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Waiter> {
        self.first
            .iter()
            .chain(self.others.iter().flat_map(|others| others.iter()))
    }

    pub(super) fn push_back(&mut self, waiter: Waiter) {
        if self.first.is_none() {
            self.first = Some(waiter);
        } else {
            self.others.get_or_insert_default().push_back(waiter);
        }
    }

    pub(super) fn pop_back(&mut self) -> Option<Waiter> {
        let last = self.others.as_mut().and_then(|others| others.pop_back());
        last.or_else(|| self.first.take())
    }

    pub(super) fn remove(&mut self, index: usize) -> Option<Waiter> {
        match (index, &mut self.others) {
            (0, None) => self.first.take(),
            (0, Some(others)) => std::mem::replace(&mut self.first, others.pop_front()),
            (_, others) => others.as_mut()?.remove(index - 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::RecvMulti;

    #[test]
    fn acts_like_a_queue() {
        let mut line = Line::default();
        let mut model = VecDeque::new();
        let mut random = 1u64;
        for token in 0..20_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let index = (random >> 40) as usize % 4;
            match (random >> 33) % 7 {
                0..=2 => {
                    let op = RecvMulti { fd: 0 }.into();
                    line.push_back(Waiter { token, op });
                    model.push_back(token);
                }
                3 => assert_eq!(line.pop_back().map(|waiter| waiter.token), model.pop_back()),
                _ => assert_eq!(line.remove(index).map(|waiter| waiter.token), model.remove(index)),
            }
            assert!(line.iter().map(|waiter| waiter.token).eq(model.iter().copied()));
            assert_eq!(line.is_empty(), model.is_empty());
            assert_eq!(
                line.get(index).map(|waiter| waiter.token),
                model.get(index).copied()
            );
            assert_eq!(line.only().is_some(), model.len() == 1);
        }
    }
}
