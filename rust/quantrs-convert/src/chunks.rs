//! Handing out numbered chunks to the threads of the current pool.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Call `work` for every chunk `0..n_chunks`, in about that order, on all threads of the current pool.
///
/// `state` makes what a worker keeps from chunk to chunk. Results come in chunk order. On failure the error is that of the lowest
/// failing chunk, and chunks above it that were not begun are left out: what is reported does not depend on timing.
pub(crate) fn for_each_chunk<State, T: Send, E: Send>(
    n_chunks: usize,
    state: impl Fn() -> State + Sync,
    work: impl Fn(&mut State, usize) -> Result<T, E> + Sync,
) -> Result<Vec<T>, E> {
    let next = AtomicUsize::new(0);
    let first_failed = AtomicUsize::new(usize::MAX);
    let results = Mutex::new((Vec::with_capacity(n_chunks), None::<(usize, E)>));
    let worker = || {
        let mut state = state();
        let mut mine = Vec::new();
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            if i >= n_chunks || i > first_failed.load(Ordering::Relaxed) {
                break;
            }
            match work(&mut state, i) {
                Ok(result) => mine.push((i, result)),
                Err(error) => {
                    first_failed.fetch_min(i, Ordering::Relaxed);
                    let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
                    if results.1.as_ref().is_none_or(|(earlier, _)| i < *earlier) {
                        results.1 = Some((i, error));
                    }
                    break;
                }
            }
        }
        results.lock().unwrap_or_else(PoisonError::into_inner).0.extend(mine);
    };
    if n_chunks > 1 {
        rayon::broadcast(|_| worker());
    } else {
        worker();
    }
    let (mut done, failed) = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, error)) = failed {
        return Err(error);
    }
    done.sort_unstable_by_key(|(i, _)| *i);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use quantrs_blocks::with_threads;

    #[test]
    fn results_come_in_chunk_order_for_any_thread_count() {
        for threads in 1..=4 {
            let squares = with_threads(Some(threads), || for_each_chunk(100, || (), |(), i| Ok::<_, ()>(i * i)));
            assert_eq!(squares.unwrap(), (0..100).map(|i| i * i).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_error_is_that_of_the_lowest_failing_chunk() {
        for _ in 0..20 {
            let failed = with_threads(Some(3), || {
                for_each_chunk(100, || (), |(), i| if i == 37 || i > 60 { Err(i) } else { Ok(()) })
            });
            assert_eq!(failed, Err(37));
        }
    }
}
