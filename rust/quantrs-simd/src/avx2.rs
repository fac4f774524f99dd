//! Eight lanes with AVX2.

use crate::Simd;
use core::arch::x86_64::*;

/// Proof that this CPU has AVX2 and F16C.
#[derive(Clone, Copy, Debug)]
pub struct Avx2(());

impl Avx2 {
    pub(crate) fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c");
        has.then_some(Avx2(()))
    }
}

/// One intrinsic, named by the trait's method.
macro_rules! intrinsics {
    ($($method:ident($($arg:ident: $t:ty),*) -> $r:ty = $body:expr;)*) => {$(
        #[inline(always)]
        fn $method(self, $($arg: $t),*) -> $r {
            // SAFETY: a value of Avx2 exists only where detection found the features that these intrinsics need; none touches memory.
            unsafe { $body }
        }
    )*};
}

impl Simd for Avx2 {
    const LANES: usize = 8;
    const TILE: usize = 8;
    type F = __m256;
    type I = __m256i;
    type M = __m256;

    #[inline(always)]
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
        #[target_feature(enable = "avx2,f16c")]
        fn with_features<R>(f: impl FnOnce() -> R) -> R {
            f()
        }
        // SAFETY: a value of Avx2 exists only where detection found these features.
        unsafe { with_features(f) }
    }

    #[inline(always)]
    fn load(self, x: &[f32]) -> __m256 {
        assert!(x.len() >= 8);
        // SAFETY: the assertion above; features as in `intrinsics`.
        unsafe { _mm256_loadu_ps(x.as_ptr()) }
    }
    #[inline(always)]
    fn iload(self, x: &[i32]) -> __m256i {
        assert!(x.len() >= 8);
        // SAFETY: the assertion above; features as in `intrinsics`.
        unsafe { _mm256_loadu_si256(x.as_ptr().cast()) }
    }
    #[inline(always)]
    fn store(self, v: __m256, out: &mut [f32]) {
        assert!(out.len() >= 8);
        // SAFETY: the assertion above; features as in `intrinsics`.
        unsafe { _mm256_storeu_ps(out.as_mut_ptr(), v) }
    }
    #[inline(always)]
    fn istore(self, v: __m256i, out: &mut [i32]) {
        assert!(out.len() >= 8);
        // SAFETY: the assertion above; features as in `intrinsics`.
        unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), v) }
    }

    #[inline(always)]
    fn reduce_min(self, a: __m256) -> f32 {
        // SAFETY: features as in `intrinsics`; no memory is touched.
        unsafe {
            let a = _mm_min_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_min_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_min_ss(a, _mm_movehdup_ps(a)))
        }
    }
    #[inline(always)]
    fn reduce_max(self, a: __m256) -> f32 {
        // SAFETY: features as in `intrinsics`; no memory is touched.
        unsafe {
            let a = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_max_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_max_ss(a, _mm_movehdup_ps(a)))
        }
    }
    #[inline(always)]
    fn store_bytes(self, a: __m256i, out: &mut [u8]) {
        assert!(out.len() >= 8);
        // SAFETY: the assertion above; features as in `intrinsics`.
        unsafe {
            // The low bytes of each 128-bit half to its first four bytes, then both next to each other.
            let low = _mm256_set1_epi32(0x0c08_0400);
            let a = _mm256_shuffle_epi8(a, low);
            let a = _mm_unpacklo_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256::<1>(a));
            _mm_storel_epi64(out.as_mut_ptr().cast(), a);
        }
    }
    #[inline(always)]
    fn load_u8(self, x: &[u8]) -> __m256i {
        assert!(x.len() >= 8);
        // SAFETY: the assertion above; features as in `intrinsics`.
        unsafe { _mm256_cvtepu8_epi32(_mm_loadl_epi64(x.as_ptr().cast())) }
    }
    #[inline(always)]
    fn load_i8(self, x: &[u8]) -> __m256i {
        assert!(x.len() >= 8);
        // SAFETY: the assertion above; features as in `intrinsics`.
        unsafe { _mm256_cvtepi8_epi32(_mm_loadl_epi64(x.as_ptr().cast())) }
    }
    #[inline(always)]
    fn load_f16(self, x: &[u8]) -> __m256 {
        assert!(x.len() >= 16);
        // SAFETY: the assertion above; features as in `intrinsics`.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(x.as_ptr().cast())) }
    }
    #[inline(always)]
    fn store_f16(self, a: __m256, out: &mut [u8]) {
        assert!(out.len() >= 16);
        // SAFETY: the assertion above; features as in `intrinsics`.
        unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(a)) }
    }
    #[inline(always)]
    fn load_tile<'a>(self, row: impl Fn(usize) -> &'a [f32], out: &mut [__m256]) {
        let mut r = [self.splat(0.0); 8];
        for (j, r) in r.iter_mut().enumerate() {
            *r = self.load(row(j));
        }
        // SAFETY: features as in `intrinsics`; no memory is touched.
        unsafe {
            for pair in r.chunks_exact_mut(2) {
                (pair[0], pair[1]) = (_mm256_unpacklo_ps(pair[0], pair[1]), _mm256_unpackhi_ps(pair[0], pair[1]));
            }
            // Elements i and i + 4 of rows 4h..4h + 4 are now in r[4h + i / 2 % 2] and r[4h + 2 + i / 2 % 2].
            let mut quads = [r[0]; 8];
            for h in 0..2 {
                for k in 0..2 {
                    let (a, b) = (_mm256_castps_pd(r[4 * h + k]), _mm256_castps_pd(r[4 * h + 2 + k]));
                    quads[4 * h + 2 * k] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, b));
                    quads[4 * h + 2 * k + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, b));
                }
            }
            let (low, high) = out[..8].split_at_mut(4);
            for i in 0..4 {
                low[i] = _mm256_permute2f128_ps::<0x20>(quads[i], quads[4 + i]);
                high[i] = _mm256_permute2f128_ps::<0x31>(quads[i], quads[4 + i]);
            }
        }
    }
    #[inline(always)]
    fn nearest_clamped_in_range(self, v: __m256, lo: i32, hi: i32) -> __m256 {
        // SAFETY: features as in `intrinsics`; no memory is touched.
        let rounded = unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(v) };
        self.min(self.max(rounded, self.splat(lo as f32)), self.splat(hi as f32))
    }
    #[inline(always)]
    fn lookup32(self, table: &[f32; 32], i: __m256i) -> __m256 {
        // SAFETY: the table has four times eight values; features as in `intrinsics`.
        unsafe {
            let part = |n: usize| _mm256_permutevar8x32_ps(_mm256_loadu_ps(table.as_ptr().add(8 * n)), i);
            // Bits 3 and 4 of the index, each moved to the sign bit.
            let bit3 = _mm256_castsi256_ps(_mm256_slli_epi32::<28>(i));
            let bit4 = _mm256_castsi256_ps(_mm256_slli_epi32::<27>(i));
            let (low, high) = (_mm256_blendv_ps(part(0), part(1), bit3), _mm256_blendv_ps(part(2), part(3), bit3));
            _mm256_blendv_ps(low, high, bit4)
        }
    }

    intrinsics! {
        splat(v: f32) -> __m256 = _mm256_set1_ps(v);
        add(a: __m256, b: __m256) -> __m256 = _mm256_add_ps(a, b);
        sub(a: __m256, b: __m256) -> __m256 = _mm256_sub_ps(a, b);
        mul(a: __m256, b: __m256) -> __m256 = _mm256_mul_ps(a, b);
        div(a: __m256, b: __m256) -> __m256 = _mm256_div_ps(a, b);
        sqrt(a: __m256) -> __m256 = _mm256_sqrt_ps(a);
        abs(a: __m256) -> __m256 = _mm256_andnot_ps(_mm256_set1_ps(-0.0), a);
        lt(a: __m256, b: __m256) -> __m256 = _mm256_cmp_ps::<_CMP_LT_OQ>(a, b);
        le(a: __m256, b: __m256) -> __m256 = _mm256_cmp_ps::<_CMP_LE_OQ>(a, b);
        eq(a: __m256, b: __m256) -> __m256 = _mm256_cmp_ps::<_CMP_EQ_OQ>(a, b);
        ne(a: __m256, b: __m256) -> __m256 = _mm256_cmp_ps::<_CMP_NEQ_UQ>(a, b);
        select(m: __m256, a: __m256, b: __m256) -> __m256 = _mm256_blendv_ps(b, a, m);
        isplat(v: i32) -> __m256i = _mm256_set1_epi32(v);
        iadd(a: __m256i, b: __m256i) -> __m256i = _mm256_add_epi32(a, b);
        isub(a: __m256i, b: __m256i) -> __m256i = _mm256_sub_epi32(a, b);
        iand(a: __m256i, b: __m256i) -> __m256i = _mm256_and_si256(a, b);
        ior(a: __m256i, b: __m256i) -> __m256i = _mm256_or_si256(a, b);
        imin(a: __m256i, b: __m256i) -> __m256i = _mm256_min_epi32(a, b);
        imax(a: __m256i, b: __m256i) -> __m256i = _mm256_max_epi32(a, b);
        ieq(a: __m256i, b: __m256i) -> __m256 = _mm256_castsi256_ps(_mm256_cmpeq_epi32(a, b));
        iselect(m: __m256, a: __m256i, b: __m256i) -> __m256i = _mm256_castps_si256(_mm256_blendv_ps(_mm256_castsi256_ps(b), _mm256_castsi256_ps(a), m));
        to_bits(a: __m256) -> __m256i = _mm256_castps_si256(a);
        from_bits(a: __m256i) -> __m256 = _mm256_castsi256_ps(a);
        to_f32(a: __m256i) -> __m256 = _mm256_cvtepi32_ps(a);
        trunc(a: __m256) -> __m256i = _mm256_cvttps_epi32(a);
        both(a: __m256, b: __m256) -> __m256 = _mm256_and_ps(a, b);
        either(a: __m256, b: __m256) -> __m256 = _mm256_or_ps(a, b);
        and_not(a: __m256, b: __m256) -> __m256 = _mm256_andnot_ps(b, a);
        any(m: __m256) -> bool = _mm256_movemask_ps(m) != 0;
        min(a: __m256, b: __m256) -> __m256 = _mm256_min_ps(a, b);
        max(a: __m256, b: __m256) -> __m256 = _mm256_max_ps(a, b);
        ishr(a: __m256i, n: u32) -> __m256i = _mm256_srl_epi32(a, _mm_cvtsi32_si128(n as i32));
        ishl(a: __m256i, n: u32) -> __m256i = _mm256_sll_epi32(a, _mm_cvtsi32_si128(n as i32));
        bitmask(m: __m256) -> u32 = _mm256_movemask_ps(m) as u32;
    }
}
