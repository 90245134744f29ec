//! Whether to spin before a sleep. This file knows neither who spins nor for what.

use std::time::Duration;

/// A spinning thread that stands still for longer has lost its core, or waits for a lock that others want, too.
pub(crate) const LOST: Duration = Duration::from_micros(100);
const FIRST_PAUSE: u32 = 16;
const LAST_PAUSE: u32 = 1024;
/// How many of the last 16 spins must have paid.
const ENOUGH: u32 = 8;
/// As if the last spins had paid, the next being on trial: one that fails begins a pause.
const ON_TRIAL: u16 = 0xAAAA;

/// Whether to spin before a sleep, learnt from what the last spins have brought.
#[derive(Debug)]
pub(crate) struct Habit {
    /// Which of the last 16 spins paid, one bit each.
    recent: u16,
    /// How many of the next sleeps begin at once, and how many after the next failure.
    skip: u32,
    pause: u32,
}

impl Habit {
    pub(crate) fn new() -> Habit {
        Habit {
            recent: u16::MAX,
            skip: 0,
            pause: FIRST_PAUSE,
        }
    }

    /// Whether to spin this time. Counts the times.
    pub(crate) fn spins(&mut self) -> bool {
        let spins = self.skip == 0;
        self.skip = self.skip.saturating_sub(1);
        spins
    }

    pub(crate) fn learn(&mut self, paid: bool) {
        self.recent = self.recent << 1 | u16::from(paid);
        if self.recent == u16::MAX {
            self.pause = FIRST_PAUSE;
        } else if self.recent.count_ones() < ENOUGH {
            self.skip = self.pause;
            self.pause = (self.pause * 2).min(LAST_PAUSE);
            self.recent = ON_TRIAL;
        }
    }

    pub(crate) fn sleep_for_long(&mut self) {
        self.skip = LAST_PAUSE;
        self.recent = ON_TRIAL;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spun(outcomes: impl IntoIterator<Item = bool>) -> Habit {
        let mut habit = Habit::new();
        outcomes.into_iter().for_each(|paid| habit.learn(paid));
        habit
    }

    #[test]
    fn pays_for_ever() {
        let spin = spun(std::iter::repeat_n(true, 1000));
        assert_eq!(spin.skip, 0);
    }

    #[test]
    fn pays_mostly() {
        assert_eq!(spun((0..1000).map(|n| n % 3 > 0)).skip, 0);
    }

    #[test]
    fn backs_off_for_longer_and_longer() {
        let mut spin = spun(std::iter::repeat_n(false, 8));
        assert_eq!(spin.skip, 0, "half of the last 16 have paid");
        let mut pauses = Vec::new();
        for _ in 0..9 {
            spin.learn(false);
            pauses.push(std::mem::take(&mut spin.skip));
        }
        assert_eq!(pauses, [16, 32, 64, 128, 256, 512, 1024, 1024, 1024]);
    }

    #[test]
    fn a_spin_on_trial_that_pays_begins_again() {
        let mut spin = spun(std::iter::repeat_n(false, 20));
        spin.skip = 0;
        (0..16).for_each(|_| spin.learn(true));
        assert_eq!((spin.skip, spin.pause), (0, FIRST_PAUSE));
    }
}
