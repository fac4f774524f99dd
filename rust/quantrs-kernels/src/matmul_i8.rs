//! int8 x int8 -> int32.

use crate::{Disjoint, Pool};
use quantrs_simd::Level;

/// `out[i, j] = sum over l of a[i, l] * b[j, l]`, wrapping like i32; a: `[m, k]`, b: `[n, k]`, out: `[m, n]`, all row-major.
///
/// Exact for k <= 131071. Panics when the shapes do not belong together.
pub fn matmul_i8(pool: &Pool, level: Level, a: &[i8], b: &[i8], k: usize, out: &mut [i32]) {
    if k == 0 {
        out.fill(0);
        return;
    }
    let (m, n) = (a.len() / k, b.len() / k);
    assert!(a.len() == m * k && b.len() == n * k && out.len() == m * n, "shapes [{m}, {k}], [{n}, {k}]");
    let out = Disjoint::new(out);
    pool.run(m, |i| {
        let a = &a[i * k..][..k];
        // SAFETY: row `i` belongs to this task alone.
        let out = unsafe { out.range(i * n, n) };
        level.run(
            #[inline(always)]
            || {
                for (b, out) in b.chunks_exact(k).zip(out) {
                    *out = a.iter().zip(b).fold(0i32, |sum, (a, b)| sum.wrapping_add(i32::from(*a) * i32::from(*b)));
                }
            },
        );
    });
}
