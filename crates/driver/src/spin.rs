//! Spinning: a wait that asks its engine again and again before it sleeps.
//!
//! To sleep and to wake up takes the kernel several microseconds, and a virtual machine more. A loop that does little
//! but wait for the next answer can save them, at the price of a core that is busy meanwhile. A spin pays if something
//! comes before its limit. Whether the next one will pay shows in the last ones:
//!
//! ```text
//!            fewer than 8 of the last 16 paid
//!   spinning ─────────────────────────────────▶ sleeping at once, for 16 waits, then 32, ... up to 1024
//!      ▲                                                    │
//!      └──────────── a spin on trial pays ◀─────────────────┘
//! ```
//!
//! A pause of the spinning thread shows that another program wants the core: then the loop sleeps for 1024 waits at
//! once. This file knows no engine: it asks by [`Driver::look`].

use std::hint::spin_loop;
use std::io;
use std::time::{Duration, Instant};

use crate::completion::Completion;
use crate::driver::Driver;

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

/// What the spins of a loop have brought and cost.
#[derive(Clone, Copy, Debug, Default)]
pub struct SpinCounts {
    /// Waits that began with a spin.
    pub spins: u64,
    /// Spins in which something came.
    pub paid: u64,
    /// Waits that slept at once, because spins did not pay.
    pub skipped: u64,
    /// Time in spins.
    pub time: Duration,
}

/// How long the waits of a loop may spin, and whether they should.
#[derive(Debug)]
pub struct Spin {
    limit: Duration,
    habit: Habit,
    /// The last wait did not sleep.
    is_awake: bool,
    counts: SpinCounts,
}

/// How a spin ended.
enum End {
    /// Something has come, or the timeout has passed.
    Paid,
    InVain,
    LostCore,
}

impl Spin {
    pub const LONGEST: Duration = Duration::from_millis(10);

    /// `limit`: how long a wait may spin.
    pub fn new(limit: Duration) -> Spin {
        Spin {
            limit,
            habit: Habit::new(),
            is_awake: false,
            counts: SpinCounts::default(),
        }
    }

    pub fn limit(&self) -> Duration {
        self.limit
    }

    pub fn counts(&self) -> SpinCounts {
        self.counts
    }

    /// As [`Driver::wait`], with a spin before it sleeps if that is likely to pay.
    ///
    /// # Errors
    /// Those of [`Driver::wait`].
    pub fn wait(
        &mut self,
        driver: &mut dyn Driver,
        timeout: Option<Duration>,
        batch: &mut Vec<Completion>,
    ) -> io::Result<()> {
        self.is_awake = false;
        if !self.habit.spins() {
            self.counts.skipped += 1;
            return driver.wait(timeout, batch);
        }
        let begun = Instant::now();
        let end = spin(driver, begun, self.limit, timeout)?;
        let spent = begun.elapsed();
        self.counts.spins += 1;
        self.counts.time += spent;
        match end {
            End::Paid => {
                self.counts.paid += 1;
                self.habit.learn(true);
                self.is_awake = true;
                return driver.wait(Some(Duration::ZERO), batch);
            }
            End::InVain => self.habit.learn(false),
            End::LostCore => self.habit.sleep_for_long(),
        }
        driver.wait(timeout.map(|timeout| timeout.saturating_sub(spent)), batch)
    }

    /// When a spin has ended that paid, to tell [`Spin::resumed`].
    pub fn ended(&self) -> Option<Instant> {
        self.is_awake.then(Instant::now)
    }

    /// Tells how long the loop has waited, after a spin, for a lock (the interpreter's) that other threads had.
    pub fn resumed(&mut self, waited: Duration) {
        if waited > LOST {
            self.habit.sleep_for_long();
        }
    }
}

fn spin(
    driver: &mut dyn Driver,
    begun: Instant,
    limit: Duration,
    timeout: Option<Duration>,
) -> io::Result<End> {
    let is_due = timeout.is_some_and(|timeout| timeout <= limit);
    let limit = timeout.map_or(limit, |timeout| timeout.min(limit));
    let mut last = Duration::ZERO;
    loop {
        if driver.look()? {
            return Ok(End::Paid);
        }
        spin_loop();
        let now = begun.elapsed();
        if now - last > LOST {
            return Ok(End::LostCore);
        }
        if now >= limit {
            return Ok(if is_due { End::Paid } else { End::InVain });
        }
        last = now;
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

    #[test]
    fn a_lost_core_is_left_to_others() {
        let mut spin = Spin::new(Duration::from_micros(50));
        spin.resumed(LOST / 2);
        assert_eq!(spin.habit.skip, 0);
        spin.resumed(LOST * 2);
        assert_eq!(spin.habit.skip, LAST_PAUSE);
    }
}
