//! The innermost loop of the Hessian and of GPTQ: a tile of a product of two packed matrices, held in registers.

use quantrs_simd::Fused;

/// Values in a row of a packed panel: a whole number of rows of a tile, whatever its vectors.
pub(crate) const PANEL: usize = 48;

/// `sums[j][i] = sum over k of b[k * stride + j] * a[k * PANEL + i]` for `depth` k, in order.
///
/// M vectors by N columns: with sixteen lanes 3 by 8 fills 24 of 32 registers, with fewer 2 by 4 keeps eight sums of 16 registers
/// under way, as many as two units with a latency of four cycles need.
#[inline(always)]
pub(crate) fn tile<S: Fused, const M: usize, const N: usize>(
    s: S,
    depth: usize,
    a: &[f32],
    b: &[f32],
    stride: usize,
) -> [[S::V; M]; N] {
    let mut sums = [[s.splat(0.0); M]; N];
    for k in 0..depth {
        let (from, b) = (&a[k * PANEL..][..M * S::LANES], &b[k * stride..][..N]);
        let mut a = [s.splat(0.0); M];
        for i in 0..M {
            a[i] = s.load(&from[i * S::LANES..]);
        }
        for j in 0..N {
            let b = s.splat(b[j]);
            for i in 0..M {
                sums[j][i] = s.mul_add(a[i], b, sums[j][i]);
            }
        }
    }
    sums
}
