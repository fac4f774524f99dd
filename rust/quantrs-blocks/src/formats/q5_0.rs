//! Q5_0: blocks of 32 with one scale and five-bit levels.

use crate::along::{BLOCK_LEN, GROUP, group_scales, group_signed_max, inverse, pack_five_bits, store_five_bits};
use crate::format::Rows;
use crate::lanes::MAX_LANES;
use crate::pack::{get_f16, put_f16};
use crate::row_weights;
use crate::search::{signed_max, sym, sym_ref};
use quantrs_simd::{Level, Simd, dispatch, trunc_i32};
use std::array::from_fn;

const BLOCK_BYTES: usize = 22;
/// Levels are -NMAX..NMAX, stored with NMAX added.
const NMAX: i32 = 16;

/// Format    32 values -> 22 bytes: d (f16), qh (u32), qs[16]; low nibble of byte j = low four bits of value j, high nibble
///           those of value j+16; bit e of qh = bit 4 of value e. 5.5 bpw
/// Value     w ~ d * (q - 16), q in 0..=31
/// Search    d = the value of largest magnitude, sign kept, / -16; first one on a tie. With importance `search::sym`,
///           weights as in `row_weights`
/// Rounding  q = min(31, trunc(w * id + 16.5)); id = 1/d in f32, before d is rounded to f16. With importance the levels that
///           the search left
/// Edges     zero block: d = -0, all q = 16; with importance d = 0, all q = 0. 1/d infinite: all q = 0
/// Shapes    rows: f32[n], n % 32 == 0; out: u8[n / 32 * 22]
/// Exact     bytes equal `quantize_row_q5_0_ref` and `quantize_q5_0`, ggml 0.25.3, FP contraction off
/// Source    ggml `src/ggml-quants.c` at llama.cpp 0c1e57098
pub(crate) fn quantize_ref(rows: Rows<'_>, out: &mut [u8]) {
    if let Some(importance) = rows.importance {
        row_weights::for_each_block_ref(rows, importance, out, BLOCK_BYTES, |x, weights, out| {
            let fit = sym_ref(NMAX, x, weights);
            put_f16(out, fit.scale);
            let levels = from_fn(|i| fit.level(x[i], NMAX));
            let (qh, qs) = out[2..].split_at_mut(4);
            pack_five_bits(&levels, qh, qs);
        });
        return;
    }
    for (x, out) in rows.x.chunks_exact(BLOCK_LEN).zip(out.chunks_exact_mut(BLOCK_BYTES)) {
        let d = signed_max(x) / -(NMAX as f32);
        let id = inverse(d);
        put_f16(out, d);
        let levels = from_fn(|i| (trunc_i32(x[i] * id + (NMAX as f32 + 0.5)) as i8).min(2 * NMAX as i8 - 1) as u8);
        let (qh, qs) = out[2..].split_at_mut(4);
        pack_five_bits(&levels, qh, qs);
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
            // x * id stays within rounding of -16..=16. Where 1/d is infinite it is infinite or NaN: `trunc` gives i32::MIN,
            // whose low bits are 0, as the reference's casts do.
            let (qh, qs) = out[2..].split_at_mut(4);
            store_five_bits(
                s,
                qh,
                qs,
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
            let (qh, qs) = out[2..].split_at_mut(4);
            store_five_bits(
                s,
                qh,
                qs,
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
    level.run(
        #[inline(always)]
        || {
            for (b, out) in packed.chunks_exact(BLOCK_BYTES).zip(out.chunks_exact_mut(BLOCK_LEN)) {
                let d = get_f16(b);
                let qh = u32::from_le_bytes([b[2], b[3], b[4], b[5]]);
                let qs: &[u8; 16] = b[6..].try_into().expect("16 bytes");
                let (low, high) = out.split_at_mut(BLOCK_LEN / 2);
                for j in 0..BLOCK_LEN / 2 {
                    let (bit_low, bit_high) = (qh >> j << 4 & 16, qh >> (j + 12) & 16);
                    low[j] = d * (i32::from(qs[j] & 15) + bit_low as i32 - NMAX) as f32;
                    high[j] = d * (i32::from(qs[j] >> 4) + bit_high as i32 - NMAX) as f32;
                }
            }
        },
    );
}
