//! IQ4_NL: blocks of 32 with one scale and four-bit codes of 16 uneven levels.

use crate::along::{BLOCK_LEN, decode_nibbles, inverse, pack_nibbles, store_nibbles};
use crate::format::Rows;
use crate::lanes::{MAX_LANES, load_lanes, sum_of_squares_ref};
use crate::pack::{get_f16, put_f16};
use crate::row_weights::weights;
use crate::search::{IQ4_VALUES, iq4, iq4_ref, nearest_level, nearest_level_ref};
use quantrs_simd::{Level, Simd, dispatch};
use std::array::from_fn;

const BLOCK_BYTES: usize = 18;

/// Format    32 values -> 18 bytes: d (f16), qs[16]; byte j = value j (low nibble), value j+16 (high). 4.5 bpw
/// Value     w ~ d * V[q], V = `search::IQ4_VALUES`
/// Search    `search::iq4`, weights x^2; with importance w * sqrt(sigma2 + x^2), sigma2 = twice the mean square of the block
/// Rounding  q = nearest level of w * id, the upper on a tie; id = 1/d in f32, before d is rounded to f16
/// Edges     largest magnitude below 1e-15: d = 0, all q = 8
/// Shapes    rows: f32[n], n % 32 == 0; out: u8[n / 32 * 18]
/// Exact     bytes equal `quantize_row_iq4_nl_ref` and `quantize_iq4_nl`, ggml 0.25.3, FP contraction off
/// Source    ggml `src/ggml-quants.c` at llama.cpp 0c1e57098
pub(crate) fn quantize_ref(rows: Rows<'_>, out: &mut [u8]) {
    for (i, out) in out.chunks_exact_mut(BLOCK_BYTES).enumerate() {
        let x = rows.block(i, BLOCK_LEN);
        let sigma2 = sum_of_squares_ref(x) * (2.0 / BLOCK_LEN as f32);
        let weights: [f32; BLOCK_LEN] = match rows.block_importance(i, BLOCK_LEN) {
            Some(w) => from_fn(|i| w[i] * (sigma2 + x[i] * x[i]).sqrt()),
            None => from_fn(|i| x[i] * x[i]),
        };
        let d = iq4_ref(x, &weights);
        let id = inverse(d);
        put_f16(out, d);
        pack_nibbles(&from_fn(|i| nearest_level_ref(x[i] * id)), &mut out[2..]);
    }
}

/// As [`quantize_ref`], one block per lane.
pub(crate) fn quantize(level: Level, rows: Rows<'_>, out: &mut [u8]) {
    dispatch!(level, s => quantize_lanes(s, rows, out), scalar => quantize_ref(rows, out));
}

#[inline(always)]
fn quantize_lanes<S: Simd>(s: S, rows: Rows<'_>, out: &mut [u8]) {
    let n_blocks = out.len() / BLOCK_BYTES;
    for (group, out) in out.chunks_mut(S::LANES * BLOCK_BYTES).enumerate() {
        let first = group * S::LANES;
        // Lanes past the last block repeat it.
        let block = |lane: usize| (first + lane).min(n_blocks - 1);
        let x = load_lanes::<S, BLOCK_LEN>(s, |j| rows.block(block(j), BLOCK_LEN));
        let mut squares = x;
        let mut sum = s.splat(0.0);
        for square in &mut squares {
            *square = s.mul(*square, *square);
            sum = s.add(sum, *square);
        }
        let d = if rows.importance.is_some() {
            let w = load_lanes::<S, BLOCK_LEN>(s, |j| rows.block_importance(block(j), BLOCK_LEN).unwrap_or_default());
            let sigma2 = s.mul(sum, s.splat(2.0 / BLOCK_LEN as f32));
            iq4(s, &x, &weights(s, &w, sigma2, &x))
        } else {
            iq4(s, &x, &squares)
        };
        let mut scales = [0.0; MAX_LANES];
        s.store(d, &mut scales);
        for (lane, out) in out.chunks_exact_mut(BLOCK_BYTES).enumerate() {
            put_f16(out, scales[lane]);
            let x = rows.block(first + lane, BLOCK_LEN);
            let id = s.splat(inverse(scales[lane]));
            store_nibbles(
                s,
                &mut out[2..],
                #[inline(always)]
                |i| nearest_level(s, s.mul(s.load(&x[i..]), id)),
            );
        }
    }
}

/// Inverse of [`quantize`].
pub(crate) fn dequantize(level: Level, packed: &[u8], out: &mut [f32]) {
    dispatch!(level, s => dequantize_lanes(s, packed, out), scalar => dequantize_ref(packed, out));
}

#[inline(always)]
fn dequantize_lanes<S: Simd>(s: S, packed: &[u8], out: &mut [f32]) {
    for (b, out) in packed.chunks_exact(BLOCK_BYTES).zip(out.chunks_exact_mut(BLOCK_LEN)) {
        let d = s.splat(get_f16(b));
        decode_nibbles(
            s,
            &b[2..],
            out,
            #[inline(always)]
            |q| s.mul(d, s.lookup32(&IQ4_VALUES, q)),
        );
    }
}

fn dequantize_ref(packed: &[u8], out: &mut [f32]) {
    for (b, out) in packed.chunks_exact(BLOCK_BYTES).zip(out.chunks_exact_mut(BLOCK_LEN)) {
        let d = get_f16(b);
        let (low, high) = out.split_at_mut(BLOCK_LEN / 2);
        for ((q, low), high) in b[2..].iter().zip(low).zip(high) {
            *low = d * IQ4_VALUES[usize::from(q & 15)];
            *high = d * IQ4_VALUES[usize::from(q >> 4)];
        }
    }
}
