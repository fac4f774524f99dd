//! Rows that change places, and rows that are columns.

use quantrs_formats::RowOrder;
use rayon::prelude::*;

/// Side of the squares of values that are transposed at a time.
const TILE: usize = 64;

/// From `[n_cols, n_rows]` values of `N` bytes to `[n_rows, n_cols]`, on the threads of the current pool.
///
/// A square of values goes through a small buffer: it is read in stretches and written in stretches, and no power of two between
/// rows makes them share lines of the cache.
pub(crate) fn transpose<const N: usize>(stored: &[u8], n_rows: usize, n_cols: usize, out: &mut [u8]) {
    let row_bytes = n_cols * N;
    out.par_chunks_mut(TILE * row_bytes).enumerate().for_each_init(
        || vec![[0; N]; TILE * TILE],
        |tile, (i, out)| {
            let rows = out.len() / row_bytes;
            for first in (0..n_cols).step_by(TILE) {
                let cols = TILE.min(n_cols - first);
                for col in 0..cols {
                    let from = &stored[((first + col) * n_rows + i * TILE) * N..][..rows * N];
                    for (row, value) in from.as_chunks::<N>().0.iter().enumerate() {
                        tile[row * TILE + col] = *value;
                    }
                }
                for (to, from) in out.chunks_exact_mut(row_bytes).zip(tile.chunks_exact(TILE)) {
                    to[first * N..][..cols * N].copy_from_slice(from[..cols].as_flattened());
                }
            }
        },
    );
}

/// Where row `row` of a head of `d` rows is stored within it.
pub(crate) fn stored_row(order: RowOrder, d: usize, row: usize) -> usize {
    match order {
        RowOrder::HalvesToPairs { .. } => row % 2 * (d / 2) + row / 2,
        RowOrder::PairsToHalves { .. } => row % (d / 2) * 2 + row / (d / 2),
        RowOrder::AsStored | RowOrder::Transposed => row,
    }
}

/// Rows of one kind are stored in ascending order.
pub(crate) fn kind_of(order: RowOrder, d: usize, row: usize) -> usize {
    match order {
        RowOrder::PairsToHalves { .. } => row / (d / 2),
        _ => row % 2,
    }
}
