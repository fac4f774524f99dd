//! How fast this machine reads memory: what decoding is measured against.

use crate::Pool;
use quantrs_simd::Level;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// Bytes that a thread reads in one go.
const TASK_BYTES: usize = 1 << 20;
/// How far ahead of its use memory is asked for: as in the products with one column, so that both meet the same limit.
const AHEAD: usize = 4096;
const LINE: usize = 64;

/// Bytes per second that all threads of the pool together read from a buffer of `n_bytes`, front to back: the best of `passes`.
///
/// The buffer should be several times larger than the last cache, or the cache is measured. It is written once before, so that
/// every page is there.
pub fn read_bandwidth(pool: &Pool, level: Level, n_bytes: usize, passes: usize) -> f64 {
    let n_words = n_bytes.div_ceil(TASK_BYTES).max(1) * TASK_BYTES / size_of::<u64>();
    let words: Vec<u64> = (0..n_words as u64).collect();
    let total = AtomicU64::new(0);
    let task_words = TASK_BYTES / size_of::<u64>();
    let mut best = f64::INFINITY;
    for _ in 0..passes.max(1) {
        let start = Instant::now();
        pool.run(n_words / task_words, |i| {
            let words = &words[i * task_words..][..task_words];
            // The sums are used below; without a use, nothing would be read.
            total.fetch_add(
                level.run(
                    #[inline(always)]
                    || sum(words),
                ),
                Relaxed,
            );
        });
        best = best.min(start.elapsed().as_secs_f64());
    }
    std::hint::black_box(total.load(Relaxed));
    (n_words * size_of::<u64>()) as f64 / best
}

/// The wrapping sum, a cache line at a time.
#[inline(always)]
fn sum(words: &[u64]) -> u64 {
    let (lines, rest) = words.as_chunks::<{ LINE / size_of::<u64>() }>();
    let mut sums = [0u64; LINE / size_of::<u64>()];
    for line in lines {
        prefetch(line.as_ptr().cast::<u8>().wrapping_add(AHEAD));
        for (sum, word) in sums.iter_mut().zip(line) {
            *sum = sum.wrapping_add(*word);
        }
    }
    sums.iter().chain(rest).fold(0, |a, b| a.wrapping_add(*b))
}

#[inline(always)]
fn prefetch(p: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE is part of x86_64, and a prefetch of any address is harmless.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(p.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_that_of_all_words() {
        let words: Vec<u64> = (0..1003).map(|i| i * 2_654_435_761 % 1_000_000_007).collect();
        assert_eq!(sum(&words), words.iter().sum::<u64>());
    }

    #[test]
    fn a_rate_is_positive_and_finite_for_any_size() {
        for (threads, n_bytes) in [(1, 0), (2, 1), (3, 5 << 20)] {
            let rate = read_bandwidth(&Pool::new(threads), Level::detect(), n_bytes, 2);
            assert!(rate.is_finite() && rate > 1e6, "{rate} bytes per second");
        }
    }
}
