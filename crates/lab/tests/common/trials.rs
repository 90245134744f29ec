//! For tests that measure: what is to be seen once, on a machine that others use too.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Holds if one of five trials does. Only where another process that takes the core can make a trial fail and can make
/// none succeed: a defect fails all five.
pub fn once_of_five(trial: impl Fn()) {
    if (0..4).all(|_| catch_unwind(AssertUnwindSafe(&trial)).is_err()) {
        trial();
    }
}
