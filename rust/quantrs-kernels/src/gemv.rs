//! One input column: rows are read once, unpacked in registers and multiplied; memory is the limit.

use crate::activations::Span;
use crate::isa::Isa;
use crate::unpack::{SPAN, Scales, Unpack};

/// Rows that are worked on at the same time.
pub(crate) const ROWS: usize = 4;

/// Dot products of rows with one column, its spans `n` apart.
///
/// Per 32 weights the integer dot product is scaled and added in 8 lanes, spans and groups in order; then the lanes are summed.
#[inline(always)]
pub(crate) fn dot_rows<M: Isa, F: Unpack>(
    m: M,
    rows: [&[u8]; ROWS],
    n_cols: usize,
    x: &[Span],
    n: usize,
) -> [f32; ROWS] {
    let mut acc = [m.splat(0.0); ROWS];
    let mut scales = [Scales::ZERO; ROWS];
    for (at, x) in x.iter().step_by(n).enumerate() {
        let n_chunks = (n_cols - at * SPAN).min(SPAN) / 32;
        let start = at * F::SPAN_BYTES;
        let bytes = n_chunks * 32 / F::BLOCK_LEN * F::BLOCK_BYTES;
        let spans = rows.map(
            #[inline(always)]
            |row| &row[start..start + bytes],
        );
        // Not `map`: its closure is not always inlined, and vector operations outside are slow.
        let mut states = [None; ROWS];
        for r in 0..ROWS {
            states[r] = Some(F::scales(m, spans[r], n_chunks * 32 / F::GROUP, &mut scales[r]));
            acc[r] = with_activations::<M, F>(m, &mut scales[r], x, acc[r]);
        }
        for i in 0..n_chunks {
            let codes = m.load_bytes(&bytes_of(&x.codes)[32 * i..]);
            // -OFFSET times the sum of the codes of each lane.
            let start = m.isplat(0);
            let start =
                if F::OFFSET == 0 { start } else { m.isub(start, m.dot(true, start, m.splat_byte(F::OFFSET), codes)) };
            for r in 0..ROWS {
                let state = states[r].as_ref().expect("set above");
                let dot = m.dot(F::BYTE, start, F::codes(m, state, spans[r], i), codes);
                let s = &scales[r].s;
                let scale = if F::GROUP == 32 { m.splat(s[i]) } else { m.pair(s[2 * i], s[2 * i + 1]) };
                acc[r] = m.fma(m.to_f32(dot), scale, acc[r]);
            }
        }
    }
    let mut sums = [0.0; ROWS];
    for r in 0..ROWS {
        sums[r] = m.sum(acc[r]);
    }
    sums
}

/// Multiply the scales with those of the activations, and take the minimums into account.
#[inline(always)]
fn with_activations<M: Isa, F: Unpack>(m: M, scales: &mut Scales, x: &Span, acc: M::F) -> M::F {
    let Scales { s, m: mins } = scales;
    let x_scales = m.load(&x.scales);
    if F::GROUP == 32 {
        m.store(m.mul(m.load(s), x_scales), s);
        if F::MINS { m.fma(m.load(mins), m.load(&x.sums_32), acc) } else { acc }
    } else {
        let (low, high) = m.twice_each(x_scales);
        m.store(m.mul(m.load(s), low), s);
        m.store(m.mul(m.load(&s[8..]), high), &mut s[8..]);
        if F::MINS {
            let acc = m.fma(m.load(mins), m.load(&x.sums_16), acc);
            m.fma(m.load(&mins[8..]), m.load(&x.sums_16[8..]), acc)
        } else {
            acc
        }
    }
}

/// The same bytes, unsigned.
#[inline(always)]
fn bytes_of(codes: &[i8; SPAN]) -> &[u8; SPAN] {
    // SAFETY: i8 and u8 have the same size, alignment and valid values.
    unsafe { &*std::ptr::from_ref(codes).cast() }
}
