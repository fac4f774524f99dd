//! Binary, two-bit and ternary formats.

use super::{Scales, Unpack, u32_at};
use crate::isa::Isa;

pub(crate) struct Q1_0;

impl Unpack for Q1_0 {
    const BLOCK_LEN: usize = 128;
    const BLOCK_BYTES: usize = 18;
    const GROUP: usize = 32;
    const OFFSET: u8 = 1;
    const MINS: bool = false;
    const BYTE: bool = false;
    type State = ();

    #[inline(always)]
    fn scales<M: Isa>(m: M, b: &[u8], n_groups: usize, out: &mut Scales) {
        for g in 0..n_groups {
            out.s[g] = m.f16(&b[g / 4 * 18..]);
        }
    }
    #[inline(always)]
    fn codes<M: Isa>(m: M, _: &(), b: &[u8], i: usize) -> M::B {
        m.and(m.bits(u32_at(b, i / 4 * 18 + 2 + i % 4 * 4)), m.splat_byte(2))
    }
}

pub(crate) struct Q2_0;

impl Unpack for Q2_0 {
    const BLOCK_LEN: usize = 64;
    const BLOCK_BYTES: usize = 18;
    const GROUP: usize = 32;
    const OFFSET: u8 = 1;
    const MINS: bool = false;
    const BYTE: bool = false;
    type State = ();

    #[inline(always)]
    fn scales<M: Isa>(m: M, b: &[u8], n_groups: usize, out: &mut Scales) {
        for g in 0..n_groups {
            out.s[g] = m.f16(&b[g / 2 * 18..]);
        }
    }
    #[inline(always)]
    fn codes<M: Isa>(m: M, _: &(), b: &[u8], i: usize) -> M::B {
        m.crumbs(&b[i / 2 * 18 + 2 + i % 2 * 8..])
    }
}

pub(crate) struct Tq2_0;

impl Unpack for Tq2_0 {
    const BLOCK_LEN: usize = 256;
    const BLOCK_BYTES: usize = 66;
    const GROUP: usize = 32;
    const OFFSET: u8 = 1;
    const MINS: bool = false;
    const BYTE: bool = false;
    type State = ();

    #[inline(always)]
    fn scales<M: Isa>(m: M, b: &[u8], _: usize, out: &mut Scales) {
        out.s[..8].fill(m.f16(&b[64..]));
    }
    #[inline(always)]
    fn codes<M: Isa>(m: M, _: &(), b: &[u8], i: usize) -> M::B {
        m.shr_and(m.load_bytes(&b[i / 4 * 32..]), i % 4 * 2, 3)
    }
}

pub(crate) struct Tq1_0;

impl Unpack for Tq1_0 {
    const BLOCK_LEN: usize = 256;
    const BLOCK_BYTES: usize = 54;
    const GROUP: usize = 32;
    const OFFSET: u8 = 1;
    const MINS: bool = false;
    const BYTE: bool = false;
    type State = ();

    #[inline(always)]
    fn scales<M: Isa>(m: M, b: &[u8], _: usize, out: &mut Scales) {
        out.s[..8].fill(m.f16(&b[52..]));
    }
    #[inline(always)]
    fn codes<M: Isa>(m: M, _: &(), b: &[u8], i: usize) -> M::B {
        let mut codes = [0; 32];
        match i {
            // Digit i of 32 bytes.
            0..5 => digits(&b[..32], i, &mut codes),
            // Digits 0 and 1, then 2 and 3, of 16 bytes.
            5 | 6 => {
                let (first, second) = codes.split_at_mut(16);
                digits(&b[32..48], 2 * (i - 5), first);
                digits(&b[32..48], 2 * (i - 5) + 1, second);
            }
            // Their digit 4, then the four digits of four bytes.
            _ => {
                digits(&b[32..48], 4, &mut codes[..16]);
                for (n, codes) in codes[16..].chunks_exact_mut(4).enumerate() {
                    digits(&b[48..52], n, codes);
                }
            }
        }
        m.load_bytes(&codes)
    }
}

/// Digit n of each byte: drop the digits before it (multiply by 3^n, keep eight bits), then its multiple of 256/3.
#[inline(always)]
fn digits(bytes: &[u8], n: usize, out: &mut [u8]) {
    let power = [1u8, 3, 9, 27, 81][n];
    for (out, b) in out.iter_mut().zip(bytes) {
        *out = ((u16::from(b.wrapping_mul(power)) * 3) >> 8) as u8;
    }
}
