//! Where the tiles of a product leave complete sums.

use crate::Disjoint;
use crate::isa::Isa;

/// Rows of the widest panel.
const MAX_ROWS: usize = 32;

/// Rows `first..first + len` of a product, which belong to one task alone.
pub(crate) struct Output<'a> {
    /// `[n, n_rows]`
    pub(crate) y: &'a Disjoint<'a, f32>,
    pub(crate) n_rows: usize,
    pub(crate) first: usize,
    /// At most the rows of a panel.
    pub(crate) len: usize,
}

impl Output<'_> {
    /// Write the first `len` of the sums of two wide vectors of rows, for one column.
    #[inline(always)]
    pub(crate) fn store<M: Isa>(&self, m: M, col: usize, sums: [M::WF; 2]) {
        // SAFETY: these rows belong to this task alone.
        let y = unsafe { self.y.range(col * self.n_rows + self.first, self.len) };
        if y.len() == 2 * M::W {
            put(m, sums, y);
        } else {
            let mut all = [0.0; MAX_ROWS];
            put(m, sums, &mut all);
            y.copy_from_slice(&all[..y.len()]);
        }
    }
}

/// To the first `2 * W` places. Panics when there are fewer.
#[inline(always)]
pub(crate) fn put<M: Isa>(m: M, sums: [M::WF; 2], out: &mut [f32]) {
    assert!(out.len() >= 2 * M::W);
    // SAFETY: the assertion.
    unsafe {
        m.wide_store(sums[0], out.as_mut_ptr());
        m.wide_store(sums[1], out.as_mut_ptr().add(M::W));
    }
}

/// The first `2 * W` values. Panics when there are fewer.
#[inline(always)]
pub(crate) fn get<M: Isa>(m: M, sums: &[f32]) -> [M::WF; 2] {
    assert!(sums.len() >= 2 * M::W);
    // SAFETY: the assertion.
    unsafe { [m.wide_load(sums.as_ptr()), m.wide_load(sums.as_ptr().add(M::W))] }
}
