//! Rows of w side by side: plain arrays with a row in each lane, which compilers turn into vectors.
//!
//! Everything here and in the grid is `#[inline(always)]`, so that it is compiled for the level of the function that it is called
//! in. All operations are single IEEE operations: the same bits at every level and for any number of lanes.

/// Rows that are worked on at a time.
pub const ROWS: usize = 16;

/// Numbers beyond this round to themselves or are far outside every grid.
const LIMIT: f32 = 2_097_152.0;
/// 1.5 * 2^23: adding it leaves no bits for a fraction.
pub(crate) const MAGIC: f32 = 12_582_912.0;

/// The smaller, as one instruction.
#[inline(always)]
pub(crate) fn least(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

/// The larger, as one instruction.
#[inline(always)]
pub(crate) fn largest(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// Between `lo` and `hi`.
#[inline(always)]
pub(crate) fn limited(v: f32, lo: f32, hi: f32) -> f32 {
    least(largest(v, lo), hi)
}

/// To the nearest integer, half to even; what is beyond 2^21 becomes 2^21.
#[inline(always)]
pub(crate) fn round_half_even(v: f32) -> f32 {
    (limited(v, -LIMIT, LIMIT) + MAGIC) - MAGIC
}

/// Copy columns `first..` of rows of `in_features` into columns of R rows; rows that do not exist are zero.
#[inline(always)]
pub(crate) fn transpose<const R: usize>(rows: &[f32], in_features: usize, first: usize, columns: &mut [[f32; R]]) {
    let n = columns.len();
    for (r, row) in rows.chunks_exact(in_features).take(R).enumerate() {
        for (column, v) in columns.iter_mut().zip(&row[first..first + n]) {
            column[r] = *v;
        }
    }
    for r in rows.len() / in_features..R {
        for column in columns.iter_mut() {
            column[r] = 0.0;
        }
    }
}

/// The integer 0..=255 in a float: the low bits of the float that is 1.5 * 2^23 larger. A cast would test for NaN in every lane.
#[inline(always)]
pub(crate) fn byte(code: f32) -> u8 {
    debug_assert!((0.0..=255.0).contains(&code) && code.fract() == 0.0);
    (code + MAGIC).to_bits().to_le_bytes()[0]
}
