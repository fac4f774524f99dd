//! Sharing out the rows of a matrix.

use crate::{Disjoint, Pool};

/// Values below which sharing costs more than it saves.
const CHUNK: usize = 1 << 14;

/// Call `f(first_row, rows)` for stretches of rows that together are all of `x`, on the threads of the pool where it pays.
pub fn for_rows(pool: &Pool, x: &mut [f32], row_len: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
    let n_rows = x.len() / row_len.max(1);
    let rows = (CHUNK / row_len.max(1)).max(1);
    if n_rows <= rows {
        return f(0, x);
    }
    let x = Disjoint::new(x);
    pool.run(n_rows.div_ceil(rows), |task| {
        let first = task * rows;
        // SAFETY: every task has its own rows.
        let chunk = unsafe { x.range(first * row_len, rows.min(n_rows - first) * row_len) };
        f(first, chunk);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_given_once_with_its_number() {
        let pool = Pool::new(3);
        for (n_rows, row_len) in [(0, 5), (1, 5), (7, 10_000), (3, 20_000), (50_000, 1)] {
            let mut x = vec![1.0; n_rows * row_len];
            for_rows(&pool, &mut x, row_len, |first, rows| {
                for (i, row) in rows.chunks_exact_mut(row_len).enumerate() {
                    row.iter_mut().for_each(|x| *x += (first + i) as f32);
                }
            });
            assert!(x.iter().enumerate().all(|(i, x)| *x == 1.0 + (i / row_len) as f32), "{n_rows} rows of {row_len}");
        }
    }
}
