//! The operations of products with AVX2, AVX-VNNI and AVX-512 VNNI.
//!
//! The three share the narrow operations and differ in the dot products of bytes and in the wide vectors.

use crate::isa::{Isa, STRIDE};
use core::arch::x86_64::*;
use quantrs_simd::{Avx2Fma, Avx2Vnni, Avx512Vnni};

/// One intrinsic expression, named by the trait's method.
macro_rules! intrinsics {
    ($($method:ident($($arg:ident: $t:ty),*) -> $r:ty = $body:expr;)*) => {$(
        #[inline(always)]
        fn $method(self, $($arg: $t),*) -> $r {
            // SAFETY: a value of the token exists only where detection found the features; no memory outside the arguments is touched.
            unsafe { $body }
        }
    )*};
}

/// A load or store through a pointer.
macro_rules! through_pointers {
    ($($method:ident($($arg:ident: $t:ty),*) $(-> $r:ty)? = $body:expr;)*) => {$(
        #[inline(always)]
        unsafe fn $method(self, $($arg: $t),*) $(-> $r)? {
            // SAFETY: the caller's promise; features as in `intrinsics`.
            unsafe { $body }
        }
    )*};
}

/// Bytes of a slice as a vector of 16, 8 or 4.
#[inline(always)]
fn first<const N: usize>(b: &[u8]) -> [u8; N] {
    b[..N].try_into().expect("as many bytes")
}

/// Each of the 32 bits in its byte.
const BIT_OF_BYTE: [u8; 32] = {
    let mut bits = [0; 32];
    let mut i = 0;
    while i < 32 {
        bits[i] = 1 << (i % 8);
        i += 1;
    }
    bits
};
/// Which byte of a word holds the bit.
const BYTE_OF_BIT: [u8; 32] = {
    let mut bytes = [0; 32];
    let mut i = 0;
    while i < 32 {
        bytes[i] = (i / 8) as u8;
        i += 1;
    }
    bytes
};

/// Which scale belongs to each of 16 lanes of four bytes: one for 32 bytes, then one for 16; per 64 bytes.
const SCALE_OF_LANE: [[[i32; 16]; 4]; 2] = {
    let mut scales = [[[0; 16]; 4]; 2];
    let mut i = 0;
    while i < 4 {
        let mut lane = 0;
        while lane < 16 {
            scales[0][i][lane] = (2 * i + lane / 8) as i32;
            scales[1][i][lane] = (4 * i + lane / 4) as i32;
            lane += 1;
        }
        i += 1;
    }
    scales
};

/// Four products per lane without VNNI. A pair of products with u <= 127 and |x| <= 127 is at most 2 * 127 * 127 < 2^15, so the
/// sum in 16 bits does not saturate. Larger u are split into the low seven bits and the top one: 2 * 127 * 128 and
/// 2 * 128 * 127 are below 2^15 too, and -2 * 128 * 128 is just -2^15.
#[inline]
#[target_feature(enable = "avx2")]
fn dot_avx2(byte: bool, acc: __m256i, u: __m256i, x: __m256i) -> __m256i {
    let ones = _mm256_set1_epi16(1);
    if byte {
        let low = _mm256_maddubs_epi16(_mm256_and_si256(u, _mm256_set1_epi8(127)), x);
        let high = _mm256_maddubs_epi16(_mm256_and_si256(u, _mm256_set1_epi8(-128)), x);
        let sum = _mm256_add_epi32(_mm256_madd_epi16(low, ones), _mm256_madd_epi16(high, ones));
        _mm256_add_epi32(acc, sum)
    } else {
        _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(u, x), ones))
    }
}

/// Eight f16 at multiples of `stride` bytes. Panics when there are fewer.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn gather_8(b: &[u8], stride: usize) -> __m256 {
    let at = |i: usize| i16::from_le_bytes(first::<2>(&b[i * stride..]));
    _mm256_cvtph_ps(_mm_setr_epi16(at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7)))
}

#[inline]
#[target_feature(enable = "avx2")]
fn transpose_8x8(r: [__m256i; 8]) -> [__m256i; 8] {
    let pair = |a, b| (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
    let ((a0, a1), (a2, a3)) = (pair(r[0], r[1]), pair(r[2], r[3]));
    let ((a4, a5), (a6, a7)) = (pair(r[4], r[5]), pair(r[6], r[7]));
    let pair = |a, b| (_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
    let ((b0, b1), (b2, b3)) = (pair(a0, a2), pair(a1, a3));
    let ((b4, b5), (b6, b7)) = (pair(a4, a6), pair(a5, a7));
    let low = |a, b| _mm256_permute2x128_si256::<0x20>(a, b);
    let high = |a, b| _mm256_permute2x128_si256::<0x31>(a, b);
    [low(b0, b4), low(b1, b5), low(b2, b6), low(b3, b7), high(b0, b4), high(b1, b5), high(b2, b6), high(b3, b7)]
}

/// The operations on narrow vectors, the same for all tokens.
macro_rules! narrow {
    () => {
        type B = __m256i;
        type I = __m256i;
        type F = __m256;

        #[inline(always)]
        fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
            self.vectorize(f)
        }

        #[inline(always)]
        fn load_bytes(self, b: &[u8]) -> __m256i {
            assert!(b.len() >= 32);
            // SAFETY: the assertion; features as in `intrinsics`.
            unsafe { _mm256_loadu_si256(b.as_ptr().cast()) }
        }
        #[inline(always)]
        fn store_bytes(self, a: __m256i, out: &mut [u8]) {
            assert!(out.len() >= 32);
            // SAFETY: the assertion; features as in `intrinsics`.
            unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), a) }
        }
        #[inline(always)]
        fn largest(self, x: &[f32]) -> f32 {
            assert!(!x.is_empty() && x.len().is_multiple_of(32));
            // SAFETY: the assertion; features as in `intrinsics`.
            unsafe {
                let magnitude = _mm256_set1_epi32(i32::MAX);
                let (mut even, mut odd) = (_mm256_setzero_si256(), _mm256_setzero_si256());
                for p in x.as_chunks::<16>().0 {
                    let p = p.as_ptr();
                    let (a, b) = (_mm256_loadu_si256(p.cast()), _mm256_loadu_si256(p.add(8).cast()));
                    even = _mm256_max_epu32(even, _mm256_and_si256(a, magnitude));
                    odd = _mm256_max_epu32(odd, _mm256_and_si256(b, magnitude));
                }
                let largest = _mm256_max_epu32(even, odd);
                let largest = _mm_max_epu32(_mm256_castsi256_si128(largest), _mm256_extracti128_si256::<1>(largest));
                let largest = _mm_max_epu32(largest, _mm_shuffle_epi32::<0b01_00_11_10>(largest));
                let largest = _mm_max_epu32(largest, _mm_shuffle_epi32::<0b10_11_00_01>(largest));
                _mm_cvtss_f32(_mm_castsi128_ps(largest))
            }
        }
        #[inline(always)]
        fn quantize(self, x: &[f32], inverse: f32, codes: &mut [i8]) -> [i32; 2] {
            assert!(x.len() >= 32 && codes.len() >= 32);
            // SAFETY: the assertion; features as in `intrinsics`.
            unsafe {
                // Spelled out: the closure of a `map` is compiled without these instructions unless it happens to be inlined.
                let p = x.as_ptr();
                let (a, b) = (_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8)));
                let (c, d) = (_mm256_loadu_ps(p.add(16)), _mm256_loadu_ps(p.add(24)));
                // Values that are not finite times zero would not be zero.
                let kept = _mm256_castsi256_ps(_mm256_set1_epi32(if inverse == 0.0 { 0 } else { -1 }));
                let inverse = _mm256_set1_ps(inverse);
                let a = _mm256_cvtps_epi32(_mm256_and_ps(_mm256_mul_ps(a, inverse), kept));
                let b = _mm256_cvtps_epi32(_mm256_and_ps(_mm256_mul_ps(b, inverse), kept));
                let c = _mm256_cvtps_epi32(_mm256_and_ps(_mm256_mul_ps(c, inverse), kept));
                let d = _mm256_cvtps_epi32(_mm256_and_ps(_mm256_mul_ps(d, inverse), kept));
                // Packing works on halves of the vectors; the permutation puts groups of four back in order.
                let q = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
                let q = _mm256_permutevar8x32_epi32(q, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
                _mm256_storeu_si256(codes.as_mut_ptr().cast(), q);
                let sums = _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(1), q), _mm256_set1_epi16(1));
                let sums = _mm256_add_epi32(sums, _mm256_shuffle_epi32::<0b01_00_11_10>(sums));
                let sums = _mm256_add_epi32(sums, _mm256_shuffle_epi32::<0b10_11_00_01>(sums));
                [_mm256_extract_epi32::<0>(sums), _mm256_extract_epi32::<4>(sums)]
            }
        }
        #[inline(always)]
        fn load(self, x: &[f32]) -> __m256 {
            assert!(x.len() >= 8);
            // SAFETY: the assertion; features as in `intrinsics`.
            unsafe { _mm256_loadu_ps(x.as_ptr()) }
        }
        #[inline(always)]
        fn store(self, a: __m256, out: &mut [f32]) {
            assert!(out.len() >= 8);
            // SAFETY: the assertion; features as in `intrinsics`.
            unsafe { _mm256_storeu_ps(out.as_mut_ptr(), a) }
        }

        intrinsics! {
            nibbles(b: &[u8]) -> __m256i = {
                let low = _mm_loadu_si128(first::<16>(b).as_ptr().cast());
                let both = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(low), _mm_srli_epi16::<4>(low));
                _mm256_and_si256(both, _mm256_set1_epi8(15))
            };
            nibbles_by_8(b: &[u8]) -> __m256i = {
                let low = _mm_loadu_si128(first::<16>(b).as_ptr().cast());
                let high = _mm_srli_epi16::<4>(low);
                let both = _mm256_castsi128_si256(_mm_unpacklo_epi64(low, high));
                let both = _mm256_inserti128_si256::<1>(both, _mm_unpackhi_epi64(low, high));
                _mm256_and_si256(both, _mm256_set1_epi8(15))
            };
            crumbs(b: &[u8]) -> __m256i = {
                let b = _mm256_cvtepu8_epi32(_mm_loadl_epi64(first::<8>(b).as_ptr().cast()));
                let b = _mm256_or_si256(b, _mm256_slli_epi32::<6>(b));
                _mm256_and_si256(_mm256_or_si256(b, _mm256_slli_epi32::<12>(b)), _mm256_set1_epi8(3))
            };
            bits(word: u32) -> __m256i = {
                let bytes = _mm256_loadu_si256(BYTE_OF_BIT.as_ptr().cast());
                let bit = _mm256_loadu_si256(BIT_OF_BYTE.as_ptr().cast());
                let word = _mm256_shuffle_epi8(_mm256_set1_epi32(word.cast_signed()), bytes);
                _mm256_cmpeq_epi8(_mm256_and_si256(word, bit), bit)
            };
            splat_byte(v: u8) -> __m256i = _mm256_set1_epi8(v.cast_signed());
            and(a: __m256i, b: __m256i) -> __m256i = _mm256_and_si256(a, b);
            or(a: __m256i, b: __m256i) -> __m256i = _mm256_or_si256(a, b);
            xor(a: __m256i, b: __m256i) -> __m256i = _mm256_xor_si256(a, b);
            add_bytes(a: __m256i, b: __m256i) -> __m256i = _mm256_add_epi8(a, b);
            shr_and(a: __m256i, n: usize, mask: u8) -> __m256i = {
                let shifted = _mm256_srl_epi16(a, _mm_cvtsi32_si128(n as i32));
                _mm256_and_si256(shifted, _mm256_set1_epi8(mask.cast_signed()))
            };
            shl_and(a: __m256i, n: usize, mask: u8) -> __m256i = {
                let shifted = _mm256_sll_epi16(a, _mm_cvtsi32_si128(n as i32));
                _mm256_and_si256(shifted, _mm256_set1_epi8(mask.cast_signed()))
            };
            lookup(table: &[u8; 16], i: __m256i) -> __m256i = {
                let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()));
                _mm256_shuffle_epi8(table, i)
            };
            transpose(rows: [__m256i; 8]) -> [__m256i; 8] = transpose_8x8(rows);

            f16(b: &[u8]) -> f32 = {
                let bits = i32::from(u16::from_le_bytes(first::<2>(b)));
                _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(bits)))
            };
            load_f16(b: &[u8]) -> __m256 = _mm256_cvtph_ps(_mm_loadu_si128(first::<16>(b).as_ptr().cast()));
            load_bf16(b: &[u8]) -> __m256 = {
                let words = _mm256_cvtepu16_epi32(_mm_loadu_si128(first::<16>(b).as_ptr().cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(words))
            };
            load_f32(b: &[u8]) -> __m256 = _mm256_castsi256_ps(_mm256_loadu_si256(first::<32>(b).as_ptr().cast()));
            widen_u8(bytes: u64) -> __m256 = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(bytes.cast_signed())));
            widen_i8(bytes: u64) -> __m256 = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_cvtsi64_si128(bytes.cast_signed())));
            splat(v: f32) -> __m256 = _mm256_set1_ps(v);
            pair(x: &[f32]) -> __m256 = {
                let pairs = _mm256_castpd_ps(_mm256_set1_pd(f64::from_bits(u64::from(x[0].to_bits()) | u64::from(x[1].to_bits()) << 32)));
                _mm256_permutevar_ps(pairs, _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1))
            };
            set(v: [f32; 8]) -> __m256 = _mm256_setr_ps(v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7]);
            set_bytes(v: [u64; 4]) -> __m256i = {
                _mm256_setr_epi64x(v[0] as i64, v[1] as i64, v[2] as i64, v[3] as i64)
            };
            gather_f16_pairs(b: &[u8], stride: usize) -> (__m256, __m256) = {
                let at = |i: usize| i32::from_le_bytes(first::<4>(&b[i * stride..]));
                let pairs = _mm256_setr_epi32(at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7));
                let low = _mm256_and_si256(pairs, _mm256_set1_epi32(0xffff));
                // The packing works on halves of the vector: low 0..4, high 0..4, low 4..8, high 4..8.
                let packed = _mm256_packus_epi32(low, _mm256_srli_epi32::<16>(pairs));
                let packed = _mm256_permute4x64_epi64::<0b11_01_10_00>(packed);
                let high = _mm256_extracti128_si256::<1>(packed);
                (_mm256_cvtph_ps(_mm256_castsi256_si128(packed)), _mm256_cvtph_ps(high))
            };
            twice_each(a: __m256) -> (__m256, __m256) = (
                _mm256_permutevar8x32_ps(a, _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3)),
                _mm256_permutevar8x32_ps(a, _mm256_setr_epi32(4, 4, 5, 5, 6, 6, 7, 7)),
            );
            add(a: __m256, b: __m256) -> __m256 = _mm256_add_ps(a, b);
            mul(a: __m256, b: __m256) -> __m256 = _mm256_mul_ps(a, b);
            fma(a: __m256, b: __m256, c: __m256) -> __m256 = _mm256_fmadd_ps(a, b, c);
            sum(a: __m256) -> f32 = {
                let a = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
                let a = _mm_add_ps(a, _mm_movehl_ps(a, a));
                _mm_cvtss_f32(_mm_add_ss(a, _mm_movehdup_ps(a)))
            };
            isplat(v: i32) -> __m256i = _mm256_set1_epi32(v);
            prefetch(p: *const u8) -> () = _mm_prefetch::<_MM_HINT_T0>(p.cast());
            to_f32(a: __m256i) -> __m256 = _mm256_cvtepi32_ps(a);
        }
    };
}

/// Wide vectors of 256 bits.
macro_rules! wide_256 {
    () => {
        type WB = __m256i;
        type WI = __m256i;
        type WF = __m256;
        const W: usize = 8;
        type Row = [__m256; 2];

        #[inline(always)]
        fn row_zero(self) -> Self::Row {
            [self.splat(0.0); 2]
        }
        #[inline(always)]
        fn row_add(
            self,
            byte: bool,
            group: usize,
            i: usize,
            u: [__m256i; 2],
            x: &[u8; 256],
            scales: &[f32; 16],
            acc: Self::Row,
        ) -> Self::Row {
            let add = |h: usize| {
                let chunk = 2 * i + h;
                let dot = self.dot(byte, self.isplat(0), u[h], self.load_bytes(&x[32 * chunk..]));
                let scale = if group == 32 { self.splat(scales[chunk]) } else { self.pair(&scales[2 * chunk..]) };
                self.fma(self.to_f32(dot), scale, acc[h])
            };
            [add(0), add(1)]
        }
        #[inline(always)]
        fn row_sum(self, acc: [Self::Row; 2], rest: Self::F) -> f32 {
            let low = self.add(acc[0][0], acc[1][0]);
            let high = self.add(acc[0][1], acc[1][1]);
            self.sum(self.add(self.add(low, high), rest))
        }

        const INT_COLS: usize = 3;
        const FLOAT_COLS: usize = 6;

        through_pointers! {
            wide_bytes(p: *const u8) -> __m256i = _mm256_loadu_si256(p.cast());
            wide_quad(p: *const i8) -> __m256i = _mm256_set1_epi32(p.cast::<i32>().read_unaligned());
            wide_iload(p: *const i32) -> __m256i = _mm256_loadu_si256(p.cast());
            wide_istore(a: __m256i, p: *mut i32) = _mm256_storeu_si256(p.cast(), a);
            wide_load(p: *const f32) -> __m256 = _mm256_loadu_ps(p);
            wide_store(a: __m256, p: *mut f32) = _mm256_storeu_ps(p, a);
        }
        intrinsics! {
            gather_f16(b: &[u8], stride: usize) -> __m256 = gather_8(b, stride);
            wide_isplat(v: i32) -> __m256i = _mm256_set1_epi32(v);
            wide_to_f32(a: __m256i) -> __m256 = _mm256_cvtepi32_ps(a);
            wide_splat(v: f32) -> __m256 = _mm256_set1_ps(v);
            wide_mul(a: __m256, b: __m256) -> __m256 = _mm256_mul_ps(a, b);
            wide_fma(a: __m256, b: __m256, c: __m256) -> __m256 = _mm256_fmadd_ps(a, b, c);
        }
    };
}

impl Isa for Avx2Fma {
    narrow!();
    wide_256!();
    intrinsics! {
        dot(byte: bool, acc: __m256i, u: __m256i, x: __m256i) -> __m256i = dot_avx2(byte, acc, u, x);
        wide_dot(byte: bool, acc: __m256i, u: __m256i, x: __m256i) -> __m256i = dot_avx2(byte, acc, u, x);
    }
}

impl Isa for Avx2Vnni {
    narrow!();
    wide_256!();
    intrinsics! {
        dot(_byte: bool, acc: __m256i, u: __m256i, x: __m256i) -> __m256i = _mm256_dpbusd_avx_epi32(acc, u, x);
        wide_dot(_byte: bool, acc: __m256i, u: __m256i, x: __m256i) -> __m256i = _mm256_dpbusd_avx_epi32(acc, u, x);
    }
}

impl Isa for Avx512Vnni {
    narrow!();
    type WB = __m512i;
    type WI = __m512i;
    type WF = __m512;
    const W: usize = 16;
    type Row = __m512;

    #[inline(always)]
    fn row_add(
        self,
        _byte: bool,
        group: usize,
        i: usize,
        u: [__m256i; 2],
        x: &[u8; 256],
        scales: &[f32; 16],
        acc: __m512,
    ) -> __m512 {
        assert!(i < 4);
        // SAFETY: `scales` has 16 values, `x` 64 bytes from `64 * i`; features as in `intrinsics`.
        unsafe {
            let u = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(u[0]), u[1]);
            let x = _mm512_loadu_si512(x.as_ptr().add(64 * i).cast());
            let dot = _mm512_dpbusd_epi32(_mm512_setzero_si512(), u, x);
            let first = SCALE_OF_LANE[usize::from(group == 16)][i].as_ptr();
            let scale = _mm512_permutexvar_ps(_mm512_loadu_si512(first.cast()), _mm512_loadu_ps(scales.as_ptr()));
            _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), scale, acc)
        }
    }

    const INT_COLS: usize = 6;
    const FLOAT_COLS: usize = 12;

    through_pointers! {
        wide_bytes(p: *const u8) -> __m512i = _mm512_loadu_si512(p.cast());
        wide_quad(p: *const i8) -> __m512i = _mm512_set1_epi32(p.cast::<i32>().read_unaligned());
        wide_iload(p: *const i32) -> __m512i = _mm512_loadu_si512(p.cast());
        wide_istore(a: __m512i, p: *mut i32) = _mm512_storeu_si512(p.cast(), a);
        wide_load(p: *const f32) -> __m512 = _mm512_loadu_ps(p);
        wide_store(a: __m512, p: *mut f32) = _mm512_storeu_ps(p, a);
    }
    intrinsics! {
        dot(_byte: bool, acc: __m256i, u: __m256i, x: __m256i) -> __m256i = _mm256_dpbusd_epi32(acc, u, x);
        wide_dot(_byte: bool, acc: __m512i, u: __m512i, x: __m512i) -> __m512i = _mm512_dpbusd_epi32(acc, u, x);
        gather_f16(b: &[u8], stride: usize) -> __m256 = {
            if stride == 18 && b.len() >= 128 {
                // Eight blocks of Q4_0 or IQ4_NL: their scales are words 0, 9 .. 63 of two vectors.
                let at = _mm512_castsi128_si512(_mm_setr_epi16(0, 9, 18, 27, 36, 45, 54, 63));
                let (low, high) = (_mm512_loadu_si512(b.as_ptr().cast()), _mm512_loadu_si512(b.as_ptr().add(64).cast()));
                _mm256_cvtph_ps(_mm512_castsi512_si128(_mm512_permutex2var_epi16(low, at, high)))
            } else {
                gather_8(b, stride)
            }
        };
        row_zero() -> __m512 = _mm512_setzero_ps();
        row_sum(acc: [__m512; 2], rest: __m256) -> f32 = {
            let a = _mm512_add_ps(acc[0], acc[1]);
            let a = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a));
            let a = _mm256_add_ps(a, rest);
            let a = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_add_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_add_ss(a, _mm_movehdup_ps(a)))
        };
        wide_isplat(v: i32) -> __m512i = _mm512_set1_epi32(v);
        wide_to_f32(a: __m512i) -> __m512 = _mm512_cvtepi32_ps(a);
        wide_splat(v: f32) -> __m512 = _mm512_set1_ps(v);
        wide_mul(a: __m512, b: __m512) -> __m512 = _mm512_mul_ps(a, b);
        wide_fma(a: __m512, b: __m512, c: __m512) -> __m512 = _mm512_fmadd_ps(a, b, c);
    }

    /// In assembly for full tiles: the compiler would load the bytes of all columns ahead of their use, for which there are not
    /// enough registers, and move the accumulators to memory.
    #[inline(always)]
    unsafe fn add_quads<const COLS: usize>(
        self,
        _byte: bool,
        mut dots: [[__m512i; 2]; COLS],
        u: *const u8,
        x: *const i8,
    ) -> [[__m512i; 2]; COLS] {
        if COLS != Self::INT_COLS {
            // SAFETY: the caller's promise; features as in `intrinsics`.
            unsafe {
                let u = [self.wide_bytes(u), self.wide_bytes(u.add(64))];
                for (c, dots) in dots.iter_mut().enumerate() {
                    let quad = self.wide_quad(x.add(c * STRIDE));
                    *dots = [_mm512_dpbusd_epi32(dots[0], u[0], quad), _mm512_dpbusd_epi32(dots[1], u[1], quad)];
                }
            }
            return dots;
        }
        let full: &mut [[__m512i; 2]; 6] = (&mut dots[..]).try_into().expect("a full tile");
        // SAFETY: the caller's promise; features as in `intrinsics`.
        *full = unsafe { add_quads_to_full_tile(*full, u, x) };
        dots
    }
}

/// [`Isa::add_quads`] for the columns of a full tile.
///
/// # Safety
///
/// As there; u is a multiple of 64.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn add_quads_to_full_tile(mut dots: [[__m512i; 2]; 6], u: *const u8, x: *const i8) -> [[__m512i; 2]; 6] {
    const { assert!(STRIDE == 512) };
    // Scratch registers; named and typed, because an output without a type has no register name.
    let (mut u0, mut u1, mut q): (__m512i, __m512i, __m512i);
    // SAFETY: reads what the caller promised.
    unsafe {
        core::arch::asm!(
            "vmovdqa64 {u0}, [{u}]",
            "vmovdqa64 {u1}, [{u} + 64]",
            "vpbroadcastd {q}, [{x}]",
            "vpdpbusd {a0}, {u0}, {q}",
            "vpdpbusd {b0}, {u1}, {q}",
            "vpbroadcastd {q}, [{x} + 512]",
            "vpdpbusd {a1}, {u0}, {q}",
            "vpdpbusd {b1}, {u1}, {q}",
            "vpbroadcastd {q}, [{x} + 1024]",
            "vpdpbusd {a2}, {u0}, {q}",
            "vpdpbusd {b2}, {u1}, {q}",
            "vpbroadcastd {q}, [{x} + 1536]",
            "vpdpbusd {a3}, {u0}, {q}",
            "vpdpbusd {b3}, {u1}, {q}",
            "vpbroadcastd {q}, [{x} + 2048]",
            "vpdpbusd {a4}, {u0}, {q}",
            "vpdpbusd {b4}, {u1}, {q}",
            "vpbroadcastd {q}, [{x} + 2560]",
            "vpdpbusd {a5}, {u0}, {q}",
            "vpdpbusd {b5}, {u1}, {q}",
            u = in(reg) u,
            x = in(reg) x,
            u0 = out(zmm_reg) u0,
            u1 = out(zmm_reg) u1,
            q = out(zmm_reg) q,
            a0 = inout(zmm_reg) dots[0][0],
            b0 = inout(zmm_reg) dots[0][1],
            a1 = inout(zmm_reg) dots[1][0],
            b1 = inout(zmm_reg) dots[1][1],
            a2 = inout(zmm_reg) dots[2][0],
            b2 = inout(zmm_reg) dots[2][1],
            a3 = inout(zmm_reg) dots[3][0],
            b3 = inout(zmm_reg) dots[3][1],
            a4 = inout(zmm_reg) dots[4][0],
            b4 = inout(zmm_reg) dots[4][1],
            a5 = inout(zmm_reg) dots[5][0],
            b5 = inout(zmm_reg) dots[5][1],
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    let _ = (u0, u1, q);
    dots
}
