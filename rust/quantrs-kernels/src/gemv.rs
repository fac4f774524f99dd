//! One input column: rows are read once, unpacked in registers and multiplied; memory is the limit.

#![expect(
    clippy::needless_range_loop,
    reason = "indices over registers are plainer than zipped iterators, and always unrolled"
)]

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
            // The same span of the next group of rows: a kibibyte per row is too short for the hardware to notice a pattern.
            let ahead = spans[r].as_ptr().wrapping_add(ROWS * rows[r].len());
            for line in (0..F::SPAN_BYTES).step_by(64) {
                m.prefetch(ahead.wrapping_add(line));
            }
            states[r] = Some(F::scales(m, spans[r], n_chunks * 32 / F::GROUP, &mut scales[r]));
            acc[r] = with_activations::<M, F>(m, &mut scales[r], x, acc[r]);
        }
        let chunks = Chunks::<F> { x, spans, states: &states, scales: &scales };
        if n_chunks == SPAN / 32 {
            // Spelled out, so that what depends on the chunk is constant.
            acc = chunks.add(m, 0, acc);
            acc = chunks.add(m, 1, acc);
            acc = chunks.add(m, 2, acc);
            acc = chunks.add(m, 3, acc);
            acc = chunks.add(m, 4, acc);
            acc = chunks.add(m, 5, acc);
            acc = chunks.add(m, 6, acc);
            acc = chunks.add(m, 7, acc);
        } else {
            for i in 0..n_chunks {
                acc = chunks.add(m, i, acc);
            }
        }
    }
    let mut sums = [0.0; ROWS];
    for r in 0..ROWS {
        sums[r] = m.sum(acc[r]);
    }
    sums
}

/// A span of each row with that of the column.
struct Chunks<'a, F: Unpack> {
    x: &'a Span,
    spans: [&'a [u8]; ROWS],
    states: &'a [Option<F::State>; ROWS],
    scales: &'a [Scales; ROWS],
}

impl<F: Unpack> Chunks<'_, F> {
    /// Add the products of the 32 weights `32 * i..`.
    #[inline(always)]
    fn add<M: Isa>(&self, m: M, i: usize, mut acc: [M::F; ROWS]) -> [M::F; ROWS] {
        let codes = m.load_bytes(&bytes_of(&self.x.codes)[32 * i..]);
        // -OFFSET times the sum of the codes of each lane.
        let mut start = m.isplat(0);
        if F::OFFSET != 0 {
            start = m.isub(start, m.dot(true, start, m.splat_byte(F::OFFSET), codes));
        }
        for r in 0..ROWS {
            let state = self.states[r].as_ref().expect("set for all rows");
            let dot = m.dot(F::BYTE, start, F::codes(m, state, self.spans[r], i), codes);
            let s = &self.scales[r].s;
            let scale = if F::GROUP == 32 { m.splat(s[i]) } else { m.pair(&s[2 * i..]) };
            acc[r] = m.fma(m.to_f32(dot), scale, acc[r]);
        }
        acc
    }
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
