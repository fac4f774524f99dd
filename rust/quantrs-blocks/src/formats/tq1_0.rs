//! TQ1_0: ternary blocks of 256, five values in a byte.

use super::ternary::{store_trits, trit_ref};
use crate::along::{abs_max, abs_max_along, inverse};
use crate::format::Rows;
use crate::pack::{get_f16, put_f16};
use quantrs_simd::{Level, Simd, dispatch};

const BLOCK_LEN: usize = 256;
const BLOCK_BYTES: usize = 54;
/// Where the four-trit bytes and the scale lie.
const QH: usize = 48;
const D: usize = 52;

/// The runs of bytes that are packed alike: (first byte, bytes, first element, trits per byte). Byte m of a run holds the
/// elements first + m, first + m + bytes, first + m + 2 * bytes, ...
const RUNS: [(usize, usize, usize, usize); 3] = [(0, 32, 0, 5), (32, 16, 160, 5), (QH, 4, 240, 4)];

/// Format    256 values -> 54 bytes: qs[48], qh[4], d (f16); 1.6875 bpw. Five trits are a number in base 3, its first-named
///           element most significant (`RUNS`; qh: four trits and a zero); stored is that number scaled from 243 to 256
/// Value     w ~ d * (t - 1), t in 0..=2
/// Search    d = largest magnitude
/// Rounding  t = round_half_away(w / d) + 1 with 1/d in f32, before d is rounded to f16; byte = ceil(number * 256 / 243)
/// Edges     zero block: d = 0, all t = 1; 1/d infinite (largest magnitude below 2^-128): all t = 1
/// Shapes    rows: f32[n], n % 256 == 0; out: u8[n / 256 * 54]
/// Exact     bytes equal `quantize_row_tq1_0_ref`, ggml 0.25.3, FP contraction off
/// Source    ggml `src/ggml-quants.c` at llama.cpp 0c1e57098
pub(crate) fn quantize_ref(rows: Rows<'_>, out: &mut [u8]) {
    for (x, out) in rows.x.chunks_exact(BLOCK_LEN).zip(out.chunks_exact_mut(BLOCK_BYTES)) {
        let d = abs_max(x);
        let id = inverse(d);
        for (first_byte, n_bytes, first, n_trits) in RUNS {
            for m in 0..n_bytes {
                let mut number = 0u32;
                for n in 0..5 {
                    let t = if n < n_trits { trit_ref(x[first + m + n * n_bytes] * id) } else { 0 };
                    number = number * 3 + u32::from(t);
                }
                out[first_byte + m] = (number * 256).div_ceil(243) as u8;
            }
        }
        put_f16(&mut out[D..], d);
    }
}

/// As [`quantize_ref`], along the block: nothing but the largest magnitude crosses elements.
pub(crate) fn quantize(level: Level, rows: Rows<'_>, out: &mut [u8]) {
    dispatch!(level, s => quantize_along(s, rows, out), scalar => quantize_ref(rows, out));
}

#[inline(always)]
fn quantize_along<S: Simd>(s: S, rows: Rows<'_>, out: &mut [u8]) {
    for (x, out) in rows.x.chunks_exact(BLOCK_LEN).zip(out.chunks_exact_mut(BLOCK_BYTES)) {
        let d = abs_max_along(s, x);
        let id = inverse(d);
        let mut t = [0u8; BLOCK_LEN];
        store_trits(s, x, id, 1, &mut t);
        pack_run::<32, 5>(&t[..160], &mut out[..32]);
        pack_run::<16, 5>(&t[160..240], &mut out[32..QH]);
        pack_run::<4, 4>(&t[240..], &mut out[QH..D]);
        put_f16(&mut out[D..], d);
    }
}

/// Pack `BYTES * TRITS` trits; 16 bits hold the scaled number: 242 * 256 < 2^16.
#[inline(always)]
fn pack_run<const BYTES: usize, const TRITS: usize>(t: &[u8], out: &mut [u8]) {
    let (t, out) = (&t[..BYTES * TRITS], &mut out[..BYTES]);
    for m in 0..BYTES {
        let mut number = 0u16;
        for n in 0..TRITS {
            number = number * 3 + u16::from(t[m + n * BYTES]);
        }
        out[m] = (number * 3u16.pow(5 - TRITS as u32) * 256).div_ceil(243) as u8;
    }
}

/// Inverse of [`quantize`].
pub(crate) fn dequantize(level: Level, packed: &[u8], out: &mut [f32]) {
    level.run(
        #[inline(always)]
        || {
            for (b, out) in packed.chunks_exact(BLOCK_BYTES).zip(out.chunks_exact_mut(BLOCK_LEN)) {
                let d = get_f16(&b[D..]);
                unpack_run::<32, 5>(&b[..32], d, &mut out[..160]);
                unpack_run::<16, 5>(&b[32..QH], d, &mut out[160..240]);
                unpack_run::<4, 4>(&b[QH..D], d, &mut out[240..]);
            }
        },
    );
}

/// Digit n of a byte: drop the digits before it (multiply by 3^n, keep eight bits), then its multiple of 256/3.
#[inline(always)]
fn unpack_run<const BYTES: usize, const TRITS: usize>(b: &[u8], d: f32, out: &mut [f32]) {
    let (b, out) = (&b[..BYTES], &mut out[..BYTES * TRITS]);
    for (n, power) in [1u8, 3, 9, 27, 81][..TRITS].iter().enumerate() {
        for (b, out) in b.iter().zip(&mut out[n * BYTES..][..BYTES]) {
            let t = (u16::from(b.wrapping_mul(*power)) * 3) >> 8;
            *out = (f32::from(t) - 1.0) * d;
        }
    }
}
