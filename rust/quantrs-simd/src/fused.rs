//! Multiply and add in one operation, for products of matrices; quantizers must not fuse.

use crate::Lanes4;
#[cfg(target_arch = "x86_64")]
use crate::{Avx2Fma, Avx512, Simd};
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::*;

/// Vectors of [`Fused::LANES`] f32 with a multiply-add. A value of the implementing type proves that the CPU has it.
pub trait Fused: Copy + Send + Sync + 'static {
    /// Lanes of a vector: 4, 8 or 16.
    const LANES: usize;
    /// `LANES` f32.
    type V: Copy;

    /// Call `f` compiled with these instructions.
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R;
    /// All lanes `v`.
    fn splat(self, v: f32) -> Self::V;
    /// The first `LANES` values of `x`. Panics when there are fewer.
    fn load(self, x: &[f32]) -> Self::V;
    /// Write to the first `LANES` places of `out`. Panics when there are fewer.
    fn store(self, v: Self::V, out: &mut [f32]);
    /// a * b + c; rounded once where the CPU has that as one instruction, else twice.
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
}

impl Fused for Lanes4 {
    const LANES: usize = 4;
    type V = [f32; 4];

    #[inline(always)]
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
        f()
    }
    #[inline(always)]
    fn splat(self, v: f32) -> [f32; 4] {
        [v; 4]
    }
    #[inline(always)]
    fn load(self, x: &[f32]) -> [f32; 4] {
        [x[0], x[1], x[2], x[3]]
    }
    #[inline(always)]
    fn store(self, v: [f32; 4], out: &mut [f32]) {
        out[..4].copy_from_slice(&v);
    }
    #[inline(always)]
    fn mul_add(self, a: [f32; 4], b: [f32; 4], c: [f32; 4]) -> [f32; 4] {
        [a[0] * b[0] + c[0], a[1] * b[1] + c[1], a[2] * b[2] + c[2], a[3] * b[3] + c[3]]
    }
}

/// The operations of an x86 token.
#[cfg(target_arch = "x86_64")]
macro_rules! fused {
    ($token:ty, $lanes:literal, $vector:ty, $splat:ident, $load:ident, $store:ident, $mul_add:ident) => {
        const LANES: usize = $lanes;
        type V = $vector;

        #[inline(always)]
        fn splat(self, v: f32) -> $vector {
            // SAFETY: a value of the token exists only where detection found the features; no memory is touched.
            unsafe { $splat(v) }
        }
        #[inline(always)]
        fn load(self, x: &[f32]) -> $vector {
            assert!(x.len() >= $lanes);
            // SAFETY: the assertion; features as in `splat`.
            unsafe { $load(x.as_ptr()) }
        }
        #[inline(always)]
        fn store(self, v: $vector, out: &mut [f32]) {
            assert!(out.len() >= $lanes);
            // SAFETY: the assertion; features as in `splat`.
            unsafe { $store(out.as_mut_ptr(), v) }
        }
        #[inline(always)]
        fn mul_add(self, a: $vector, b: $vector, c: $vector) -> $vector {
            // SAFETY: as in `splat`.
            unsafe { $mul_add(a, b, c) }
        }
    };
}

#[cfg(target_arch = "x86_64")]
impl Fused for Avx2Fma {
    fused!(Avx2Fma, 8, __m256, _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_fmadd_ps);

    #[inline(always)]
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
        self.vectorize(f)
    }
}

#[cfg(target_arch = "x86_64")]
impl Fused for Avx512 {
    fused!(Avx512, 16, __m512, _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_fmadd_ps);

    #[inline(always)]
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
        Simd::vectorize(self, f)
    }
}

/// As [`dispatch!`](crate::dispatch) for [`Fused`] algorithms: `dispatch_fused!(level, s => generic(s, ..))`.
///
/// The plain level takes the four lanes of every CPU, and so does an AVX2 without FMA.
#[macro_export]
macro_rules! dispatch_fused {
    ($level:expr, $s:ident => $body:expr) => {{
        #[allow(unused_variables, reason = "the token of a level that asks for another one")]
        match $level {
            $crate::Level::Scalar => {
                let $s = $crate::Lanes4::baseline();
                $body
            }
            $crate::Level::Baseline($s) => $body,
            #[cfg(target_arch = "x86_64")]
            $crate::Level::Avx2(s) => match s.fma() {
                Some($s) => $crate::Fused::vectorize(
                    $s,
                    #[inline(always)]
                    || $body,
                ),
                None => {
                    let $s = $crate::Lanes4::baseline();
                    $body
                }
            },
            #[cfg(target_arch = "x86_64")]
            $crate::Level::Avx512($s) => $crate::Fused::vectorize(
                $s,
                #[inline(always)]
                || $body,
            ),
        }
    }};
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Level;

    fn sums<S: Fused>(s: S, x: &[f32], out: &mut [f32]) {
        for (x, out) in x.chunks_exact(S::LANES).zip(out.chunks_exact_mut(S::LANES)) {
            let v = s.load(x);
            s.store(s.mul_add(v, v, s.splat(0.5)), out);
        }
    }

    #[test]
    fn every_level_multiplies_and_adds() {
        let x: Vec<f32> = (0..32).map(|i| i as f32 - 7.0).collect();
        for level in Level::all() {
            let mut out = vec![0.0; 32];
            dispatch_fused!(level, s => sums(s, &x, &mut out));
            assert!(x.iter().zip(&out).all(|(x, y)| *y == x * x + 0.5), "{}", level.name());
        }
    }
}
