//! Blocks of 32 and 64: Q4, Q5, Q8, IQ4_NL and FP4; and IQ4_XS, which shares the levels of IQ4_NL.

use super::{Scales, Unpack, join, u32_at};
use crate::isa::Isa;
use quantrs_blocks::by_name;
use quantrs_simd::Level;
use std::sync::LazyLock;

/// Levels of IQ4 plus 128.
const IQ4_CODES: [u8; 16] = [1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241];
/// Doubled E2M1 values plus 16.
const FP4_CODES: [u8; 16] = [16, 17, 18, 19, 20, 22, 24, 28, 16, 15, 14, 13, 12, 10, 8, 4];

/// A block of 32 with an f16 scale in front, an f16 minimum after it if `$mins`, and codes.
macro_rules! blocks_of_32 {
    ($($name:ident: $bytes:literal bytes, offset $offset:literal, mins $mins:literal, byte $byte:literal, |$m:ident, $b:ident| $codes:expr;)*) => {$(
        pub(crate) struct $name;
        impl Unpack for $name {
            const BLOCK_LEN: usize = 32;
            const BLOCK_BYTES: usize = $bytes;
            const GROUP: usize = 32;
            const OFFSET: u8 = $offset;
            const MINS: bool = $mins;
            const BYTE: bool = $byte;
            type State = ();

            #[inline(always)]
            fn scales<M: Isa>(m: M, b: &[u8], n_groups: usize, out: &mut Scales) {
                if n_groups < 8 {
                    for (g, b) in b.chunks_exact($bytes).take(n_groups).enumerate() {
                        out.s[g] = m.f16(b);
                        if $mins {
                            out.m[g] = m.f16(&b[2..]);
                        }
                    }
                } else if $mins {
                    let (s, mins) = m.gather_f16_pairs(b, $bytes);
                    m.store(s, &mut out.s);
                    m.store(mins, &mut out.m);
                } else {
                    m.store(m.gather_f16(b, $bytes), &mut out.s);
                }
            }
            #[inline(always)]
            fn codes<M: Isa>($m: M, _: &(), b: &[u8], i: usize) -> M::B {
                let $b = &b[i * $bytes..][..$bytes];
                $codes
            }
        }
    )*};
}

blocks_of_32! {
    Q4_0: 18 bytes, offset 8, mins false, byte false, |m, b| m.nibbles(&b[2..]);
    Q4_1: 20 bytes, offset 0, mins true, byte false, |m, b| m.nibbles(&b[4..]);
    Q5_0: 22 bytes, offset 16, mins false, byte false, |m, b| fifth_bit(m, m.nibbles(&b[6..]), u32_at(b, 2));
    Q5_1: 24 bytes, offset 0, mins true, byte false, |m, b| fifth_bit(m, m.nibbles(&b[8..]), u32_at(b, 4));
    Q8_0: 34 bytes, offset 128, mins false, byte true, |m, b| m.xor(m.load_bytes(&b[2..]), m.splat_byte(128));
    Q8_1: 36 bytes, offset 128, mins false, byte true, |m, b| m.xor(m.load_bytes(&b[4..]), m.splat_byte(128));
    Iq4Nl: 18 bytes, offset 128, mins false, byte true, |m, b| m.lookup(&IQ4_CODES, m.nibbles(&b[2..]));
}

#[inline(always)]
fn fifth_bit<M: Isa>(m: M, nibbles: M::B, high: u32) -> M::B {
    m.or(nibbles, m.and(m.bits(high), m.splat_byte(16)))
}

/// Half the scales, by their byte: what goes with the doubled values.
static MXFP4_SCALES: LazyLock<[f32; 256]> = LazyLock::new(|| half_scales("MXFP4"));
static NVFP4_SCALES: LazyLock<[f32; 256]> = LazyLock::new(|| half_scales("NVFP4"));

/// Decoded from blocks whose codes are all 1, which stands for one half.
fn half_scales(format: &str) -> [f32; 256] {
    let format = by_name(format).expect("in the registry");
    let dequantize = format.dequantize.expect("can be decoded");
    std::array::from_fn(|byte| {
        let mut block = vec![0x11; format.block_bytes];
        block[0] = byte as u8;
        let mut values = vec![0.0; format.block_len];
        dequantize(Level::Scalar, &block, &mut values);
        values[0]
    })
}

pub(crate) struct Mxfp4;

impl Unpack for Mxfp4 {
    const BLOCK_LEN: usize = 32;
    const BLOCK_BYTES: usize = 17;
    const GROUP: usize = 32;
    const OFFSET: u8 = 16;
    const MINS: bool = false;
    const BYTE: bool = false;
    type State = ();

    #[inline(always)]
    fn scales<M: Isa>(m: M, b: &[u8], n_groups: usize, out: &mut Scales) {
        let scales = &*MXFP4_SCALES;
        let scale = |g: usize| scales[usize::from(b[17 * g])];
        if n_groups == 8 {
            m.store(m.set(std::array::from_fn(scale)), &mut out.s);
        } else {
            (0..n_groups).for_each(|g| out.s[g] = scale(g));
        }
    }
    #[inline(always)]
    fn codes<M: Isa>(m: M, _: &(), b: &[u8], i: usize) -> M::B {
        m.lookup(&FP4_CODES, m.nibbles(&b[17 * i + 1..]))
    }
}

pub(crate) struct Nvfp4;

impl Unpack for Nvfp4 {
    const BLOCK_LEN: usize = 64;
    const BLOCK_BYTES: usize = 36;
    const GROUP: usize = 16;
    const OFFSET: u8 = 16;
    const MINS: bool = false;
    const BYTE: bool = false;
    type State = ();

    #[inline(always)]
    fn scales<M: Isa>(_: M, b: &[u8], n_groups: usize, out: &mut Scales) {
        let scales = &*NVFP4_SCALES;
        for g in 0..n_groups {
            out.s[g] = scales[usize::from(b[g / 4 * 36 + g % 4])];
        }
    }
    #[inline(always)]
    fn codes<M: Isa>(m: M, _: &(), b: &[u8], i: usize) -> M::B {
        m.lookup(&FP4_CODES, m.nibbles_by_8(&b[i / 2 * 36 + 4 + i % 2 * 16..]))
    }
}

pub(crate) struct Iq4Xs;

impl Unpack for Iq4Xs {
    const BLOCK_LEN: usize = 256;
    const BLOCK_BYTES: usize = 136;
    const GROUP: usize = 32;
    const OFFSET: u8 = 128;
    const MINS: bool = false;
    const BYTE: bool = true;
    type State = ();

    #[inline(always)]
    fn scales<M: Isa>(m: M, b: &[u8], _: usize, out: &mut Scales) {
        let (high, low) = (u32::from(b[2]) | u32::from(b[3]) << 8, u32_at(b, 4));
        const LOW: [(u32, u64); 3] =
            [(16, 0x0000_ffff_0000_ffff), (8, 0x00ff_00ff_00ff_00ff), (4, 0x0f0f_0f0f_0f0f_0f0f)];
        const HIGH: [(u32, u64); 3] =
            [(24, 0x0000_00ff_0000_00ff), (12, 0x000f_000f_000f_000f), (6, 0x0303_0303_0303_0303)];
        let (low, high) = (spread(u64::from(low), LOW), spread(u64::from(high), HIGH));
        // Less 32, in every byte at once: none is above 63, so no borrow crosses.
        let signed = ((low | high << 4) | 0x8080_8080_8080_8080) - 0x2020_2020_2020_2020;
        let signed = signed ^ 0x8080_8080_8080_8080;
        m.store(m.mul(m.splat(m.f16(b)), m.widen_i8(signed)), &mut out.s);
    }
    #[inline(always)]
    fn codes<M: Isa>(m: M, _: &(), b: &[u8], i: usize) -> M::B {
        m.lookup(&IQ4_CODES, m.nibbles(&b[8 + 16 * i..]))
    }
}

/// Eight fields of a number, lowest first, each to a byte of its own: halve the stretches that stay together three times.
#[inline(always)]
fn spread(x: u64, steps: [(u32, u64); 3]) -> u64 {
    let mut x = x;
    for (shift, kept) in steps {
        x = (x | x << shift) & kept;
    }
    x
}

/// Eight scales and eight minimums of six bits (Q4_K, Q5_K).
#[inline(always)]
pub(super) fn six_bit_pairs(b: &[u8]) -> (u64, u64) {
    let (a, c, d) = (u32_at(b, 0), u32_at(b, 4), u32_at(b, 8));
    let six = 0x3f3f_3f3f;
    let (four, two) = (0x0f0f_0f0f, 0x0303_0303);
    let scales = join(a & six, (d & four) | ((a >> 6) & two) << 4);
    let mins = join(c & six, ((d >> 4) & four) | ((c >> 6) & two) << 4);
    (scales, mins)
}
