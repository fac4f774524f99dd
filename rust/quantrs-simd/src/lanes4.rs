//! Four lanes in plain arrays: what the compiler turns into SSE2 or NEON.

use crate::Simd;
use crate::half::{f16_bits, f16_value};

/// The four-lane level; every CPU has it.
#[derive(Clone, Copy, Debug)]
pub struct Lanes4(());

impl Lanes4 {
    /// The level, which needs no proof.
    pub fn baseline() -> Lanes4 {
        Lanes4(())
    }

    pub(crate) fn new() -> Lanes4 {
        Lanes4(())
    }
}

/// Not `array::map`: that is not always inlined, and then costs a call per lane.
#[inline(always)]
fn map1<A: Copy, R>(a: [A; 4], f: impl Fn(A) -> R) -> [R; 4] {
    [f(a[0]), f(a[1]), f(a[2]), f(a[3])]
}

#[inline(always)]
fn map2<A: Copy, B: Copy, R>(a: [A; 4], b: [B; 4], f: impl Fn(A, B) -> R) -> [R; 4] {
    [f(a[0], b[0]), f(a[1], b[1]), f(a[2], b[2]), f(a[3], b[3])]
}

/// All bits set where `f` holds: the shape that compilers turn into vector compares.
#[inline(always)]
fn mask<A: Copy>(a: [A; 4], b: [A; 4], f: impl Fn(A, A) -> bool) -> [i32; 4] {
    map2(a, b, |x, y| if f(x, y) { -1 } else { 0 })
}

/// [`trunc_i32`](crate::trunc_i32) of four values: one instruction of SSE2, but the plain form takes a dozen.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn trunc(a: [f32; 4]) -> [i32; 4] {
    use core::arch::x86_64::{_mm_cvttps_epi32, _mm_loadu_ps, _mm_storeu_si128};
    let mut out = [0; 4];
    // SAFETY: every x86-64 CPU has SSE2; both arrays have four values.
    unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), _mm_cvttps_epi32(_mm_loadu_ps(a.as_ptr()))) };
    out
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn trunc(a: [f32; 4]) -> [i32; 4] {
    map1(a, crate::trunc_i32)
}

impl Simd for Lanes4 {
    const LANES: usize = 4;
    const TILE: usize = 4;
    type F = [f32; 4];
    type I = [i32; 4];
    type M = [i32; 4];

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
    fn add(self, a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        map2(a, b, |x, y| x + y)
    }
    #[inline(always)]
    fn sub(self, a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        map2(a, b, |x, y| x - y)
    }
    #[inline(always)]
    fn mul(self, a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        map2(a, b, |x, y| x * y)
    }
    #[inline(always)]
    fn div(self, a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        map2(a, b, |x, y| x / y)
    }
    #[inline(always)]
    fn sqrt(self, a: [f32; 4]) -> [f32; 4] {
        map1(a, f32::sqrt)
    }
    #[inline(always)]
    fn abs(self, a: [f32; 4]) -> [f32; 4] {
        map1(a, f32::abs)
    }
    #[inline(always)]
    fn lt(self, a: [f32; 4], b: [f32; 4]) -> [i32; 4] {
        mask(a, b, |x, y| x < y)
    }
    #[inline(always)]
    fn le(self, a: [f32; 4], b: [f32; 4]) -> [i32; 4] {
        mask(a, b, |x, y| x <= y)
    }
    #[inline(always)]
    fn eq(self, a: [f32; 4], b: [f32; 4]) -> [i32; 4] {
        mask(a, b, |x, y| x == y)
    }
    #[inline(always)]
    fn ne(self, a: [f32; 4], b: [f32; 4]) -> [i32; 4] {
        mask(a, b, |x, y| x != y)
    }
    #[inline(always)]
    fn select(self, m: [i32; 4], a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        self.from_bits(self.iselect(m, self.to_bits(a), self.to_bits(b)))
    }
    #[inline(always)]
    fn isplat(self, v: i32) -> [i32; 4] {
        [v; 4]
    }
    #[inline(always)]
    fn iload(self, x: &[i32]) -> [i32; 4] {
        [x[0], x[1], x[2], x[3]]
    }
    #[inline(always)]
    fn istore(self, v: [i32; 4], out: &mut [i32]) {
        out[..4].copy_from_slice(&v);
    }
    #[inline(always)]
    fn iadd(self, a: [i32; 4], b: [i32; 4]) -> [i32; 4] {
        map2(a, b, i32::wrapping_add)
    }
    #[inline(always)]
    fn isub(self, a: [i32; 4], b: [i32; 4]) -> [i32; 4] {
        map2(a, b, i32::wrapping_sub)
    }
    #[inline(always)]
    fn iand(self, a: [i32; 4], b: [i32; 4]) -> [i32; 4] {
        map2(a, b, |x, y| x & y)
    }
    #[inline(always)]
    fn ior(self, a: [i32; 4], b: [i32; 4]) -> [i32; 4] {
        map2(a, b, |x, y| x | y)
    }
    #[inline(always)]
    fn imin(self, a: [i32; 4], b: [i32; 4]) -> [i32; 4] {
        map2(a, b, i32::min)
    }
    #[inline(always)]
    fn imax(self, a: [i32; 4], b: [i32; 4]) -> [i32; 4] {
        map2(a, b, i32::max)
    }
    #[inline(always)]
    fn ieq(self, a: [i32; 4], b: [i32; 4]) -> [i32; 4] {
        mask(a, b, |x, y| x == y)
    }
    #[inline(always)]
    fn iselect(self, m: [i32; 4], a: [i32; 4], b: [i32; 4]) -> [i32; 4] {
        map1([0, 1, 2, 3], |i| (m[i] & a[i]) | (!m[i] & b[i]))
    }
    #[inline(always)]
    fn to_bits(self, a: [f32; 4]) -> [i32; 4] {
        map1(a, |x| x.to_bits() as i32)
    }
    #[inline(always)]
    fn from_bits(self, a: [i32; 4]) -> [f32; 4] {
        map1(a, |x| f32::from_bits(x as u32))
    }
    #[inline(always)]
    fn to_f32(self, a: [i32; 4]) -> [f32; 4] {
        map1(a, |x| x as f32)
    }
    #[inline(always)]
    fn trunc(self, a: [f32; 4]) -> [i32; 4] {
        trunc(a)
    }
    #[inline(always)]
    fn both(self, a: [i32; 4], b: [i32; 4]) -> [i32; 4] {
        self.iand(a, b)
    }
    #[inline(always)]
    fn either(self, a: [i32; 4], b: [i32; 4]) -> [i32; 4] {
        self.ior(a, b)
    }
    #[inline(always)]
    fn and_not(self, a: [i32; 4], b: [i32; 4]) -> [i32; 4] {
        map2(a, b, |x, y| x & !y)
    }
    #[inline(always)]
    fn any(self, m: [i32; 4]) -> bool {
        m != [0; 4]
    }
    #[inline(always)]
    fn min(self, a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        map2(a, b, |x, y| if x < y { x } else { y })
    }
    #[inline(always)]
    fn max(self, a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        map2(a, b, |x, y| if x > y { x } else { y })
    }
    #[inline(always)]
    fn reduce_min(self, a: [f32; 4]) -> f32 {
        let pairs = self.min(a, [a[2], a[3], a[0], a[1]]);
        if pairs[0] < pairs[1] { pairs[0] } else { pairs[1] }
    }
    #[inline(always)]
    fn reduce_max(self, a: [f32; 4]) -> f32 {
        let pairs = self.max(a, [a[2], a[3], a[0], a[1]]);
        if pairs[0] > pairs[1] { pairs[0] } else { pairs[1] }
    }
    #[inline(always)]
    fn ishl(self, a: [i32; 4], n: u32) -> [i32; 4] {
        map1(a, |x| x << n)
    }
    #[inline(always)]
    fn bitmask(self, m: [i32; 4]) -> u32 {
        let bits = self.iand(m, [1, 2, 4, 8]);
        (bits[0] | bits[1] | bits[2] | bits[3]) as u32
    }
    #[inline(always)]
    fn store_bytes(self, a: [i32; 4], out: &mut [u8]) {
        out[..4].copy_from_slice(&map1(a, |x| x as u8));
    }
    #[inline(always)]
    fn load_f16(self, x: &[u8]) -> [f32; 4] {
        let x: &[u8; 8] = x[..8].try_into().expect("eight bytes");
        map1([0, 2, 4, 6], |i| f16_value(u16::from_le_bytes([x[i], x[i + 1]])))
    }
    #[inline(always)]
    fn store_f16(self, a: [f32; 4], out: &mut [u8]) {
        let bits = map1(a, f16_bits);
        for (out, bits) in out[..8].chunks_exact_mut(2).zip(bits) {
            out.copy_from_slice(&bits.to_le_bytes());
        }
    }
    #[inline(always)]
    fn load_tile<'a>(self, row: impl Fn(usize) -> &'a [f32], out: &mut [[f32; 4]]) {
        let rows = map1([0, 1, 2, 3], |j| self.load(row(j)));
        for (i, out) in out[..4].iter_mut().enumerate() {
            *out = map1(rows, |row| row[i]);
        }
    }
    #[inline(always)]
    fn lookup32(self, table: &[f32; 32], i: [i32; 4]) -> [f32; 4] {
        map1(i, |i| table[(i & 31) as usize])
    }
    #[inline(always)]
    fn ishr(self, a: [i32; 4], n: u32) -> [i32; 4] {
        map1(a, |x| (x as u32 >> n) as i32)
    }
    #[inline(always)]
    fn load_u8(self, x: &[u8]) -> [i32; 4] {
        map1([x[0], x[1], x[2], x[3]], i32::from)
    }
    #[inline(always)]
    fn load_i8(self, x: &[u8]) -> [i32; 4] {
        map1([x[0], x[1], x[2], x[3]], |x| i32::from(x as i8))
    }
}
