//! Sixteen lanes with AVX-512.

use crate::Simd;
use core::arch::x86_64::*;

/// Proof that this CPU has AVX-512 F, BW, DQ and VL.
#[derive(Clone, Copy, Debug)]
pub struct Avx512(());

impl Avx512 {
    pub(crate) fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("f16c")
            && is_x86_feature_detected!("avx2");
        has.then_some(Avx512(()))
    }
}

/// One intrinsic, named by the trait's method.
macro_rules! intrinsics {
    ($($method:ident($($arg:ident: $t:ty),*) -> $r:ty = $body:expr;)*) => {$(
        #[inline(always)]
        fn $method(self, $($arg: $t),*) -> $r {
            // SAFETY: a value of Avx512 exists only where detection found the features that these intrinsics need; none touches memory.
            unsafe { $body }
        }
    )*};
}

impl Simd for Avx512 {
    const LANES: usize = 16;
    const TILE: usize = 16;
    type F = __m512;
    type I = __m512i;
    type M = __mmask16;

    #[inline(always)]
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,f16c,avx2")]
        fn with_features<R>(f: impl FnOnce() -> R) -> R {
            f()
        }
        // SAFETY: a value of Avx512 exists only where detection found these features.
        unsafe { with_features(f) }
    }

    #[inline(always)]
    fn load(self, x: &[f32]) -> __m512 {
        assert!(x.len() >= 16);
        // SAFETY: the assertion above; features as in `intrinsics`.
        unsafe { _mm512_loadu_ps(x.as_ptr()) }
    }
    #[inline(always)]
    fn iload(self, x: &[i32]) -> __m512i {
        assert!(x.len() >= 16);
        // SAFETY: the assertion above; features as in `intrinsics`.
        unsafe { _mm512_loadu_si512(x.as_ptr().cast()) }
    }
    #[inline(always)]
    fn store(self, v: __m512, out: &mut [f32]) {
        assert!(out.len() >= 16);
        // SAFETY: the assertion above; features as in `intrinsics`.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), v) }
    }
    #[inline(always)]
    fn istore(self, v: __m512i, out: &mut [i32]) {
        assert!(out.len() >= 16);
        // SAFETY: the assertion above; features as in `intrinsics`.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), v) }
    }

    #[inline(always)]
    fn bitmask(self, m: __mmask16) -> u32 {
        u32::from(m)
    }
    #[inline(always)]
    fn store_bytes(self, a: __m512i, out: &mut [u8]) {
        assert!(out.len() >= 16);
        // SAFETY: the assertion above; features as in `intrinsics`.
        unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(a)) }
    }
    #[inline(always)]
    fn load_u8(self, x: &[u8]) -> __m512i {
        assert!(x.len() >= 16);
        // SAFETY: the assertion above; features as in `intrinsics`.
        unsafe { _mm512_cvtepu8_epi32(_mm_loadu_si128(x.as_ptr().cast())) }
    }
    #[inline(always)]
    fn load_i8(self, x: &[u8]) -> __m512i {
        assert!(x.len() >= 16);
        // SAFETY: the assertion above; features as in `intrinsics`.
        unsafe { _mm512_cvtepi8_epi32(_mm_loadu_si128(x.as_ptr().cast())) }
    }
    #[inline(always)]
    fn load_f16(self, x: &[u8]) -> __m512 {
        assert!(x.len() >= 32);
        // SAFETY: the assertion above; features as in `intrinsics`.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(x.as_ptr().cast())) }
    }
    #[inline(always)]
    fn store_f16(self, a: __m512, out: &mut [u8]) {
        assert!(out.len() >= 32);
        // SAFETY: the assertion above; features as in `intrinsics`.
        unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(a)) }
    }
    #[inline(always)]
    fn load_tile<'a>(self, row: impl Fn(usize) -> &'a [f32], out: &mut [__m512]) {
        let mut r = [self.splat(0.0); 16];
        for (j, r) in r.iter_mut().enumerate() {
            *r = self.load(row(j));
        }
        // SAFETY: features as in `intrinsics`; no memory is touched.
        unsafe {
            for pair in r.chunks_exact_mut(2) {
                (pair[0], pair[1]) = (_mm512_unpacklo_ps(pair[0], pair[1]), _mm512_unpackhi_ps(pair[0], pair[1]));
            }
            // quads[4h + i]: elements i, i + 4, i + 8, i + 12 of rows 4h..4h + 4.
            let mut quads = [r[0]; 16];
            for h in 0..4 {
                for k in 0..2 {
                    let (a, b) = (_mm512_castps_pd(r[4 * h + k]), _mm512_castps_pd(r[4 * h + 2 + k]));
                    quads[4 * h + 2 * k] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
                    quads[4 * h + 2 * k + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
                }
            }
            let out = &mut out[..16];
            for i in 0..4 {
                // Quarters 0 and 2, then 1 and 3, of rows 0..8 and of rows 8..16.
                let even_low = _mm512_shuffle_f32x4::<0x88>(quads[i], quads[4 + i]);
                let odd_low = _mm512_shuffle_f32x4::<0xdd>(quads[i], quads[4 + i]);
                let even_high = _mm512_shuffle_f32x4::<0x88>(quads[8 + i], quads[12 + i]);
                let odd_high = _mm512_shuffle_f32x4::<0xdd>(quads[8 + i], quads[12 + i]);
                out[i] = _mm512_shuffle_f32x4::<0x88>(even_low, even_high);
                out[i + 4] = _mm512_shuffle_f32x4::<0x88>(odd_low, odd_high);
                out[i + 8] = _mm512_shuffle_f32x4::<0xdd>(even_low, even_high);
                out[i + 12] = _mm512_shuffle_f32x4::<0xdd>(odd_low, odd_high);
            }
        }
    }
    #[inline(always)]
    fn nearest_clamped_in_range(self, v: __m512, lo: i32, hi: i32) -> __m512 {
        // SAFETY: features as in `intrinsics`; no memory is touched.
        let rounded = unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(v) };
        self.min(self.max(rounded, self.splat(lo as f32)), self.splat(hi as f32))
    }
    #[inline(always)]
    fn lookup32(self, table: &[f32; 32], i: __m512i) -> __m512 {
        // SAFETY: the table has twice sixteen values; features as in `intrinsics`.
        unsafe {
            let (low, high) = (_mm512_loadu_ps(table.as_ptr()), _mm512_loadu_ps(table.as_ptr().add(16)));
            _mm512_permutex2var_ps(low, i, high)
        }
    }

    intrinsics! {
        splat(v: f32) -> __m512 = _mm512_set1_ps(v);
        add(a: __m512, b: __m512) -> __m512 = _mm512_add_ps(a, b);
        sub(a: __m512, b: __m512) -> __m512 = _mm512_sub_ps(a, b);
        mul(a: __m512, b: __m512) -> __m512 = _mm512_mul_ps(a, b);
        div(a: __m512, b: __m512) -> __m512 = _mm512_div_ps(a, b);
        sqrt(a: __m512) -> __m512 = _mm512_sqrt_ps(a);
        abs(a: __m512) -> __m512 = _mm512_abs_ps(a);
        lt(a: __m512, b: __m512) -> __mmask16 = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b);
        le(a: __m512, b: __m512) -> __mmask16 = _mm512_cmp_ps_mask::<_CMP_LE_OQ>(a, b);
        eq(a: __m512, b: __m512) -> __mmask16 = _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(a, b);
        ne(a: __m512, b: __m512) -> __mmask16 = _mm512_cmp_ps_mask::<_CMP_NEQ_UQ>(a, b);
        select(m: __mmask16, a: __m512, b: __m512) -> __m512 = _mm512_mask_blend_ps(m, b, a);
        isplat(v: i32) -> __m512i = _mm512_set1_epi32(v);
        iadd(a: __m512i, b: __m512i) -> __m512i = _mm512_add_epi32(a, b);
        isub(a: __m512i, b: __m512i) -> __m512i = _mm512_sub_epi32(a, b);
        iand(a: __m512i, b: __m512i) -> __m512i = _mm512_and_si512(a, b);
        ior(a: __m512i, b: __m512i) -> __m512i = _mm512_or_si512(a, b);
        imin(a: __m512i, b: __m512i) -> __m512i = _mm512_min_epi32(a, b);
        imax(a: __m512i, b: __m512i) -> __m512i = _mm512_max_epi32(a, b);
        ieq(a: __m512i, b: __m512i) -> __mmask16 = _mm512_cmpeq_epi32_mask(a, b);
        iselect(m: __mmask16, a: __m512i, b: __m512i) -> __m512i = _mm512_mask_blend_epi32(m, b, a);
        to_bits(a: __m512) -> __m512i = _mm512_castps_si512(a);
        from_bits(a: __m512i) -> __m512 = _mm512_castsi512_ps(a);
        to_f32(a: __m512i) -> __m512 = _mm512_cvtepi32_ps(a);
        trunc(a: __m512) -> __m512i = _mm512_cvttps_epi32(a);
        min(a: __m512, b: __m512) -> __m512 = _mm512_min_ps(a, b);
        max(a: __m512, b: __m512) -> __m512 = _mm512_max_ps(a, b);
        reduce_min(a: __m512) -> f32 = _mm512_reduce_min_ps(a);
        reduce_max(a: __m512) -> f32 = _mm512_reduce_max_ps(a);
        ishr(a: __m512i, n: u32) -> __m512i = _mm512_srl_epi32(a, _mm_cvtsi32_si128(n as i32));
        ishl(a: __m512i, n: u32) -> __m512i = _mm512_sll_epi32(a, _mm_cvtsi32_si128(n as i32));
    }
    #[inline(always)]
    fn both(self, a: __mmask16, b: __mmask16) -> __mmask16 {
        a & b
    }
    #[inline(always)]
    fn either(self, a: __mmask16, b: __mmask16) -> __mmask16 {
        a | b
    }
    #[inline(always)]
    fn and_not(self, a: __mmask16, b: __mmask16) -> __mmask16 {
        a & !b
    }
    #[inline(always)]
    fn any(self, m: __mmask16) -> bool {
        m != 0
    }
}
