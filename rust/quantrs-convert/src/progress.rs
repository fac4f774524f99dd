//! What the thread that converts shares with the thread that watches.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Counts finished source bytes, and carries the wish to stop.
#[derive(Debug, Default)]
pub struct Progress {
    done: AtomicU64,
    cancelled: AtomicBool,
}

impl Progress {
    /// Source bytes finished so far.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Ask the running conversion, and every later one, to stop soon.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, n_bytes: usize) {
        self.done.fetch_add(n_bytes as u64, Ordering::Relaxed);
    }
}
