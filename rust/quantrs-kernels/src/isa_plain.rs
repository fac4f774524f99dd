//! The operations of products in plain code.

use crate::isa::Isa;
use quantrs_simd::{bf16_value, f16_value};

/// Arrays in place of vectors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plain;

#[inline(always)]
fn each<T: Copy + Default, U: Copy, const N: usize>(a: [U; N], b: [U; N], f: impl Fn(U, U) -> T) -> [T; N] {
    let mut out = [T::default(); N];
    for i in 0..N {
        out[i] = f(a[i], b[i]);
    }
    out
}

fn u16_at(b: &[u8], i: usize) -> u16 {
    u16::from_le_bytes([b[2 * i], b[2 * i + 1]])
}

impl Isa for Plain {
    type B = [u8; 32];
    type I = [i32; 8];
    type F = [f32; 8];
    type WB = [u8; 32];
    type WI = [i32; 8];
    type WF = [f32; 8];
    #[inline(always)]
    fn largest(self, x: &[f32]) -> f32 {
        assert!(!x.is_empty() && x.len().is_multiple_of(32));
        f32::from_bits(x.iter().fold(0, |largest: u32, v| largest.max(v.to_bits() & 0x7fff_ffff)))
    }
    #[inline(always)]
    fn quantize(self, x: &[f32], inverse: f32, codes: &mut [i8]) -> [i32; 2] {
        /// 1.5 * 2^23: adding it leaves the rounded integer in the low bits.
        const MAGIC: f32 = 12_582_912.0;
        let (x, codes) = (&x[..32], &mut codes[..32]);
        for (code, x) in codes.iter_mut().zip(x) {
            let x = if inverse == 0.0 { 0.0 } else { *x };
            *code = (x * inverse + MAGIC).to_bits() as i8;
        }
        let sum = |codes: &[i8]| codes.iter().map(|&q| i32::from(q)).sum();
        [sum(&codes[..16]), sum(&codes[16..])]
    }

    type Row = [[f32; 8]; 2];

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
        u: [[u8; 32]; 2],
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

    const W: usize = 8;
    const INT_COLS: usize = 2;
    const FLOAT_COLS: usize = 2;

    #[inline(always)]
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
        f()
    }

    #[inline(always)]
    fn load_bytes(self, b: &[u8]) -> [u8; 32] {
        b[..32].try_into().expect("32 bytes")
    }
    #[inline(always)]
    fn store_bytes(self, a: [u8; 32], out: &mut [u8]) {
        out[..32].copy_from_slice(&a);
    }
    #[inline(always)]
    fn nibbles(self, b: &[u8]) -> [u8; 32] {
        std::array::from_fn(|i| b[..16][i % 16] >> (i / 16 * 4) & 15)
    }
    #[inline(always)]
    fn nibbles_by_8(self, b: &[u8]) -> [u8; 32] {
        std::array::from_fn(|i| b[..16][i / 16 * 8 + i % 8] >> (i / 8 % 2 * 4) & 15)
    }
    #[inline(always)]
    fn crumbs(self, b: &[u8]) -> [u8; 32] {
        std::array::from_fn(|i| b[..8][i / 4] >> (i % 4 * 2) & 3)
    }
    #[inline(always)]
    fn bits(self, word: u32) -> [u8; 32] {
        std::array::from_fn(|i| ((word >> i & 1) as u8).wrapping_neg())
    }
    #[inline(always)]
    fn splat_byte(self, v: u8) -> [u8; 32] {
        [v; 32]
    }
    #[inline(always)]
    fn and(self, a: [u8; 32], b: [u8; 32]) -> [u8; 32] {
        each(a, b, |a, b| a & b)
    }
    #[inline(always)]
    fn or(self, a: [u8; 32], b: [u8; 32]) -> [u8; 32] {
        each(a, b, |a, b| a | b)
    }
    #[inline(always)]
    fn xor(self, a: [u8; 32], b: [u8; 32]) -> [u8; 32] {
        each(a, b, |a, b| a ^ b)
    }
    #[inline(always)]
    fn add_bytes(self, a: [u8; 32], b: [u8; 32]) -> [u8; 32] {
        each(a, b, u8::wrapping_add)
    }
    #[inline(always)]
    fn shr_and(self, a: [u8; 32], n: usize, mask: u8) -> [u8; 32] {
        a.map(|a| a >> n & mask)
    }
    #[inline(always)]
    fn shl_and(self, a: [u8; 32], n: usize, mask: u8) -> [u8; 32] {
        a.map(|a| a << n & mask)
    }
    #[inline(always)]
    fn lookup(self, table: &[u8; 16], i: [u8; 32]) -> [u8; 32] {
        i.map(|i| table[usize::from(i & 15)])
    }
    #[inline(always)]
    fn transpose(self, rows: [[u8; 32]; 8]) -> [[u8; 32]; 8] {
        std::array::from_fn(|c| std::array::from_fn(|i| rows[i / 4][4 * c + i % 4]))
    }

    #[inline(always)]
    fn f16(self, b: &[u8]) -> f32 {
        f16_value(u16_at(b, 0))
    }
    #[inline(always)]
    fn load_f16(self, b: &[u8]) -> [f32; 8] {
        std::array::from_fn(|i| f16_value(u16_at(b, i)))
    }
    #[inline(always)]
    fn load_bf16(self, b: &[u8]) -> [f32; 8] {
        std::array::from_fn(|i| bf16_value(u16_at(b, i)))
    }
    #[inline(always)]
    fn load_f32(self, b: &[u8]) -> [f32; 8] {
        std::array::from_fn(|i| f32::from_le_bytes(b[4 * i..][..4].try_into().expect("4 bytes")))
    }
    #[inline(always)]
    fn widen_u8(self, bytes: u64) -> [f32; 8] {
        bytes.to_le_bytes().map(f32::from)
    }
    #[inline(always)]
    fn widen_i8(self, bytes: u64) -> [f32; 8] {
        bytes.to_le_bytes().map(|b| f32::from(b.cast_signed()))
    }
    #[inline(always)]
    fn splat(self, v: f32) -> [f32; 8] {
        [v; 8]
    }
    #[inline(always)]
    fn pair(self, x: &[f32]) -> [f32; 8] {
        std::array::from_fn(|i| x[..2][i / 4])
    }
    #[inline(always)]
    fn gather_f16(self, b: &[u8], stride: usize) -> [f32; 8] {
        std::array::from_fn(|i| self.f16(&b[i * stride..]))
    }
    #[inline(always)]
    fn gather_f16_pairs(self, b: &[u8], stride: usize) -> ([f32; 8], [f32; 8]) {
        (self.gather_f16(b, stride), self.gather_f16(&b[2..], stride))
    }
    #[inline(always)]
    fn set(self, lanes: [f32; 8]) -> [f32; 8] {
        lanes
    }
    #[inline(always)]
    fn set_bytes(self, bytes: [u64; 4]) -> [u8; 32] {
        std::array::from_fn(|i| bytes[i / 8].to_le_bytes()[i % 8])
    }
    #[inline(always)]
    fn load(self, x: &[f32]) -> [f32; 8] {
        x[..8].try_into().expect("8 values")
    }
    #[inline(always)]
    fn store(self, a: [f32; 8], out: &mut [f32]) {
        out[..8].copy_from_slice(&a);
    }
    #[inline(always)]
    fn twice_each(self, a: [f32; 8]) -> ([f32; 8], [f32; 8]) {
        (std::array::from_fn(|i| a[i / 2]), std::array::from_fn(|i| a[4 + i / 2]))
    }
    #[inline(always)]
    fn add(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        each(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn mul(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        each(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn fma(self, a: [f32; 8], b: [f32; 8], c: [f32; 8]) -> [f32; 8] {
        self.add(self.mul(a, b), c)
    }
    #[inline(always)]
    fn sum(self, a: [f32; 8]) -> f32 {
        ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]))
    }

    #[inline(always)]
    fn isplat(self, v: i32) -> [i32; 8] {
        [v; 8]
    }
    #[inline(always)]
    fn dot(self, _byte: bool, mut acc: [i32; 8], u: [u8; 32], x: [u8; 32]) -> [i32; 8] {
        for (i, acc) in acc.iter_mut().enumerate() {
            for k in 4 * i..4 * i + 4 {
                *acc = acc.wrapping_add(i32::from(u[k]) * i32::from(x[k].cast_signed()));
            }
        }
        acc
    }
    #[inline(always)]
    fn to_f32(self, a: [i32; 8]) -> [f32; 8] {
        a.map(|a| a as f32)
    }

    #[inline(always)]
    fn prefetch(self, _: *const u8) {}

    #[inline(always)]
    unsafe fn wide_bytes(self, p: *const u8) -> [u8; 32] {
        // SAFETY: the caller's promise.
        unsafe { p.cast::<[u8; 32]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn wide_quad(self, p: *const i8) -> [u8; 32] {
        // SAFETY: the caller's promise.
        let quad = unsafe { p.cast::<[u8; 4]>().read_unaligned() };
        std::array::from_fn(|i| quad[i % 4])
    }
    #[inline(always)]
    fn wide_dot(self, byte: bool, acc: [i32; 8], u: [u8; 32], x: [u8; 32]) -> [i32; 8] {
        self.dot(byte, acc, u, x)
    }
    #[inline(always)]
    fn wide_isplat(self, v: i32) -> [i32; 8] {
        [v; 8]
    }
    #[inline(always)]
    unsafe fn wide_iload(self, p: *const i32) -> [i32; 8] {
        // SAFETY: the caller's promise.
        unsafe { p.cast::<[i32; 8]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn wide_istore(self, a: [i32; 8], p: *mut i32) {
        // SAFETY: the caller's promise.
        unsafe { p.cast::<[i32; 8]>().write_unaligned(a) }
    }
    #[inline(always)]
    fn wide_to_f32(self, a: [i32; 8]) -> [f32; 8] {
        self.to_f32(a)
    }
    #[inline(always)]
    fn wide_splat(self, v: f32) -> [f32; 8] {
        [v; 8]
    }
    #[inline(always)]
    unsafe fn wide_load(self, p: *const f32) -> [f32; 8] {
        // SAFETY: the caller's promise.
        unsafe { p.cast::<[f32; 8]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn wide_store(self, a: [f32; 8], p: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { p.cast::<[f32; 8]>().write_unaligned(a) }
    }
    #[inline(always)]
    fn wide_mul(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        self.mul(a, b)
    }
    #[inline(always)]
    fn wide_fma(self, a: [f32; 8], b: [f32; 8], c: [f32; 8]) -> [f32; 8] {
        self.fma(a, b, c)
    }
}
