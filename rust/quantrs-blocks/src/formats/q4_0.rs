//! Q4_0: blocks of 32 with one scale and four-bit levels.

use crate::along::{
    BLOCK_LEN, GROUP, decode_nibbles, group_scales, group_signed_max, inverse, pack_nibbles, store_nibbles,
};
use crate::format::Rows;
use crate::lanes::MAX_LANES;
use crate::pack::{get_f16, put_f16};
use crate::row_weights;
use crate::search::{signed_max, sym, sym_ref};
use quantrs_simd::{Level, Simd, dispatch, trunc_i32};
use std::array::from_fn;

const BLOCK_BYTES: usize = 18;
/// Levels are -NMAX..NMAX, stored with NMAX added.
const NMAX: i32 = 8;

/// Format    32 values -> 18 bytes: d (f16), qs[16]; byte j = value j (low nibble), value j+16 (high). 4.5 bpw
/// Value     w ~ d * (q - 8), q in 0..=15
/// Search    d = the value of largest magnitude, sign kept, / -8; first one on a tie. With importance `search::sym`,
///           weights as in `row_weights`
/// Rounding  q = min(15, trunc(w * id + 8.5)); id = 1/d in f32, before d is rounded to f16. With importance the levels that
///           the search left
/// Edges     zero block: d = -0, all q = 8; with importance d = 0, all q = 0. 1/d infinite: all q = 0
/// Shapes    rows: f32[n], n % 32 == 0; out: u8[n / 32 * 18]
/// Exact     bytes equal `quantize_row_q4_0_ref` and `quantize_q4_0`, ggml 0.25.3, FP contraction off
/// Source    ggml `src/ggml-quants.c` at llama.cpp 0c1e57098
pub(crate) fn quantize_ref(rows: Rows<'_>, out: &mut [u8]) {
    if let Some(importance) = rows.importance {
        row_weights::for_each_block_ref(rows, importance, out, BLOCK_BYTES, |x, weights, out| {
            let fit = sym_ref(NMAX, x, weights);
            put_f16(out, fit.scale);
            let levels = from_fn(|i| fit.level(x[i], NMAX));
            pack_nibbles(&levels, &mut out[2..]);
        });
        return;
    }
    for (x, out) in rows.x.chunks_exact(BLOCK_LEN).zip(out.chunks_exact_mut(BLOCK_BYTES)) {
        let d = signed_max(x) / -(NMAX as f32);
        let id = inverse(d);
        put_f16(out, d);
        let levels = from_fn(|i| (trunc_i32(x[i] * id + (NMAX as f32 + 0.5)) as i8).min(2 * NMAX as i8 - 1) as u8);
        pack_nibbles(&levels, &mut out[2..]);
    }
}

/// As [`quantize_ref`]: along the blocks without importance, one block per lane with it.
pub(crate) fn quantize(level: Level, rows: Rows<'_>, out: &mut [u8]) {
    dispatch!(level, s => quantize_lanes(s, rows, out), scalar => quantize_ref(rows, out));
}

#[inline(always)]
fn quantize_lanes<S: Simd>(s: S, rows: Rows<'_>, out: &mut [u8]) {
    if rows.importance.is_some() {
        quantize_weighted_lanes(s, rows, out);
        return;
    }
    for (x, out) in rows.x.chunks(GROUP * BLOCK_LEN).zip(out.chunks_mut(GROUP * BLOCK_BYTES)) {
        let scales = group_scales(s, &group_signed_max(s, x), -(NMAX as f32));
        for (b, (x, out)) in x.chunks_exact(BLOCK_LEN).zip(out.chunks_exact_mut(BLOCK_BYTES)).enumerate() {
            out[..2].copy_from_slice(&scales.f16[b]);
            let id = s.splat(scales.inverse[b]);
            // x * id stays within rounding of -8..=8. Where 1/d is infinite it is infinite or NaN: `trunc` gives i32::MIN,
            // whose low bits are 0, as the reference's casts do.
            store_nibbles(
                s,
                &mut out[2..],
                #[inline(always)]
                |i| {
                    let v = s.add(s.mul(s.load(&x[i..]), id), s.splat(NMAX as f32 + 0.5));
                    s.imin(s.trunc(v), s.isplat(2 * NMAX - 1))
                },
            );
        }
    }
}

#[inline(always)]
fn quantize_weighted_lanes<S: Simd>(s: S, rows: Rows<'_>, out: &mut [u8]) {
    row_weights::for_each_block(
        s,
        rows,
        out,
        BLOCK_BYTES,
        #[inline(always)]
        |x, weights| {
            let fit = sym(s, NMAX, x, weights);
            let mut lanes = [[0.0; MAX_LANES]; 2];
            s.store(fit.scale, &mut lanes[0]);
            s.store(fit.iscale, &mut lanes[1]);
            lanes
        },
        #[inline(always)]
        |x, [scale, iscale]: &[[f32; MAX_LANES]; 2], lane, out| {
            put_f16(out, scale[lane]);
            // A block that counts as zero has level 0, not NMAX.
            let offset = s.isplat(if iscale[lane] == 0.0 { 0 } else { NMAX });
            let iscale = s.splat(iscale[lane]);
            store_nibbles(
                s,
                &mut out[2..],
                #[inline(always)]
                |i| {
                    let l = s.nearest_int(s.mul(iscale, s.load(&x[i..])));
                    s.iadd(s.imin(s.imax(l, s.isplat(-NMAX)), s.isplat(NMAX - 1)), offset)
                },
            );
        },
    );
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
            |q| s.mul(d, s.to_f32(s.isub(q, s.isplat(NMAX)))),
        );
    }
}

fn dequantize_ref(packed: &[u8], out: &mut [f32]) {
    for (b, out) in packed.chunks_exact(BLOCK_BYTES).zip(out.chunks_exact_mut(BLOCK_LEN)) {
        let d = get_f16(b);
        let (low, high) = out.split_at_mut(BLOCK_LEN / 2);
        for ((q, low), high) in b[2..].iter().zip(low).zip(high) {
            *low = d * (i32::from(q & 15) - NMAX) as f32;
            *high = d * (i32::from(q >> 4) - NMAX) as f32;
        }
    }
}
