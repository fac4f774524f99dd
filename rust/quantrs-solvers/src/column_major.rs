//! Products of column-major matrices.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use quantrs_simd::Level;

/// `out += factor * a b` on the calling thread: out `[height, n_columns]`, a `[height, depth]`, b `[depth, n_columns]`, all column-major;
/// columns of b are `b_stride` apart.
#[allow(clippy::too_many_arguments, reason = "three matrices and their sizes")]
pub(crate) fn add_product(
    out: &mut [f32],
    height: usize,
    a: &[f32],
    b: &[f32],
    b_stride: usize,
    depth: usize,
    n_columns: usize,
    factor: f32,
) {
    if depth == 0 {
        return;
    }
    let a = MatRef::from_column_major_slice(&a[..height * depth], height, depth);
    let b = MatRef::from_column_major_slice_with_stride(
        &b[..b_stride * (n_columns - 1) + depth],
        depth,
        n_columns,
        b_stride,
    );
    let out = MatMut::from_column_major_slice_mut(out, height, n_columns);
    matmul(out, Accum::Add, a, b, factor, Par::Seq);
}

/// `sums[k] += sum over columns and rows r of a[k * rows + r] * b[k * rows + r]`; `rows` is a multiple of 16.
///
/// Products of a column are summed in f32 in sixteen lanes, everything else in f64.
pub(crate) fn column_dots(level: Level, a: &[f32], b: &[f32], height: usize, rows: usize, sums: &mut [f64]) {
    level.run(
        #[inline(always)]
        || add_column_dots(a, b, height, rows, sums),
    );
}

#[inline(always)]
fn add_column_dots(a: &[f32], b: &[f32], height: usize, rows: usize, sums: &mut [f64]) {
    let mut lanes = vec![[0.0f64; 16]; sums.len()];
    for (a, b) in a.chunks_exact(height).zip(b.chunks_exact(height)) {
        for ((a, b), lanes) in a.chunks_exact(rows).zip(b.chunks_exact(rows)).zip(&mut lanes) {
            let mut column = [0.0f32; 16];
            for (a, b) in a.as_chunks::<16>().0.iter().zip(b.as_chunks::<16>().0) {
                for i in 0..16 {
                    column[i] += a[i] * b[i];
                }
            }
            for (lane, sum) in lanes.iter_mut().zip(column) {
                *lane += f64::from(sum);
            }
        }
    }
    for (sum, lanes) in sums.iter_mut().zip(lanes) {
        *sum += lanes.iter().sum::<f64>();
    }
}
