//! Moving blocks into lanes: lane `j` of vector `i` is element `i` of block `j`.

use quantrs_simd::Simd;

/// The most lanes that any level has, doubled twice by [`quantrs_simd::Twice`]: the size of per-lane scratch arrays.
pub(crate) const MAX_LANES: usize = 64;

/// The first `N` values of `S::LANES` slices, one slice per lane.
#[inline(always)]
pub(crate) fn load_lanes<'a, S: Simd, const N: usize>(s: S, lane: impl Fn(usize) -> &'a [f32]) -> [S::F; N] {
    let mut vectors = [s.splat(0.0); N];
    if N.is_multiple_of(S::TILE) {
        for (i, tile) in vectors.chunks_exact_mut(S::TILE).enumerate() {
            s.load_tile(
                #[inline(always)]
                |j| &lane(j)[i * S::TILE..],
                tile,
            );
        }
        return vectors;
    }
    let mut columns = [[0.0f32; MAX_LANES]; N];
    for j in 0..S::LANES {
        for (column, &x) in columns.iter_mut().zip(&lane(j)[..N]) {
            column[j] = x;
        }
    }
    for (v, column) in vectors.iter_mut().zip(&columns) {
        *v = s.load(column);
    }
    vectors
}

/// Lane `j` of every vector. Slow: for lanes that need a treatment of their own.
#[inline(always)]
pub(crate) fn get_lane<S: Simd, const N: usize>(s: S, vectors: &[S::F; N], j: usize) -> [f32; N] {
    vectors.map(
        #[inline(always)]
        |v| {
            let mut lanes = [0.0; MAX_LANES];
            s.store(v, &mut lanes);
            lanes[j]
        },
    )
}

/// `v` with `value` in lane `j`. Slow, as [`get_lane`].
#[inline(always)]
pub(crate) fn set_lane<S: Simd>(s: S, v: S::F, j: usize, value: f32) -> S::F {
    let mut lanes = [0.0; MAX_LANES];
    s.store(v, &mut lanes);
    lanes[j] = value;
    s.load(&lanes)
}

/// Sum of squares of every block of `block_len` values, each in index order with one accumulator; `sums` has one place per block.
#[inline(always)]
pub(crate) fn sums_of_squares<S: Simd>(s: S, x: &[f32], block_len: usize, sums: &mut [f32]) {
    let n_blocks = sums.len();
    assert_eq!(x.len(), n_blocks * block_len);
    for first in (0..n_blocks).step_by(S::LANES) {
        let lane = |j: usize| &x[(first + j).min(n_blocks - 1) * block_len..][..block_len];
        let mut sum = s.splat(0.0);
        for at in (0..block_len).step_by(16) {
            for v in load_lanes::<S, 16>(s, |j| &lane(j)[at..]) {
                sum = s.add(sum, s.mul(v, v));
            }
        }
        let mut out = [0.0; MAX_LANES];
        s.store(sum, &mut out);
        let n = S::LANES.min(n_blocks - first);
        sums[first..first + n].copy_from_slice(&out[..n]);
    }
}

/// Sum of squares in index order with one accumulator.
pub(crate) fn sum_of_squares_ref(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |sum, v| sum + v * v)
}

#[cfg(test)]
mod tests {
    use super::*;
    use quantrs_simd::{Level, Twice, dispatch};

    fn check<S: Simd, const N: usize>(s: S) {
        let x: Vec<f32> = (0..S::LANES * N).map(|i| i as f32).collect();
        let vectors = load_lanes::<S, N>(s, |j| &x[j * N..]);
        for j in 0..S::LANES {
            assert_eq!(get_lane(s, &vectors, j), x[j * N..][..N], "lane {j} of {}", S::LANES);
        }
    }

    #[test]
    fn lanes_hold_the_slices_they_were_loaded_from() {
        for level in Level::all() {
            dispatch!(level, s => {
                check::<_, 1>(s);
                check::<_, 8>(Twice(s));
                check::<_, 16>(s);
                check::<_, 16>(Twice(Twice(s)));
                check::<_, 32>(Twice(s));
            }, scalar => ());
        }
    }
}
