//! Q4_1: blocks of 32 with a scale, a minimum and four-bit levels.

use crate::along::{
    BLOCK_LEN, GROUP, decode_nibbles, group_scales, inverse, min_max, min_max_along, pack_nibbles, store_nibbles,
};
use crate::format::Rows;
use crate::lanes::MAX_LANES;
use crate::pack::{get_f16, put_f16};
use crate::row_weights;
use crate::search::{MinMax, minmax, minmax_ref};
use quantrs_simd::{Level, Simd, dispatch, trunc_i32};
use std::array::from_fn;

const BLOCK_BYTES: usize = 20;
/// Largest level.
const NMAX: i32 = 15;
const WEIGHTED: MinMax = MinMax { nmax: NMAX, rmin: -0.9, rdelta: 0.05, nstep: 36, mad: false };

/// Format    32 values -> 20 bytes: d (f16), m (f16), qs[16]; byte j = value j (low nibble), value j+16 (high). 5 bpw
/// Value     w ~ d * q + m, q in 0..=15
/// Search    m = the minimum, d = (maximum - minimum) / 15. With importance `search::minmax`, weights as in `row_weights`
/// Rounding  q = min(15, trunc((w - min) * id + 0.5)); id = 1/d in f32; d and min before their f16 rounding.
///           With importance the levels that the search left
/// Edges     constant block: d = 0, all q = 0, m the first value (of zeros, that one's sign). 1/d infinite: all q = 0
/// Shapes    rows: f32[n], n % 32 == 0; out: u8[n / 32 * 20]
/// Exact     bytes equal `quantize_row_q4_1_ref` and `quantize_q4_1`, ggml 0.25.3, FP contraction off
/// Source    ggml `src/ggml-quants.c` at llama.cpp 0c1e57098
pub(crate) fn quantize_ref(rows: Rows<'_>, out: &mut [u8]) {
    if let Some(importance) = rows.importance {
        row_weights::for_each_block_ref(rows, importance, out, BLOCK_BYTES, |x, weights, out| {
            let fit = minmax_ref(&WEIGHTED, x, weights);
            put_f16(out, fit.scale);
            put_f16(&mut out[2..], -fit.minus_min);
            let levels = from_fn(|i| fit.level(x[i], NMAX));
            pack_nibbles(&levels, &mut out[4..]);
        });
        return;
    }
    for (x, out) in rows.x.chunks_exact(BLOCK_LEN).zip(out.chunks_exact_mut(BLOCK_BYTES)) {
        let (min, max) = min_max(x);
        let d = (max - min) / NMAX as f32;
        let id = inverse(d);
        put_f16(out, d);
        put_f16(&mut out[2..], min);
        let levels = from_fn(|i| (trunc_i32((x[i] - min) * id + 0.5) as i8).min(NMAX as i8) as u8);
        pack_nibbles(&levels, &mut out[4..]);
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
        let (mut mins, mut spans) = ([0.0; GROUP], [0.0; GROUP]);
        for ((min, span), x) in mins.iter_mut().zip(&mut spans).zip(x.chunks_exact(BLOCK_LEN)) {
            let (lowest, highest) = min_max_along(s, x);
            (*min, *span) = (lowest, highest - lowest);
        }
        let scales = group_scales(s, &spans, NMAX as f32);
        for (b, (x, out)) in x.chunks_exact(BLOCK_LEN).zip(out.chunks_exact_mut(BLOCK_BYTES)).enumerate() {
            out[..2].copy_from_slice(&scales.f16[b]);
            put_f16(&mut out[2..], mins[b]);
            let (min, id) = (s.splat(mins[b]), s.splat(scales.inverse[b]));
            // Where 1/d is infinite the sum is infinite or NaN: `trunc` gives i32::MIN, whose low bits are 0, as the
            // reference's casts do.
            store_nibbles(
                s,
                &mut out[4..],
                #[inline(always)]
                |i| {
                    let v = s.add(s.mul(s.sub(s.load(&x[i..]), min), id), s.splat(0.5));
                    s.imin(s.trunc(v), s.isplat(NMAX))
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
            let fit = minmax(s, &WEIGHTED, x, weights);
            let mut lanes = [[0.0; MAX_LANES]; 4];
            for (lanes, v) in lanes.iter_mut().zip([fit.scale, fit.minus_min, fit.iscale, fit.level_min]) {
                s.store(v, lanes);
            }
            lanes
        },
        #[inline(always)]
        |x, [scale, minus_min, iscale, level_min]: &[[f32; MAX_LANES]; 4], lane, out| {
            put_f16(out, scale[lane]);
            put_f16(&mut out[2..], -minus_min[lane]);
            let (iscale, min) = (s.splat(iscale[lane]), s.splat(level_min[lane]));
            store_nibbles(
                s,
                &mut out[4..],
                #[inline(always)]
                |i| {
                    let l = s.nearest_int(s.mul(iscale, s.sub(s.load(&x[i..]), min)));
                    s.imin(s.imax(l, s.isplat(0)), s.isplat(NMAX))
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
        let (d, m) = (s.splat(get_f16(b)), s.splat(get_f16(&b[2..])));
        decode_nibbles(
            s,
            &b[4..],
            out,
            #[inline(always)]
            |q| s.add(s.mul(d, s.to_f32(q)), m),
        );
    }
}

fn dequantize_ref(packed: &[u8], out: &mut [f32]) {
    for (b, out) in packed.chunks_exact(BLOCK_BYTES).zip(out.chunks_exact_mut(BLOCK_LEN)) {
        let (d, m) = (get_f16(b), get_f16(&b[2..]));
        let (low, high) = out.split_at_mut(BLOCK_LEN / 2);
        for ((q, low), high) in b[4..].iter().zip(low).zip(high) {
            *low = d * f32::from(q & 15) + m;
            *high = d * f32::from(q >> 4) + m;
        }
    }
}
