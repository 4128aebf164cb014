//! One test of a program at a time: labs beside each other take the computer from each other.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Waits until no other test of this program holds what it returns. What is measured is measured
/// with the computer to itself, as far as this program goes.
pub fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    // A test that failed has let its lab go.
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}
