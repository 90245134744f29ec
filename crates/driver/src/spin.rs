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
//! once (`habit.rs`, which the threads of `pool.rs` follow, too). This file knows no engine: it asks by [`Driver::look`].

use std::hint::spin_loop;
use std::io;
use std::time::{Duration, Instant};

use crate::completion::Completion;
use crate::driver::Driver;
use crate::habit::{Habit, LOST};

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

    #[test]
    fn a_lost_core_is_left_to_others() {
        let mut spin = Spin::new(Duration::from_micros(50));
        spin.resumed(LOST / 2);
        assert!(spin.habit.spins());
        spin.resumed(LOST * 2);
        assert!(!spin.habit.spins());
    }
}
