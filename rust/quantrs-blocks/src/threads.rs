//! The thread pools: one per thread count, kept for the life of the process.

use rayon::{ThreadPool, ThreadPoolBuilder};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// The CPUs that this process may run on.
pub fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Run `f` where rayon's parallel iterators use `threads` threads (default: [`default_threads`]).
///
/// With one thread, or where the system gives none, `f` runs on the calling thread.
pub fn with_threads<R: Send>(threads: Option<usize>, f: impl FnOnce() -> R + Send) -> R {
    match pool(threads.unwrap_or_else(default_threads).max(1)) {
        Some(pool) => pool.install(f),
        None => f(),
    }
}

fn pool(threads: usize) -> Option<Arc<ThreadPool>> {
    static POOLS: OnceLock<Mutex<HashMap<usize, Arc<ThreadPool>>>> = OnceLock::new();
    let mut pools = POOLS.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(pool) = pools.get(&threads) {
        return Some(pool.clone());
    }
    let pool = ThreadPoolBuilder::new().num_threads(threads).thread_name(|i| format!("quantrs-{i}")).build().ok()?;
    Some(pools.entry(threads).or_insert(Arc::new(pool)).clone())
}
