//! The search for a scale on the 16 uneven levels of IQ4_NL and IQ4_XS: x ~ scale * V[q].
//!
//! Minimises    sum of weight * (scale * V[q] - x)^2
//! Search       nearest levels at 16 inverse scales around V[0] / max, where max is the value of largest magnitude (the first of
//!              equals); for each the least-squares scale of its levels. A later candidate wins only when better
//! Exact        equals the search in `quantize_row_iq4_nl_impl`, ggml `src/ggml-quants.c`, FP contraction off
//!
//! The nearest level of v is found with one look-up. A cell of width 8 around a multiple of 8 contains at most one of the
//! midpoints between levels, so the cell decides between two levels and one comparison with its midpoint between these. All
//! midpoints are multiples of 0.5 at which `v - low` and `high - v` are exact, hence "nearer to the lower level" is exactly
//! `v < midpoint`, and a tie goes to the upper level, as in ggml.

use super::{EPS, signed_max};
use quantrs_simd::Simd;

/// Values per search.
pub(crate) const LEN: usize = 32;

/// The levels V, ascending.
const LEVELS: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

const LEVEL_VALUES: [f32; 16] = {
    let (mut values, mut i) = ([0.0; 16], 0);
    while i < 16 {
        values[i] = LEVELS[i] as f32;
        i += 1;
    }
    values
};

/// The levels, twice: a table for [`Simd::lookup32`].
pub(crate) static VALUES: [f32; 32] = {
    let (mut values, mut i) = ([0.0; 32], 0);
    while i < 32 {
        values[i] = LEVEL_VALUES[i % 16];
        i += 1;
    }
    values
};

/// Steps of the inverse scale's numerator around V[0], in ggml's order.
const STEPS: std::ops::RangeInclusive<i32> = -7..=7;

/// Index of the nearest level as ggml finds it: by bisection; of two equally near the upper; NaN gives 15.
#[inline(always)]
pub(crate) fn nearest_level_ref(v: f32) -> u8 {
    let level = |i: usize| f32::from(LEVELS[i]);
    if v <= level(0) {
        return 0;
    }
    if v >= level(15) {
        return 15;
    }
    let (mut low, mut high) = (0, 15);
    while high - low > 1 {
        let middle = (low + high) / 2;
        if v < level(middle) { high = middle } else { low = middle }
    }
    (if v - level(low) < level(high) - v { low } else { high }) as u8
}

/// The search over 32 values, as ggml writes it: the scale, 0 for values that count as zero.
pub(crate) fn iq4_ref(x: &[f32], weights: &[f32]) -> f32 {
    let max = signed_max(x);
    if max.abs() < EPS {
        return 0.0;
    }
    let sums = |inverse: f32| {
        let (mut sumqx, mut sumq2) = (0.0, 0.0);
        for (&x, &w) in x.iter().zip(weights) {
            let level = f32::from(LEVELS[usize::from(nearest_level_ref(inverse * x))]);
            sumqx += w * level * x;
            sumq2 += w * level * level;
        }
        (sumqx, sumq2)
    };
    let lowest = f32::from(LEVELS[0]);
    let (sumqx, sumq2) = sums(1.0 / (-max / lowest));
    let mut scale = if sumq2 > 0.0 { sumqx / sumq2 } else { 0.0 };
    let mut best = scale * sumqx;
    for step in STEPS {
        let (sumqx, sumq2) = sums((step as f32 + lowest) / max);
        if sumq2 > 0.0 && sumqx * sumqx > best * sumq2 {
            scale = sumqx / sumq2;
            best = scale * sumqx;
        }
    }
    scale
}

/// What a cell of width 8 says of the values in it. Entry c is for the cells around 8c and 8(c - 32).
struct Cells {
    /// The midpoint in the cell, or one below or above all of it.
    midpoint: [f32; 32],
    /// For values below the midpoint.
    low: [f32; 32],
    /// For values from the midpoint on.
    high: [f32; 32],
}

/// The cells; `low` and `high` hold `values[k]` for level k.
const fn cells(values: [f32; 16]) -> Cells {
    // The outermost cells, 15 and beyond on either side, share their entries: the sign of the value decides.
    let mut cells = Cells { midpoint: [0.0; 32], low: [values[0]; 32], high: [values[15]; 32] };
    let mut cell = -14;
    while cell <= 14 {
        // The last midpoint (of levels k and k + 1) that is not above the cell; for the lowest cells there is none.
        let mut k = 0;
        while k < 14 && LEVELS[k + 1] as i32 + LEVELS[k + 2] as i32 <= 2 * (8 * cell + 4) {
            k += 1;
        }
        let at = (cell & 31) as usize;
        cells.midpoint[at] = (LEVELS[k] as i32 + LEVELS[k + 1] as i32) as f32 / 2.0;
        cells.low[at] = values[k];
        cells.high[at] = values[k + 1];
        cell += 1;
    }
    cells
}

static VALUE_CELLS: Cells = cells(LEVEL_VALUES);

/// Levels as the floats whose bits are their index.
static INDEX_CELLS: Cells = {
    let (mut values, mut i) = ([0.0; 16], 0);
    while i < 16 {
        values[i] = f32::from_bits(i as u32);
        i += 1;
    }
    cells(values)
};

/// The entry for the level nearest to v, |v| < 140.
#[inline(always)]
fn nearest_entry<S: Simd>(s: S, cells: &'static Cells, v: S::F) -> S::F {
    // Floats near 1.5 * 2^26 are 8 apart, so the sum's low bits are the number of the cell.
    let cell = s.to_bits(s.add(v, s.splat(100_663_296.0)));
    let below = s.lt(v, s.lookup32(&cells.midpoint, cell));
    s.select(below, s.lookup32(&cells.low, cell), s.lookup32(&cells.high, cell))
}

/// [`nearest_level_ref`] in every lane, for any v.
#[inline(always)]
pub(crate) fn nearest_level<S: Simd>(s: S, v: S::F) -> S::I {
    // `min` gives its second operand for NaN, hence level 15.
    let v = s.max(s.min(v, s.splat(128.0)), s.splat(-128.0));
    s.to_bits(nearest_entry(s, &INDEX_CELLS, v))
}

/// Inverse scales that are tried side by side: their sums, which run in index order, need not wait for each other.
const ABREAST: usize = 4;

/// The sums of `w * V * x` and of `w * V * V` for the levels V nearest to `inverse * x`, for each inverse.
///
/// |inverse * x| is at most 134 and a rounding: the range of [`nearest_entry`]. Lanes that count as zero may leave it; their
/// sums are of no use.
#[inline(always)]
fn level_sums<S: Simd>(s: S, x: &[S::F; LEN], weights: &[S::F; LEN], inverses: &[S::F]) -> [(S::F, S::F); ABREAST] {
    let mut sums = [(s.splat(0.0), s.splat(0.0)); ABREAST];
    for (&x, &w) in x.iter().zip(weights) {
        for ((sumqx, sumq2), &inverse) in sums.iter_mut().zip(inverses) {
            let level = nearest_entry(s, &VALUE_CELLS, s.mul(inverse, x));
            let weighted = s.mul(w, level);
            *sumqx = s.add(*sumqx, s.mul(weighted, x));
            *sumq2 = s.add(*sumq2, s.mul(weighted, level));
        }
    }
    sums
}

/// The same search with one set of 32 values per lane.
#[inline(always)]
pub(crate) fn iq4<S: Simd>(s: S, x: &[S::F; LEN], weights: &[S::F; LEN]) -> S::F {
    let zero = s.splat(0.0);
    let (mut max, mut amax) = (zero, zero);
    for &x in x {
        let larger = s.gt(s.abs(x), amax);
        amax = s.select(larger, s.abs(x), amax);
        max = s.select(larger, x, max);
    }
    let lowest = f32::from(LEVELS[0]);
    let mut inverses = [s.div(s.splat(1.0), s.div(s.neg(max), s.splat(lowest))); 16];
    for (inverse, step) in inverses[1..].iter_mut().zip(STEPS) {
        *inverse = s.div(s.splat(step as f32 + lowest), max);
    }
    let (mut scale, mut best) = (zero, zero);
    for (group, inverses) in inverses.chunks_exact(ABREAST).enumerate() {
        for (i, (sumqx, sumq2)) in level_sums(s, x, weights, inverses).into_iter().enumerate() {
            let positive = s.gt(sumq2, zero);
            let this_scale = s.div(sumqx, sumq2);
            if (group, i) == (0, 0) {
                scale = s.select(positive, this_scale, zero);
                best = s.mul(scale, sumqx);
                continue;
            }
            let better = s.both(positive, s.gt(s.mul(sumqx, sumqx), s.mul(best, sumq2)));
            scale = s.select(better, this_scale, scale);
            best = s.select(better, s.mul(this_scale, sumqx), best);
        }
    }
    s.select(s.lt(amax, s.splat(EPS)), zero, scale)
}

#[cfg(test)]
mod tests {
    use super::*;
    use quantrs_simd::{Level, dispatch};

    /// All midpoints, levels and cell edges with the floats around them, a fine grid, and what is outside of all levels.
    fn hard_values() -> Vec<f32> {
        let mut values: Vec<f32> = (-280_000..=280_000).map(|i| i as f32 / 2000.0).collect();
        for half in -280..=280 {
            let v = half as f32 / 2.0;
            let mut neighbours = [v; 2];
            for _ in 0..40 {
                neighbours = [neighbours[0].next_down(), neighbours[1].next_up()];
                values.extend(neighbours);
            }
        }
        values.extend([
            0.0,
            -0.0,
            f32::MIN_POSITIVE,
            1e30,
            -1e30,
            f32::MAX,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::NAN,
        ]);
        values.resize(values.len().next_multiple_of(16), 0.0);
        values
    }

    #[inline(always)]
    fn levels_in_lanes<S: Simd>(s: S, values: &[f32], out: &mut [i32], decoded: &mut [f32]) {
        for i in (0..values.len()).step_by(S::LANES) {
            let v = s.load(&values[i..]);
            s.istore(nearest_level(s, v), &mut out[i..]);
            s.store(nearest_entry(s, &VALUE_CELLS, v), &mut decoded[i..]);
        }
    }

    #[test]
    fn nearest_level_in_lanes_is_that_of_the_bisection() {
        let values = hard_values();
        for level in Level::all() {
            let (mut found, mut decoded) = (vec![-1; values.len()], vec![0.0; values.len()]);
            dispatch!(level, s => levels_in_lanes(s, &values, &mut found, &mut decoded), scalar => continue);
            for ((&v, found), decoded) in values.iter().zip(found).zip(decoded) {
                let want = nearest_level_ref(v);
                assert_eq!(found, i32::from(want), "{v:?} at {}", level.name());
                if v.abs() < 140.0 {
                    assert_eq!(decoded, f32::from(LEVELS[usize::from(want)]), "{v:?} at {}", level.name());
                }
            }
        }
    }
}
