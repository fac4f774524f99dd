//! Many input columns: a panel of weights against all of them, in tiles that fill the registers.

#![expect(
    clippy::needless_range_loop,
    reason = "indices over registers are plainer than zipped iterators, and always unrolled"
)]

use crate::activations::Span;
use crate::isa::Isa;
use crate::output::{self, Output};
use crate::panel::{DEPTH, MAX_ROWS, Panel};
use crate::unpack::{SPAN, Unpack};
use crate::{Disjoint, Matrix};
use std::ops::Range;

/// Products of `rows` of w with all columns, to y: `[n, n_rows]`. Sums that are not complete lie in `partial`:
/// `[panels, n, 2 * W]`; y's rows are too far apart for them.
///
/// Spans are taken `DEPTH` at a time, groups in order, one accumulator per result. The activations of those spans stay in the
/// second-level cache while the panels pass.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "operands, their shapes, the result and its scratch")]
pub(crate) fn multiply_panels<M: Isa, F: Unpack>(
    m: M,
    panel: &mut Panel,
    w: &Matrix<'_>,
    rows: Range<usize>,
    x: &[Span],
    n: usize,
    partial: &mut [f32],
    y: &Disjoint<'_, f32>,
) {
    let panel_rows = 2 * M::W;
    for start in (0..w.n_cols()).step_by(SPAN * DEPTH) {
        let len = (w.n_cols() - start).min(SPAN * DEPTH);
        let x = &x[start / SPAN * n..];
        for (first, partial) in rows.clone().step_by(panel_rows).zip(partial.chunks_exact_mut(n * panel_rows)) {
            let next = first + panel_rows;
            let following = match (next < rows.end, start + len < w.n_cols()) {
                (true, _) => (next, start),
                (false, true) => (rows.start, start + len),
                (false, false) => (next, 0),
            };
            panel.fill::<M, F>(m, w, first..rows.end.min(next), start, len, following);
            let complete = start + len == w.n_cols();
            let output = if complete { Output::of_panel(m, y, n, w.n_rows(), first) } else { None };
            let to_scratch = output.is_none();
            let chunk = Chunk { panel, len, x, n, add: start > 0, output };
            chunk.multiply::<M, F>(m, partial);
            if complete && to_scratch {
                output::copy_rest(partial, y, n, w.n_rows(), first);
            }
        }
    }
}

struct Chunk<'a> {
    panel: &'a Panel,
    /// Weights per row, a multiple of 32.
    len: usize,
    /// `[spans, n]`
    x: &'a [Span],
    n: usize,
    /// Whether the result so far is added.
    add: bool,
    /// Where complete sums go, unless to the scratch.
    output: Option<Output<'a>>,
}

impl Chunk<'_> {
    #[inline(always)]
    fn multiply<M: Isa, F: Unpack>(&self, m: M, partial: &mut [f32]) {
        let mut col = 0;
        while self.n - col >= M::INT_COLS {
            match (M::INT_COLS, F::GROUP) {
                // Two groups of 16 under one scale take a third set of registers; with four columns there are enough.
                (6, 16) if !F::BY_SPAN => break,
                // Four columns keep the units about as busy as six, two do not: eight columns are four and four.
                (6, _) if self.n - col == 8 => break,
                (6, _) => self.tile::<M, F, 6>(m, col, partial),
                (3, _) => self.tile::<M, F, 3>(m, col, partial),
                _ => self.tile::<M, F, 2>(m, col, partial),
            }
            col += M::INT_COLS;
        }
        while M::INT_COLS == 6 && self.n - col >= 4 {
            self.tile::<M, F, 4>(m, col, partial);
            col += 4;
        }
        while self.n - col >= 2 {
            self.tile::<M, F, 2>(m, col, partial);
            col += 2;
        }
        if col < self.n {
            self.tile::<M, F, 1>(m, col, partial);
        }
    }

    /// Columns `col..col + COLS` of the result.
    #[inline(always)]
    fn tile<M: Isa, F: Unpack, const COLS: usize>(&self, m: M, col: usize, partial: &mut [f32]) {
        let rows = 2 * M::W;
        let partial = partial[col * rows..(col + COLS) * rows].as_mut_ptr();
        assert!(rows <= MAX_ROWS && self.len <= SPAN * DEPTH && self.len.is_multiple_of(32));
        assert!(self.x.len() >= (self.len.div_ceil(SPAN) - 1) * self.n + col + COLS);
        let zero = [m.wide_splat(0.0); 2];
        let mut acc = [zero; COLS];
        if self.add && !F::BY_SPAN {
            for c in 0..COLS {
                // SAFETY: `partial` has COLS columns.
                acc[c] = unsafe { output::get(m, partial.add(c * rows)) };
            }
        }
        for at in 0..self.len.div_ceil(SPAN) {
            // SAFETY: span `at` of columns up to `col + COLS`, by the assertion.
            let x = unsafe { self.x.as_ptr().add(at * self.n + col) };
            // SAFETY: as above, for all c below COLS.
            let x = |c: usize| unsafe { &*x.add(c) };
            let len = if F::BY_SPAN { SPAN } else { SPAN.min(self.len - at * SPAN) };
            for i in 0..len / 32 {
                // The same weights' activations of the next tile, a line of codes in two steps; scales and sums at the end.
                for c in (i % 2..COLS).step_by(2) {
                    let ahead = std::ptr::from_ref(x(c)).wrapping_add(COLS).cast::<u8>();
                    m.prefetch(ahead.wrapping_add(i / 2 * 64));
                    if i >= SPAN / 32 - 2 {
                        m.prefetch(ahead.wrapping_add(std::mem::offset_of!(Span, scales)));
                    }
                }
                acc = self.add::<M, F, COLS>(m, at * SPAN / 32 + i, 32 * i, x, acc);
            }
            if F::BY_SPAN {
                // The sums are in units of the span's scale.
                for c in 0..COLS {
                    let x_scale = m.wide_splat(x(c).scales[0]);
                    // SAFETY: `partial` has COLS columns.
                    let sums = if self.add || at > 0 { unsafe { output::get(m, partial.add(c * rows)) } } else { zero };
                    for h in 0..2 {
                        acc[c][h] = m.wide_fma(acc[c][h], x_scale, sums[h]);
                    }
                }
                if (at + 1) * SPAN < self.len {
                    for c in 0..COLS {
                        // SAFETY: as above.
                        unsafe { output::put(m, acc[c], partial.add(c * rows)) };
                        acc[c] = zero;
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

    /// Add the products of weights `32 * i..`, whose activations start at `k` of their span.
    #[inline(always)]
    fn add<'x, M: Isa, F: Unpack, const COLS: usize>(
        &self,
        m: M,
        i: usize,
        k: usize,
        x: impl Fn(usize) -> &'x Span,
        mut acc: [[M::WF; 2]; COLS],
    ) -> [[M::WF; 2]; COLS] {
        if F::BY_SPAN {
            for j in 0..32 / F::GROUP {
                let g = 32 / F::GROUP * i + j;
                let dots = self.dots::<M, F, COLS>(m, g, k + 16 * j, &x);
                let scales = self.row(m, &self.panel.scales, g);
                for c in 0..COLS {
                    for h in 0..2 {
                        acc[c][h] = m.wide_fma(m.wide_to_f32(dots[c][h]), scales[h], acc[c][h]);
                    }
                }
            }
        } else if F::GROUP == 32 {
            let dots = self.dots::<M, F, COLS>(m, i, k, &x);
            let scales = self.row(m, &self.panel.scales, i);
            for c in 0..COLS {
                let x_scale = m.wide_splat(x(c).scales[k / 32]);
                for h in 0..2 {
                    acc[c][h] = m.wide_fma(m.wide_to_f32(dots[c][h]), m.wide_mul(scales[h], x_scale), acc[c][h]);
                }
            }
        } else {
            // Two groups share the scale of the activations: it is applied to their sum.
            let dots = self.dots::<M, F, COLS>(m, 2 * i, k, &x);
            let scales = self.row(m, &self.panel.scales, 2 * i);
            let mut sums = acc;
            for c in 0..COLS {
                for h in 0..2 {
                    sums[c][h] = m.wide_mul(m.wide_to_f32(dots[c][h]), scales[h]);
                }
            }
            let dots = self.dots::<M, F, COLS>(m, 2 * i + 1, k + 16, &x);
            let scales = self.row(m, &self.panel.scales, 2 * i + 1);
            for c in 0..COLS {
                let x_scale = m.wide_splat(x(c).scales[k / 32]);
                for h in 0..2 {
                    let sum = m.wide_fma(m.wide_to_f32(dots[c][h]), scales[h], sums[c][h]);
                    acc[c][h] = m.wide_fma(sum, x_scale, acc[c][h]);
                }
            }
        }
        if F::MINS {
            for j in 0..32 / F::GROUP {
                let mins = self.row(m, &self.panel.mins, 32 / F::GROUP * i + j);
                for c in 0..COLS {
                    let sum = if F::GROUP == 32 { x(c).sums_32[k / 32] } else { x(c).sums_16[k / 16 + j] };
                    for h in 0..2 {
                        acc[c][h] = m.wide_fma(mins[h], m.wide_splat(sum), acc[c][h]);
                    }
                }
            }
        }
        acc
    }

    /// Row `g` of `[group, 2 * W]`.
    #[inline(always)]
    fn row<M: Isa>(&self, m: M, values: &[f32; MAX_ROWS * 16 * DEPTH], g: usize) -> [M::WF; 2] {
        debug_assert!(g < 16 * DEPTH);
        // SAFETY: the panel has 16 * DEPTH groups of at least 2 * W rows.
        unsafe {
            let row = values.as_ptr().add(g * 2 * M::W);
            [m.wide_load(row), m.wide_load(row.add(M::W))]
        }
    }

    /// The integer sums of group `g`, whose activations start at `k` of their span.
    #[inline(always)]
    fn dots<'x, M: Isa, F: Unpack, const COLS: usize>(
        &self,
        m: M,
        g: usize,
        k: usize,
        x: impl Fn(usize) -> &'x Span,
    ) -> [[M::WI; 2]; COLS] {
        let mut dots = [[m.wide_isplat(0); 2]; COLS];
        if !F::MINS {
            for c in 0..COLS {
                let x = x(c);
                let sum = if F::GROUP == 32 { x.code_sums_32[k / 32] } else { x.code_sums_16[k / 16] };
                dots[c] = [m.wide_isplat(-(i32::from(F::OFFSET) * sum)); 2];
            }
        }
        for q in 0..F::GROUP / 4 {
            let at = (g * (F::GROUP / 4) + q) * 2 * M::W * 4;
            // SAFETY: group g is inside the panel, which holds SPAN * DEPTH weights of MAX_ROWS rows; k + 4q + 4 is at most SPAN, and
            // the columns' spans follow each other.
            dots = unsafe {
                let codes = self.panel.codes.as_ptr().add(at);
                m.add_quads(F::BYTE, dots, codes, std::ptr::from_ref(x(0)).cast::<i8>().add(k + 4 * q))
            };
        }
        dots
    }
}
