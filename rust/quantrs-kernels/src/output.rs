//! Where the tiles of a product leave sums.

use crate::Disjoint;
use crate::isa::Isa;

/// The columns of some rows of a product, which belong to one task alone: as many rows as a panel has.
pub(crate) struct Output<'a> {
    /// `[n, n_rows]`
    y: &'a Disjoint<'a, f32>,
    n: usize,
    n_rows: usize,
    first: usize,
}

impl<'a> Output<'a> {
    /// Rows `first..first + 2 * W` of y: `[n, n_rows]`; None when there are fewer. Then the sums go to the scratch, and from there
    /// [`copy_rest`] takes them: checks and partial stores in the tiles would cost all of them.
    #[inline(always)]
    pub(crate) fn of_panel<M: Isa>(
        _: M,
        y: &'a Disjoint<'a, f32>,
        n: usize,
        n_rows: usize,
        first: usize,
    ) -> Option<Self> {
        assert!(y.len() == n * n_rows);
        (first + 2 * M::W <= n_rows).then_some(Output { y, n, n_rows, first })
    }

    /// Write the sums of two wide vectors of rows for one column.
    #[inline(always)]
    pub(crate) fn store<M: Isa>(&self, m: M, col: usize, sums: [M::WF; 2]) {
        debug_assert!(col < self.n);
        // SAFETY: `first + 2 * W` is at most n_rows, so these places of column `col` are inside y; they belong to this task alone.
        unsafe { put(m, sums, self.y.as_mut_ptr().add(col * self.n_rows + self.first)) }
    }
}

/// Write the first rows of a panel's sums, `partial: [n, rows of a panel]`, to rows `first..n_rows` of y, `[n, n_rows]`, which belong
/// to this task alone.
pub(crate) fn copy_rest(partial: &[f32], y: &Disjoint<'_, f32>, n: usize, n_rows: usize, first: usize) {
    let panel_rows = partial.len() / n;
    for (col, sums) in partial.chunks_exact(panel_rows).enumerate() {
        // SAFETY: these rows belong to this task alone.
        let y = unsafe { y.range(col * n_rows + first, n_rows - first) };
        y.copy_from_slice(&sums[..n_rows - first]);
    }
}

/// # Safety
///
/// `2 * W` values can be written at `p`.
#[inline(always)]
pub(crate) unsafe fn put<M: Isa>(m: M, sums: [M::WF; 2], p: *mut f32) {
    // SAFETY: the caller's promise.
    unsafe {
        m.wide_store(sums[0], p);
        m.wide_store(sums[1], p.add(M::W));
    }
}

/// # Safety
///
/// `2 * W` values can be read at `p`.
#[inline(always)]
pub(crate) unsafe fn get<M: Isa>(m: M, p: *const f32) -> [M::WF; 2] {
    // SAFETY: the caller's promise.
    unsafe { [m.wide_load(p), m.wide_load(p.add(M::W))] }
}
