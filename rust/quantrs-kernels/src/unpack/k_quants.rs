//! K-quants: super-blocks of 256.

use super::simple::six_bit_pairs;
use super::{Scales, Unpack, join, u32_at};
use crate::isa::Isa;

/// 32 values of two-bit plane i: bits `2 * (i % 4)` of bytes `32 * (i / 4)..`.
#[inline(always)]
fn two_bits<M: Isa>(m: M, planes: &[u8], i: usize) -> M::B {
    m.shr_and(m.load_bytes(&planes[i / 4 * 32..]), i % 4 * 2, 3)
}

/// 32 nibbles: the low ones of bytes `32 * (i / 2)..` for even i, else the high ones.
#[inline(always)]
fn half_bytes<M: Isa>(m: M, bytes: &[u8], i: usize) -> M::B {
    m.shr_and(m.load_bytes(&bytes[i / 2 * 32..]), i % 2 * 4, 15)
}

/// `factor` times 16 numbers in four words of bytes.
#[inline(always)]
fn put_scaled<M: Isa>(m: M, out: &mut [f32; 16], factor: f32, low: M::F, high: M::F) {
    let factor = m.splat(factor);
    m.store(m.mul(factor, low), out);
    m.store(m.mul(factor, high), &mut out[8..]);
}

pub(crate) struct Q2K;

impl Unpack for Q2K {
    const BLOCK_LEN: usize = 256;
    const BLOCK_BYTES: usize = 84;
    const GROUP: usize = 16;
    const OFFSET: u8 = 0;
    const MINS: bool = true;
    const BYTE: bool = false;
    type State = ();

    #[inline(always)]
    fn scales<M: Isa>(m: M, b: &[u8], _: usize, out: &mut Scales) {
        const LOW: u64 = 0x0f0f_0f0f_0f0f_0f0f;
        let (a, c) = (join(u32_at(b, 0), u32_at(b, 4)), join(u32_at(b, 8), u32_at(b, 12)));
        put_scaled(m, &mut out.s, m.f16(&b[80..]), m.widen_u8(a & LOW), m.widen_u8(c & LOW));
        put_scaled(m, &mut out.m, -m.f16(&b[82..]), m.widen_u8(a >> 4 & LOW), m.widen_u8(c >> 4 & LOW));
    }
    #[inline(always)]
    fn codes<M: Isa>(m: M, _: &(), b: &[u8], i: usize) -> M::B {
        two_bits(m, &b[16..80], i)
    }
}

pub(crate) struct Q3K;

impl Unpack for Q3K {
    const BLOCK_LEN: usize = 256;
    const BLOCK_BYTES: usize = 110;
    const GROUP: usize = 16;
    const OFFSET: u8 = 4;
    const MINS: bool = false;
    const BYTE: bool = false;
    type State = ();

    #[inline(always)]
    fn scales<M: Isa>(m: M, b: &[u8], _: usize, out: &mut Scales) {
        let (a, c, high) = (u32_at(b, 96), u32_at(b, 100), u32_at(b, 104));
        let four = 0x0f0f_0f0f;
        let six = |low: u32, j: u32| (low & four) | ((high >> (2 * j)) & 0x0303_0303) << 4;
        let low = m.widen_u8(join(six(a, 0), six(c, 1)));
        let high = m.widen_u8(join(six(a >> 4, 2), six(c >> 4, 3)));
        let less_32 = m.splat(-32.0);
        put_scaled(m, &mut out.s, m.f16(&b[108..]), m.add(low, less_32), m.add(high, less_32));
    }
    #[inline(always)]
    fn codes<M: Isa>(m: M, _: &(), b: &[u8], i: usize) -> M::B {
        m.or(two_bits(m, &b[32..96], i), m.move_bits(m.load_bytes(b), 1, i, 2))
    }
}

pub(crate) struct Q4K;

impl Unpack for Q4K {
    const BLOCK_LEN: usize = 256;
    const BLOCK_BYTES: usize = 144;
    const GROUP: usize = 32;
    const OFFSET: u8 = 0;
    const MINS: bool = true;
    const BYTE: bool = false;
    type State = ();

    #[inline(always)]
    fn scales<M: Isa>(m: M, b: &[u8], _: usize, out: &mut Scales) {
        scales_and_mins(m, b, out);
    }
    #[inline(always)]
    fn codes<M: Isa>(m: M, _: &(), b: &[u8], i: usize) -> M::B {
        half_bytes(m, &b[16..144], i)
    }
}

#[inline(always)]
fn scales_and_mins<M: Isa>(m: M, b: &[u8], out: &mut Scales) {
    let (scales, mins) = six_bit_pairs(&b[4..16]);
    m.store(m.mul(m.splat(m.f16(b)), m.widen_u8(scales)), &mut out.s);
    m.store(m.mul(m.splat(-m.f16(&b[2..])), m.widen_u8(mins)), &mut out.m);
}

pub(crate) struct Q5K;

impl Unpack for Q5K {
    const BLOCK_LEN: usize = 256;
    const BLOCK_BYTES: usize = 176;
    const GROUP: usize = 32;
    const OFFSET: u8 = 0;
    const MINS: bool = true;
    const BYTE: bool = false;
    type State = ();

    #[inline(always)]
    fn scales<M: Isa>(m: M, b: &[u8], _: usize, out: &mut Scales) {
        scales_and_mins(m, b, out);
    }
    #[inline(always)]
    fn codes<M: Isa>(m: M, _: &(), b: &[u8], i: usize) -> M::B {
        m.or(half_bytes(m, &b[48..176], i), m.move_bits(m.load_bytes(&b[16..]), 1, i, 4))
    }
}

pub(crate) struct Q6K;

impl Unpack for Q6K {
    const BLOCK_LEN: usize = 256;
    const BLOCK_BYTES: usize = 210;
    const GROUP: usize = 16;
    const OFFSET: u8 = 32;
    const MINS: bool = false;
    const BYTE: bool = false;
    type State = ();

    #[inline(always)]
    fn scales<M: Isa>(m: M, b: &[u8], _: usize, out: &mut Scales) {
        let low = join(u32_at(b, 192), u32_at(b, 196));
        let high = join(u32_at(b, 200), u32_at(b, 204));
        put_scaled(m, &mut out.s, m.f16(&b[208..]), m.widen_i8(low), m.widen_i8(high));
    }
    #[inline(always)]
    fn codes<M: Isa>(m: M, _: &(), b: &[u8], i: usize) -> M::B {
        // Half n, quarter p: low bits in the p / 2-th nibbles of 32 bytes, high bits in a plane.
        let (n, p) = (i / 4, i % 4);
        let low = m.shr_and(m.load_bytes(&b[64 * n + p % 2 * 32..]), p / 2 * 4, 15);
        let high = m.load_bytes(&b[128 + 32 * n..]);
        m.or(low, m.move_bits(high, 3, 2 * p, 4))
    }
}

pub(crate) struct Q8K;

impl Unpack for Q8K {
    const BLOCK_LEN: usize = 256;
    const BLOCK_BYTES: usize = 292;
    const GROUP: usize = 32;
    const OFFSET: u8 = 128;
    const MINS: bool = false;
    const BYTE: bool = true;
    type State = ();

    #[inline(always)]
    fn scales<M: Isa>(_: M, b: &[u8], _: usize, out: &mut Scales) {
        out.s[..8].fill(f32::from_bits(u32_at(b, 0)));
    }
    #[inline(always)]
    fn codes<M: Isa>(m: M, _: &(), b: &[u8], i: usize) -> M::B {
        m.xor(m.load_bytes(&b[4 + 32 * i..]), m.splat_byte(128))
    }
}
