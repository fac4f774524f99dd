//! A panel of weight rows, unpacked once for all input columns.

use crate::Matrix;
use crate::isa::Isa;
use crate::unpack::{SPAN, Scales, Unpack};
use std::ops::Range;

/// Spans of a panel: with 32 rows 16 KiB of bytes, which stay in the first-level cache while the columns pass.
pub(crate) const DEPTH: usize = 2;
/// Rows of the widest panel.
pub(crate) const MAX_ROWS: usize = 32;

/// `R` rows, as the tiles read them; `R` is twice the lanes of a wide vector.
#[repr(C, align(64))]
pub(crate) struct Panel {
    /// `[k / 4, R, 4]`: four consecutive weights of each row.
    pub(crate) codes: [u8; MAX_ROWS * SPAN * DEPTH],
    /// `[group, R]`
    pub(crate) scales: [f32; MAX_ROWS * 16 * DEPTH],
    /// `[group, R]`
    pub(crate) mins: [f32; MAX_ROWS * 16 * DEPTH],
}

impl Panel {
    pub(crate) const ZERO: Panel = Panel {
        codes: [0; MAX_ROWS * SPAN * DEPTH],
        scales: [0.0; MAX_ROWS * 16 * DEPTH],
        mins: [0.0; MAX_ROWS * 16 * DEPTH],
    };

    /// Unpack weights `start..start + len` of up to `2 * W` rows; the rows beyond those given become zero. `next` is the first row
    /// and weight of the panel after this one.
    #[inline(always)]
    pub(crate) fn fill<M: Isa, F: Unpack>(
        &mut self,
        m: M,
        w: &Matrix<'_>,
        rows: Range<usize>,
        start: usize,
        len: usize,
        next: (usize, usize),
    ) {
        for first in (0..2 * M::W).step_by(8) {
            for (at, k) in (0..len).step_by(SPAN).enumerate() {
                let n = (len - k).min(SPAN);
                let span = |r: usize| {
                    // Rows that are not there are unpacked from the last one; their scales are zeroed.
                    let row = w.row((rows.start + first + r).min(rows.end - 1));
                    let start = (start + k) / F::BLOCK_LEN * F::BLOCK_BYTES;
                    &row[start..start + n / F::BLOCK_LEN * F::BLOCK_BYTES]
                };
                for r in 0..8 {
                    // Rows are too far apart, and the stretches too short, for the hardware to notice a pattern.
                    let row = w.row((next.0 + first + r).min(w.n_rows() - 1));
                    let ahead = row.as_ptr().wrapping_add((next.1 + k) / F::BLOCK_LEN * F::BLOCK_BYTES);
                    for line in (0..F::SPAN_BYTES).step_by(64) {
                        m.prefetch(ahead.wrapping_add(line));
                    }
                }
                self.fill_eight::<M, F>(m, first, at, n, rows.len(), std::array::from_fn(span));
            }
        }
    }

    #[inline(always)]
    fn fill_eight<M: Isa, F: Unpack>(
        &mut self,
        m: M,
        first: usize,
        at: usize,
        len: usize,
        n_rows: usize,
        spans: [&[u8]; 8],
    ) {
        let (n_groups, r) = (len / F::GROUP, 2 * M::W);
        let mut states = [None; 8];
        for j in 0..8 {
            let mut scales = Scales::ZERO;
            states[j] = Some(F::scales(m, spans[j], n_groups, &mut scales));
            if first + j >= n_rows {
                scales = Scales::ZERO;
            }
            for g in 0..n_groups {
                let place = (at * (SPAN / F::GROUP) + g) * r + first + j;
                self.scales[place] = scales.s[g];
                if F::MINS {
                    self.mins[place] = scales.m[g];
                }
            }
        }
        for i in 0..len / 32 {
            let mut rows = [m.splat_byte(0); 8];
            for j in 0..8 {
                rows[j] = F::codes(m, states[j].as_ref().expect("set above"), spans[j], i);
            }
            let quads = m.transpose(rows);
            for (q, quad) in quads.into_iter().enumerate() {
                m.store_bytes(quad, &mut self.codes[(((at * 8 + i) * 8 + q) * r + first) * 4..]);
            }
        }
    }
}
