//! int8 x int8 -> int32.

#![expect(
    clippy::needless_range_loop,
    reason = "indices over registers are plainer than zipped iterators, and always unrolled"
)]

use crate::isa::{Isa, Machine, with_isa};
use crate::{Disjoint, Pool};
use quantrs_simd::Level;
use std::cell::RefCell;

/// Values per row of a panel: with 32 rows 16 KiB.
const DEPTH: usize = 512;
/// Rows of the widest panel.
const MAX_ROWS: usize = 32;
/// Tiles of this many columns leave room in the registers of every machine.
const COLS: usize = 6;

/// `out[i, j] = sum over l of a[i, l] * b[j, l]`; a: `[m, k]`, b: `[n, k]`, out: `[m, n]`, all row-major.
///
/// Exact where the result fits in an i32, which it does for k <= 131071; beyond that it wraps. Panics when the shapes do not
/// belong together.
pub fn matmul_i8(pool: &Pool, level: Level, a: &[i8], b: &[i8], k: usize, out: &mut [i32]) {
    multiply(pool, Machine::of(level), a, b, k, out);
}

fn multiply(pool: &Pool, machine: Machine, a: &[i8], b: &[i8], k: usize, out: &mut [i32]) {
    if k == 0 {
        out.fill(0);
        return;
    }
    let (m, n) = (a.len() / k, b.len() / k);
    assert!(a.len() == m * k && b.len() == n * k && out.len() == m * n, "shapes [{m}, {k}], [{n}, {k}]");
    if m == 0 || n == 0 {
        return;
    }
    let columns = Columns::pad(a, k);
    let out = Disjoint::new(out);
    let rows = with_isa!(machine, isa => panel_rows(isa));
    pool.run(n.div_ceil(rows), |task| {
        let first = task * rows;
        let b = &b[first * k..n.min(first + rows) * k];
        SCRATCH.with_borrow_mut(|(panel, result)| {
            result.resize(m * rows, 0);
            with_isa!(machine, isa => multiply_rows(isa, panel, b, k, &columns, result));
            let len = rows.min(n - first);
            for (i, result) in result.chunks_exact(rows).enumerate() {
                // SAFETY: columns `first..first + len` of the result belong to this task alone.
                unsafe { out.range(i * n + first, len) }.copy_from_slice(&result[..len]);
            }
        });
    });
}

/// `[k / 4, R, 4]`: four consecutive values plus 128 of each row, which makes them unsigned.
#[repr(C, align(64))]
struct Panel([u8; MAX_ROWS * DEPTH]);

thread_local! {
    static SCRATCH: RefCell<(Box<Panel>, Vec<i32>)> = RefCell::new((Box::new(Panel([0; MAX_ROWS * DEPTH])), Vec::new()));
}

#[inline(always)]
fn panel_rows<M: Isa>(_: M) -> usize {
    assert!(2 * M::W <= MAX_ROWS);
    2 * M::W
}

/// The rows of a, padded with zeros to a multiple of four values.
struct Columns {
    values: Vec<i8>,
    /// Values per padded row.
    stride: usize,
    /// What makes up for the 128 added to b: -128 times the sum of the row.
    starts: Vec<i32>,
}

impl Columns {
    fn pad(a: &[i8], k: usize) -> Columns {
        let stride = k.next_multiple_of(4);
        let mut values = vec![0; a.len() / k * stride];
        for (padded, a) in values.chunks_exact_mut(stride).zip(a.chunks_exact(k)) {
            padded[..k].copy_from_slice(a);
        }
        let start = |a: &[i8]| a.iter().fold(0i32, |sum, &v| sum.wrapping_sub(128 * i32::from(v)));
        Columns { values, stride, starts: a.chunks_exact(k).map(start).collect() }
    }
}

/// Up to `R` rows of b with all columns, to `[m, R]`.
#[inline(always)]
fn multiply_rows<M: Isa>(isa: M, panel: &mut Panel, b: &[i8], k: usize, a: &Columns, out: &mut [i32]) {
    for start in (0..k).step_by(DEPTH) {
        let len = (k - start).min(DEPTH);
        fill(isa, panel, b, k, start, len);
        let m = a.starts.len();
        let mut col = 0;
        while col < m {
            if m - col >= COLS {
                tile::<M, COLS>(isa, panel, a, start, len, col, out);
                col += COLS;
            } else {
                tile::<M, 1>(isa, panel, a, start, len, col, out);
                col += 1;
            }
        }
    }
}

#[inline(always)]
fn fill<M: Isa>(isa: M, panel: &mut Panel, b: &[i8], k: usize, start: usize, len: usize) {
    let rows = 2 * M::W;
    for first in (0..rows).step_by(8) {
        for at in (0..len).step_by(32) {
            let mut eight = [isa.splat_byte(0); 8];
            for (j, row) in eight.iter_mut().enumerate() {
                let mut bytes = [0; 32];
                let from = (first + j) * k + start + at;
                if let Some(b) = b.get(from..from + (len - at).min(32)) {
                    for (byte, b) in bytes.iter_mut().zip(b) {
                        *byte = b.cast_unsigned() ^ 128;
                    }
                }
                *row = isa.load_bytes(&bytes);
            }
            for (q, quad) in isa.transpose(eight).into_iter().enumerate() {
                isa.store_bytes(quad, &mut panel.0[((at / 4 + q) * rows + first) * 4..]);
            }
        }
    }
}

/// Columns `col..col + N` of a chunk of `len` values from `start`.
#[inline(always)]
fn tile<M: Isa, const N: usize>(
    isa: M,
    panel: &Panel,
    a: &Columns,
    start: usize,
    len: usize,
    col: usize,
    out: &mut [i32],
) {
    let rows = 2 * M::W;
    let n_quads = len.div_ceil(4);
    let out = &mut out[col * rows..(col + N) * rows];
    assert!(rows <= MAX_ROWS && len <= DEPTH && a.values.len() >= (col + N) * a.stride);
    assert!(start + 4 * n_quads <= a.stride);
    let mut acc = [[isa.wide_isplat(0); 2]; N];
    for c in 0..N {
        for h in 0..2 {
            acc[c][h] = if start == 0 {
                isa.wide_isplat(a.starts[col + c])
            } else {
                // SAFETY: `out` has N * 2 * W values.
                unsafe { isa.wide_iload(out.as_ptr().add(c * rows + h * M::W)) }
            };
        }
    }
    for q in 0..n_quads {
        // SAFETY: quad q of a panel of DEPTH values.
        let u = unsafe { panel.0.as_ptr().add(q * rows * 4) };
        // SAFETY: as above.
        let u = unsafe { [isa.wide_bytes(u), isa.wide_bytes(u.add(4 * M::W))] };
        for c in 0..N {
            // SAFETY: inside row `col + c`, by the assertions.
            let x = unsafe { isa.wide_quad(a.values.as_ptr().add((col + c) * a.stride + start + 4 * q)) };
            for h in 0..2 {
                acc[c][h] = isa.wide_dot(true, acc[c][h], u[h], x);
            }
        }
    }
    for c in 0..N {
        for h in 0..2 {
            // SAFETY: `out` has N * 2 * W values.
            unsafe { isa.wide_istore(acc[c][h], out.as_mut_ptr().add(c * rows + h * M::W)) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_exact_for_extreme_values_and_odd_shapes_on_every_machine() {
        for (m, k, n) in [(1, 1, 1), (3, 33, 5), (17, 1024, 9), (6, 515, 70), (2, 4097, 31)] {
            let value = |i: usize| ((i * 7919 + i / 3 * 104_729) % 256) as u8 as i8;
            let mut a: Vec<i8> = (0..m * k).map(value).collect();
            let mut b: Vec<i8> = (0..n * k).map(|i| value(i + 17)).collect();
            a[..k].fill(-128);
            b[..k].fill(-128);
            a[(m - 1) * k..].iter_mut().step_by(2).for_each(|v| *v = 127);
            for machine in Machine::all(Level::detect()) {
                let mut out = vec![0; m * n];
                multiply(&Pool::new(2), machine, &a, &b, k, &mut out);
                for (i, a) in a.chunks_exact(k).enumerate() {
                    for (j, b) in b.chunks_exact(k).enumerate() {
                        let want: i32 = a.iter().zip(b).map(|(a, b)| i32::from(*a) * i32::from(*b)).sum();
                        assert_eq!(out[i * n + j], want, "{machine:?}, [{m}, {k}] x [{n}, {k}] at {i}, {j}");
                    }
                }
            }
        }
    }

    #[test]
    fn empty_shapes_give_zeros_or_nothing() {
        let (pool, level) = (Pool::new(1), Level::detect());
        let mut out = [7; 6];
        matmul_i8(&pool, level, &[], &[], 0, &mut out);
        assert_eq!(out, [0; 6]);
        matmul_i8(&pool, level, &[], &[1, 2, 3], 3, &mut []);
    }
}
