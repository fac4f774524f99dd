//! One input column: rows are read once, unpacked in registers and multiplied; memory is the limit.

use crate::activations::Span;
use crate::isa::Isa;
use crate::unpack::{SPAN, Scales, Unpack};

/// How far ahead of its use memory is asked for, in bytes: the hardware alone brings half the speed.
pub(crate) const AHEAD: usize = 4096;

/// Dot product of one row with one column, its spans `n` apart.
///
/// Per 32 weights the integer dot product is scaled and added in lanes, to two accumulators in turn; then all are summed. The
/// offset of u is made up for as a minimum of `-OFFSET * s` would be: once per group instead of once per byte.
#[inline(always)]
pub(crate) fn dot_row<M: Isa, F: Unpack>(m: M, row: &[u8], n_cols: usize, x: &[Span], n: usize) -> f32 {
    let mut rest = m.splat(0.0);
    let mut acc = [m.row_zero(); 2];
    let mut scales = Scales::ZERO;
    for (at, x) in x.iter().step_by(n).enumerate() {
        let n_chunks = (n_cols - at * SPAN).min(SPAN) / 32;
        let bytes = n_chunks * 32 / F::BLOCK_LEN * F::BLOCK_BYTES;
        let b = &row[at * F::SPAN_BYTES..][..bytes];
        for line in (0..F::SPAN_BYTES).step_by(64) {
            m.prefetch(b.as_ptr().wrapping_add(AHEAD + line));
        }
        let state = F::scales(m, b, n_chunks * 32 / F::GROUP, &mut scales);
        rest = with_activations::<M, F>(m, &mut scales, x, rest);
        if n_chunks == SPAN / 32 {
            // A constant length lets the compiler drop the checks of what is read; spelled out, all shifts are constant.
            let b = &b[..F::SPAN_BYTES];
            let codes = bytes_of(&x.codes);
            acc[0] = add_pair::<M, F>(m, 0, &state, b, codes, &scales, acc[0]);
            acc[1] = add_pair::<M, F>(m, 1, &state, b, codes, &scales, acc[1]);
            acc[0] = add_pair::<M, F>(m, 2, &state, b, codes, &scales, acc[0]);
            acc[1] = add_pair::<M, F>(m, 3, &state, b, codes, &scales, acc[1]);
        } else {
            for i in 0..n_chunks {
                let codes = m.load_bytes(&bytes_of(&x.codes)[32 * i..]);
                let dot = m.dot(F::BYTE, m.isplat(0), F::codes(m, &state, b, i), codes);
                let s = &scales.s;
                let scale = if F::GROUP == 32 { m.splat(s[i]) } else { m.pair(&s[2 * i..]) };
                rest = m.fma(m.to_f32(dot), scale, rest);
            }
        }
    }
    m.row_sum(acc, rest)
}

/// Add the products of the 64 weights `64 * i..` of a full span.
#[inline(always)]
fn add_pair<M: Isa, F: Unpack>(
    m: M,
    i: usize,
    state: &F::State,
    b: &[u8],
    codes: &[u8; SPAN],
    scales: &Scales,
    acc: M::Row,
) -> M::Row {
    let u = [F::codes(m, state, b, 2 * i), F::codes(m, state, b, 2 * i + 1)];
    m.row_add(F::BYTE, F::GROUP, i, u, codes, &scales.s, acc)
}

/// Multiply the scales with those of the activations, and take offset and minimums into account.
#[inline(always)]
fn with_activations<M: Isa, F: Unpack>(m: M, scales: &mut Scales, x: &Span, mut acc: M::F) -> M::F {
    let x_scales = m.load(&x.scales);
    let offset = m.splat(-f32::from(F::OFFSET));
    let (halves, x_scales): (usize, [M::F; 2]) = if F::GROUP == 32 || F::BY_SPAN {
        (SPAN / F::GROUP / 8, [x_scales; 2])
    } else {
        let (low, high) = m.twice_each(x_scales);
        (2, [low, high])
    };
    for (h, x_scale) in x_scales.into_iter().take(halves).enumerate() {
        let s = m.load(&scales.s[8 * h..]);
        let scaled = m.mul(s, x_scale);
        let mins = match (F::MINS, F::BY_SPAN) {
            (true, true) => m.mul(m.load(&scales.m[8 * h..]), x_scale),
            (true, false) => m.load(&scales.m[8 * h..]),
            (false, true) => m.mul(scaled, offset),
            (false, false) => m.mul(s, offset),
        };
        let sums = if F::GROUP == 32 { m.load(&x.sums_32) } else { m.load(&x.sums_16[8 * h..]) };
        acc = m.fma(mins, sums, acc);
        m.store(scaled, &mut scales.s[8 * h..]);
    }
    acc
}

/// The same bytes, unsigned.
#[inline(always)]
fn bytes_of(codes: &[i8; SPAN]) -> &[u8; SPAN] {
    // SAFETY: i8 and u8 have the same size, alignment and valid values.
    unsafe { &*std::ptr::from_ref(codes).cast() }
}
