//! Products in float32: float weights, and any format where exactness was asked for.

#![expect(
    clippy::needless_range_loop,
    reason = "indices over registers are plainer than zipped iterators, and always unrolled"
)]

use crate::activations::FloatSpan;
use crate::gemv::AHEAD;
use crate::isa::Isa;
use crate::output::{self, Output};
use crate::unpack::SPAN;
use crate::{Disjoint, Matrix};
use quantrs_simd::Level;
use std::ops::Range;

/// Rows of the widest panel.
const MAX_ROWS: usize = 32;
/// Columns from which the panel pays.
pub(crate) const PANEL_COLS: usize = 5;

/// Weights of up to `2 * W` rows, decoded: `[k, 2 * W]` for the k of a span.
#[repr(C, align(64))]
pub(crate) struct FloatPanel {
    weights: [f32; MAX_ROWS * SPAN],
    /// Eight decoded rows.
    rows: [[f32; SPAN]; 8],
}

impl FloatPanel {
    pub(crate) const ZERO: FloatPanel = FloatPanel { weights: [0.0; MAX_ROWS * SPAN], rows: [[0.0; SPAN]; 8] };

    #[inline(always)]
    fn fill<M: Isa>(&mut self, m: M, level: Level, w: &Matrix<'_>, first_row: usize, at: usize, len: usize) {
        let r = 2 * M::W;
        for first in (0..r).step_by(8) {
            for (j, out) in self.rows.iter_mut().enumerate() {
                let row = first_row + first + j;
                if row < w.n_rows() {
                    decode(level, w, row, at, &mut out[..len]);
                    out[len..].fill(0.0);
                } else {
                    out.fill(0.0);
                }
            }
            for k in (0..len).step_by(8) {
                let mut quads = [m.splat_byte(0); 8];
                for (quad, row) in quads.iter_mut().zip(&self.rows) {
                    *quad = m.load_bytes(&bytes_of(row)[4 * k..]);
                }
                for (i, quad) in m.transpose(quads).into_iter().enumerate() {
                    m.store_bytes(quad, &mut bytes_of_mut(&mut self.weights)[4 * ((k + i) * r + first)..]);
                }
            }
        }
    }
}

/// Weights of one row from `SPAN * at`.
#[inline(always)]
fn decode(level: Level, w: &Matrix<'_>, row: usize, at: usize, out: &mut [f32]) {
    let (len, bytes) = (w.format().block_len, w.format().block_bytes);
    let b = &w.row(row)[at * SPAN / len * bytes..][..out.len() / len * bytes];
    (w.format().dequantize.expect("checked by Matrix::new"))(level, b, out);
}

/// Products of `rows` of w with all columns, to y: `[n, n_rows]`. Sums that are not complete lie in `partial`:
/// `[panels, n, 2 * W]`. One accumulator per result, k in order.
///
/// Spans are taken one after the other: the activations of one stay in the second-level cache while the panels pass.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "operands, their shapes, the result and its scratch")]
pub(crate) fn multiply_panels<M: Isa>(
    m: M,
    level: Level,
    panel: &mut FloatPanel,
    w: &Matrix<'_>,
    rows: Range<usize>,
    x: &[FloatSpan],
    n: usize,
    partial: &mut [f32],
    y: &Disjoint<'_, f32>,
) {
    let panel_rows = 2 * M::W;
    for (at, start) in (0..w.n_cols()).step_by(SPAN).enumerate() {
        let len = (w.n_cols() - start).min(SPAN);
        let complete = start + len == w.n_cols();
        let x = &x[at * n..(at + 1) * n];
        for (first, partial) in rows.clone().step_by(panel_rows).zip(partial.chunks_exact_mut(n * panel_rows)) {
            let next = first + panel_rows;
            let (next_row, next_start) = if next < rows.end { (next, start) } else { (rows.start, start + len) };
            for row in next_row..w.n_rows().min(next_row + panel_rows) {
                prefetch(m, w, row, next_start);
            }
            panel.fill(m, level, w, first, at, len);
            let output = if complete { Output::of_panel(m, y, n, w.n_rows(), first) } else { None };
            let to_scratch = output.is_none();
            let chunk = Chunk { weights: &panel.weights, len, x, add: at > 0, output };
            chunk.multiply(m, partial);
            if complete && to_scratch {
                output::copy_rest(partial, y, n, w.n_rows(), first);
            }
        }
    }
}

/// Ask for the span of a row that begins at `start`; there may be none.
#[inline(always)]
fn prefetch<M: Isa>(m: M, w: &Matrix<'_>, row: usize, start: usize) {
    let (len, bytes) = (w.format().block_len, w.format().block_bytes);
    let first = w.row(row).as_ptr().wrapping_add(start / len * bytes);
    for line in (0..SPAN / len * bytes).step_by(64) {
        m.prefetch(first.wrapping_add(line));
    }
}

struct Chunk<'a> {
    /// `[k, 2 * W]`
    weights: &'a [f32; MAX_ROWS * SPAN],
    /// Weights per row.
    len: usize,
    /// `[n]`
    x: &'a [FloatSpan],
    /// Whether the result so far is added.
    add: bool,
    /// Where complete sums go, unless to the scratch.
    output: Option<Output<'a>>,
}

impl Chunk<'_> {
    #[inline(always)]
    fn multiply<M: Isa>(&self, m: M, partial: &mut [f32]) {
        let (n, mut col) = (self.x.len(), 0);
        while n - col >= M::FLOAT_COLS {
            match M::FLOAT_COLS {
                12 => self.tile::<M, 12>(m, col, partial),
                6 => self.tile::<M, 6>(m, col, partial),
                _ => self.tile::<M, 2>(m, col, partial),
            }
            col += M::FLOAT_COLS;
        }
        while n - col >= 4 {
            self.tile::<M, 4>(m, col, partial);
            col += 4;
        }
        while col < n {
            self.tile::<M, 1>(m, col, partial);
            col += 1;
        }
    }

    /// Columns `col..col + COLS` of the result.
    #[inline(always)]
    fn tile<M: Isa, const COLS: usize>(&self, m: M, col: usize, partial: &mut [f32]) {
        let rows = 2 * M::W;
        let partial = partial[col * rows..(col + COLS) * rows].as_mut_ptr();
        let x = &self.x[col..col + COLS];
        assert!(rows <= MAX_ROWS && self.len <= SPAN);
        let mut acc = [[m.wide_splat(0.0); 2]; COLS];
        if self.add {
            for c in 0..COLS {
                // SAFETY: `partial` has COLS columns.
                acc[c] = unsafe { output::get(m, partial.add(c * rows)) };
            }
        }
        for start in (0..self.len).step_by(16) {
            // The same place of the next tile's columns.
            for c in 0..COLS {
                m.prefetch(std::ptr::from_ref(&x[c]).wrapping_add(COLS).cast::<u8>().wrapping_add(4 * start));
            }
            for k in start..self.len.min(start + 16) {
                // SAFETY: row k of `[SPAN, 2 * W]`.
                let w = unsafe { self.weights.as_ptr().add(k * rows) };
                // SAFETY: as above.
                let w = unsafe { [m.wide_load(w), m.wide_load(w.add(M::W))] };
                for c in 0..COLS {
                    // SAFETY: `x` has COLS spans, and k is below SPAN.
                    let x = m.wide_splat(unsafe { *x.get_unchecked(c).get_unchecked(k) });
                    for h in 0..2 {
                        acc[c][h] = m.wide_fma(w[h], x, acc[c][h]);
                    }
                }
            }
        }
        if let Some(output) = &self.output {
            for c in 0..COLS {
                output.store(m, col + c, acc[c]);
            }
        } else {
            for c in 0..COLS {
                // SAFETY: as above.
                unsafe { output::put(m, acc[c], partial.add(c * rows)) };
            }
        }
    }
}

/// Dot product of one row with one column, its spans `n` apart: four times eight lanes in turn, then their sum.
#[inline(always)]
pub(crate) fn dot_row<M: Isa>(m: M, level: Level, w: &Matrix<'_>, row: usize, x: &[FloatSpan], n: usize) -> f32 {
    let b = w.row(row);
    match w.format().name {
        "F32" => dot(
            m,
            b,
            w.n_cols(),
            4,
            x,
            n,
            #[inline(always)]
            |b| m.load_f32(b),
        ),
        "F16" => dot(
            m,
            b,
            w.n_cols(),
            2,
            x,
            n,
            #[inline(always)]
            |b| m.load_f16(b),
        ),
        "BF16" => dot(
            m,
            b,
            w.n_cols(),
            2,
            x,
            n,
            #[inline(always)]
            |b| m.load_bf16(b),
        ),
        _ => {
            let mut acc = [m.splat(0.0); 4];
            let mut weights = [0.0; SPAN];
            for (at, x) in x.iter().step_by(n).enumerate() {
                let len = (w.n_cols() - at * SPAN).min(SPAN);
                decode(level, w, row, at, &mut weights[..len]);
                // Blocks have a multiple of 32 values.
                for k in (0..len).step_by(8) {
                    acc[k / 8 % 4] = m.fma(m.load(&weights[k..]), m.load(&x[k..]), acc[k / 8 % 4]);
                }
            }
            sum(m, acc)
        }
    }
}

#[inline(always)]
fn dot<M: Isa>(
    m: M,
    b: &[u8],
    n_cols: usize,
    width: usize,
    x: &[FloatSpan],
    n: usize,
    load: impl Fn(&[u8]) -> M::F,
) -> f32 {
    let mut acc = [m.splat(0.0); 4];
    let mut last = [0; 32];
    for (at, x) in x.iter().step_by(n).enumerate() {
        let len = (n_cols - at * SPAN).min(SPAN);
        let b = &b[at * SPAN * width..][..len * width];
        for line in (0..len * width).step_by(64) {
            m.prefetch(b.as_ptr().wrapping_add(AHEAD + line));
        }
        let mut stretches = b.chunks_exact(32 * width);
        for (b, x) in (&mut stretches).zip(x.chunks_exact(32)) {
            for (i, acc) in acc.iter_mut().enumerate() {
                *acc = m.fma(load(&b[8 * i * width..]), m.load(&x[8 * i..]), *acc);
            }
        }
        let x = &x[len / 32 * 32..];
        for (i, b) in stretches.remainder().chunks(8 * width).enumerate() {
            last.fill(0);
            last[..b.len()].copy_from_slice(b);
            acc[i] = m.fma(load(&last), m.load(&x[8 * i..]), acc[i]);
        }
    }
    sum(m, acc)
}

#[inline(always)]
fn sum<M: Isa>(m: M, acc: [M::F; 4]) -> f32 {
    m.sum(m.add(m.add(acc[0], acc[1]), m.add(acc[2], acc[3])))
}

#[inline(always)]
fn bytes_of(x: &[f32]) -> &[u8] {
    // SAFETY: any f32 is four valid bytes.
    unsafe { std::slice::from_raw_parts(x.as_ptr().cast(), size_of_val(x)) }
}

#[inline(always)]
fn bytes_of_mut(x: &mut [f32]) -> &mut [u8] {
    // SAFETY: any f32 is four valid bytes, and any four bytes are an f32.
    unsafe { std::slice::from_raw_parts_mut(x.as_mut_ptr().cast(), size_of_val(x)) }
}
