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

/// The properties of a format that the inner loop depends on.
pub(crate) trait Kind {
    const GROUP: usize;
    const MINS: bool;
    const BYTE: bool;
}

pub(crate) struct KindOf<const GROUP: usize, const MINS: bool, const BYTE: bool>;

impl<const GROUP: usize, const MINS: bool, const BYTE: bool> Kind for KindOf<GROUP, MINS, BYTE> {
    const GROUP: usize = GROUP;
    const MINS: bool = MINS;
    const BYTE: bool = BYTE;
}

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
            let y = complete.then_some(Output { y, n_rows: w.n_rows(), first, len: panel_rows.min(rows.end - first) });
            let chunk = Chunk { panel, len, offset: F::OFFSET, x, n, add: start > 0, y };
            match (F::GROUP, F::MINS, F::BYTE) {
                (32, false, false) => chunk.multiply::<M, KindOf<32, false, false>>(m, partial),
                (32, false, true) => chunk.multiply::<M, KindOf<32, false, true>>(m, partial),
                (32, true, false) => chunk.multiply::<M, KindOf<32, true, false>>(m, partial),
                (16, false, false) => chunk.multiply::<M, KindOf<16, false, false>>(m, partial),
                (16, true, false) => chunk.multiply::<M, KindOf<16, true, false>>(m, partial),
                _ => unreachable!("no format is of this kind"),
            }
        }
    }
}

struct Chunk<'a> {
    panel: &'a Panel,
    /// Weights per row, a multiple of 32.
    len: usize,
    offset: u8,
    /// `[spans, n]`
    x: &'a [Span],
    n: usize,
    /// Whether the result so far is added.
    add: bool,
    /// Where complete sums go.
    y: Option<Output<'a>>,
}

impl Chunk<'_> {
    #[inline(always)]
    fn multiply<M: Isa, K: Kind>(&self, m: M, partial: &mut [f32]) {
        let mut col = 0;
        while self.n - col >= M::INT_COLS {
            match M::INT_COLS {
                6 => self.tile::<M, K, 6>(m, col, partial),
                3 => self.tile::<M, K, 3>(m, col, partial),
                _ => self.tile::<M, K, 2>(m, col, partial),
            }
            col += M::INT_COLS;
        }
        while self.n - col >= 2 {
            self.tile::<M, K, 2>(m, col, partial);
            col += 2;
        }
        if col < self.n {
            self.tile::<M, K, 1>(m, col, partial);
        }
    }

    /// Columns `col..col + COLS` of the result.
    #[inline(always)]
    fn tile<M: Isa, K: Kind, const COLS: usize>(&self, m: M, col: usize, partial: &mut [f32]) {
        let rows = 2 * M::W;
        let partial = &mut partial[col * rows..(col + COLS) * rows];
        assert!(rows <= MAX_ROWS && self.len <= SPAN * DEPTH && self.len.is_multiple_of(32));
        assert!(self.x.len() >= (self.len.div_ceil(SPAN) - 1) * self.n + col + COLS);
        let mut acc = [[m.wide_splat(0.0); 2]; COLS];
        if self.add {
            for c in 0..COLS {
                acc[c] = output::get(m, &partial[c * rows..]);
            }
        }
        for g in 0..self.len / K::GROUP {
            let (at, k) = (g * K::GROUP / SPAN, g * K::GROUP % SPAN);
            // SAFETY: span `at` of columns up to `col + COLS`, by the assertion.
            let x = unsafe { self.x.as_ptr().add(at * self.n + col) };
            // SAFETY: as above, for all c below COLS.
            let x = |c: usize| unsafe { &*x.add(c) };
            acc = self.group::<M, K, COLS>(m, g, k, x, acc);
        }
        for c in 0..COLS {
            match &self.y {
                Some(y) => y.store(m, col + c, acc[c]),
                None => output::put(m, acc[c], &mut partial[c * rows..]),
            }
        }
    }

    /// Add the products of group `g`, whose activations start at `k` of their span.
    #[inline(always)]
    fn group<'x, M: Isa, K: Kind, const COLS: usize>(
        &self,
        m: M,
        g: usize,
        k: usize,
        x: impl Fn(usize) -> &'x Span,
        mut acc: [[M::WF; 2]; COLS],
    ) -> [[M::WF; 2]; COLS] {
        let rows = 2 * M::W;
        let in_span = k / K::GROUP;
        let mut dots = [[m.wide_isplat(0); 2]; COLS];
        if !K::MINS {
            for c in 0..COLS {
                let sum = if K::GROUP == 32 { x(c).code_sums_32[in_span] } else { x(c).code_sums_16[in_span] };
                dots[c] = [m.wide_isplat(-(i32::from(self.offset) * sum)); 2];
            }
        }
        for q in 0..K::GROUP / 4 {
            let at = (g * (K::GROUP / 4) + q) * rows * 4;
            // SAFETY: group g is inside the panel, which holds SPAN * DEPTH weights of MAX_ROWS rows; k + 4q + 4 is at most SPAN, and
            // the columns' spans follow each other.
            dots = unsafe {
                let codes = self.panel.codes.as_ptr().add(at);
                m.add_quads(K::BYTE, dots, codes, std::ptr::from_ref(x(0)).cast::<i8>().add(k + 4 * q))
            };
        }
        // SAFETY: group g is inside the panel.
        let scales = unsafe { self.panel.scales.as_ptr().add(g * rows) };
        // SAFETY: as above.
        let scales = unsafe { [m.wide_load(scales), m.wide_load(scales.add(M::W))] };
        for c in 0..COLS {
            let x_scale = m.wide_splat(x(c).scales[k / 32]);
            for h in 0..2 {
                acc[c][h] = m.wide_fma(m.wide_to_f32(dots[c][h]), m.wide_mul(scales[h], x_scale), acc[c][h]);
            }
        }
        if K::MINS {
            // SAFETY: group g is inside the panel.
            let mins = unsafe { self.panel.mins.as_ptr().add(g * rows) };
            // SAFETY: as above.
            let mins = unsafe { [m.wide_load(mins), m.wide_load(mins.add(M::W))] };
            for c in 0..COLS {
                let sum = if K::GROUP == 32 { x(c).sums_32[in_span] } else { x(c).sums_16[in_span] };
                for h in 0..2 {
                    acc[c][h] = m.wide_fma(mins[h], m.wide_splat(sum), acc[c][h]);
                }
            }
        }
        acc
    }
}
