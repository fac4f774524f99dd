//! The innermost loop of the Hessian and of GPTQ: a tile of a product of two packed matrices, held in registers.

use quantrs_simd::Fused;

/// Vectors in a row of a tile.
pub(crate) const VECTORS: usize = 3;
/// Values in a row of a packed panel: one, two or four rows of a tile.
pub(crate) const PANEL: usize = 48;

/// Values in a row of a tile.
#[inline(always)]
pub(crate) const fn width<S: Fused>() -> usize {
    VECTORS * S::LANES
}

/// `sums[j][i] = sum over k of b[k * stride + j] * a[k * PANEL + i]` for `depth` k, in order.
///
/// With sixteen lanes N = 8 fills 24 of 32 registers, with fewer N = 4 fills 12 of 16: per k three loads and N broadcasts for
/// 3 N multiply-adds.
#[inline(always)]
pub(crate) fn tile<S: Fused, const N: usize>(
    s: S,
    depth: usize,
    a: &[f32],
    b: &[f32],
    stride: usize,
) -> [[S::V; VECTORS]; N] {
    let mut sums = [[s.splat(0.0); VECTORS]; N];
    for k in 0..depth {
        let (a, b) = (&a[k * PANEL..][..width::<S>()], &b[k * stride..][..N]);
        let a = [s.load(a), s.load(&a[S::LANES..]), s.load(&a[2 * S::LANES..])];
        for j in 0..N {
            let b = s.splat(b[j]);
            for i in 0..VECTORS {
                sums[j][i] = s.mul_add(a[i], b, sums[j][i]);
            }
        }
    }
    sums
}
