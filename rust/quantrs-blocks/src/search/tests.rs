//! The lanes of every search against its plain form, bit for bit, on inputs that models have and on inputs that they should not have.

use super::{MinMax, MinMaxFit, SymFit, minmax, minmax_ref, pos, pos_ref, q3iter, q3iter_ref, sym, sym_ref};
use crate::lanes::{MAX_LANES, load_lanes};
use quantrs_simd::{Level, Simd, Twice, dispatch};

/// A linear congruential generator, so that failures repeat.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 32) as u32
    }

    /// In 0..1.
    fn uniform(&mut self) -> f32 {
        (self.bits() >> 8) as f32 / 16_777_216.0
    }

    /// Roughly normal.
    fn normal(&mut self) -> f32 {
        (0..6).map(|_| self.uniform()).sum::<f32>() - 3.0
    }

    /// A sub-block: mostly what weights look like, else one of the hard kinds.
    fn sub_block<const N: usize>(&mut self) -> [f32; N] {
        let kind = self.bits() % 16;
        let size = [1e-3, 1.0, 1e4, 1e-14, 1e-38, 1e-44, 1e18][self.bits() as usize % 7];
        let constant = self.normal();
        std::array::from_fn(|_| match kind {
            0 => 0.0,
            1 => constant * size,
            // Far from zero and close to each other: the levels leave the range of the fast rounding.
            2 => constant + self.normal() * 1e-7,
            3 => -1.0 - self.uniform() * 1e-6,
            4 => -size * self.uniform(),
            5 => size * self.uniform(),
            6 => self.normal() * size,
            7 => (self.bits() % 9) as f32 - 4.0,
            8 => -0.0,
            9 if !self.bits().is_multiple_of(8) => 0.0,
            10 if self.bits().is_multiple_of(8) => -1e-6 * self.uniform(),
            10 => -1.0,
            _ => 0.02 * self.normal(),
        })
    }
}

/// Sub-blocks and weights for `S::LANES` lanes.
fn inputs<const N: usize>(random: &mut Random, n_lanes: usize) -> (Vec<[f32; N]>, Vec<[f32; N]>) {
    let x = (0..n_lanes).map(|_| random.sub_block()).collect();
    let weight = |random: &mut Random| match random.bits() % 16 {
        0 => 0.0,
        _ => random.uniform(),
    };
    let weights = (0..n_lanes).map(|_| std::array::from_fn(|_| weight(random))).collect();
    (x, weights)
}

fn lanes<S: Simd>(s: S, v: S::F) -> [f32; MAX_LANES] {
    let mut out = [0.0; MAX_LANES];
    s.store(v, &mut out);
    out
}

fn assert_same(what: &str, got: f32, want: f32, x: &[f32], weights: &[f32]) {
    let same = got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan();
    assert!(same, "{what}: got {got:e}, want {want:e} for x {x:?}, weights {weights:?}");
}

fn check_minmax<S: Simd, const N: usize>(s: S, p: &MinMax, random: &mut Random) {
    let (x, weights) = inputs::<N>(random, S::LANES);
    let fit = minmax(s, p, &load_lanes::<S, N>(s, |j| &x[j]), &load_lanes::<S, N>(s, |j| &weights[j]));
    let MinMaxFit { scale, minus_min, iscale, level_min } = fit;
    let got = [scale, minus_min, iscale, level_min].map(|v| lanes(s, v));
    for j in 0..S::LANES {
        let want = minmax_ref(p, &x[j], &weights[j]);
        assert_same("scale", got[0][j], want.scale, &x[j], &weights[j]);
        assert_same("minus_min", got[1][j], want.minus_min, &x[j], &weights[j]);
        assert_same("iscale", got[2][j], want.iscale, &x[j], &weights[j]);
        assert_same("level_min", got[3][j], want.level_min, &x[j], &weights[j]);
    }
}

fn check_sym<S: Simd, const N: usize>(s: S, nmax: i32, random: &mut Random) {
    let (x, weights) = inputs::<N>(random, S::LANES);
    let SymFit { scale, iscale } =
        sym(s, nmax, &load_lanes::<S, N>(s, |j| &x[j]), &load_lanes::<S, N>(s, |j| &weights[j]));
    let (scale, iscale) = (lanes(s, scale), lanes(s, iscale));
    for j in 0..S::LANES {
        let want = sym_ref(nmax, &x[j], &weights[j]);
        assert_same("scale", scale[j], want.scale, &x[j], &weights[j]);
        assert_same("iscale", iscale[j], want.iscale, &x[j], &weights[j]);
    }
}

fn check_q3iter<S: Simd>(s: S, random: &mut Random) {
    let (x, weights) = inputs::<16>(random, S::LANES);
    let scale = lanes(s, q3iter(s, 4, &load_lanes::<S, 16>(s, |j| &x[j])));
    for j in 0..S::LANES {
        assert_same("scale", scale[j], q3iter_ref(4, &x[j], &mut [0; 16]), &x[j], &weights[j]);
    }
}

fn check_pos<S: Simd, const N: usize>(s: S, nmax: i32, random: &mut Random) {
    let (x, weights) = inputs::<N>(random, S::LANES);
    let (scale, levels) = pos(s, nmax, &load_lanes::<S, N>(s, |j| &x[j]), &load_lanes::<S, N>(s, |j| &weights[j]));
    let scale = lanes(s, scale);
    let levels = levels.map(|v| lanes(s, s.to_f32(v)));
    for j in 0..S::LANES {
        let mut want = [0; N];
        let want_scale = pos_ref(nmax, &x[j], &weights[j], &mut want);
        assert_same("scale", scale[j], want_scale, &x[j], &weights[j]);
        for i in 0..N {
            assert_same("level", levels[i][j], f32::from(want[i]), &x[j], &weights[j]);
        }
    }
}

/// Run `check` many times at every level of this CPU that has lanes.
macro_rules! at_every_level {
    ($s:ident, $random:ident => $check:expr) => {
        for level in Level::all() {
            let $random = &mut Random(7);
            for _ in 0..300 {
                dispatch!(level, $s => $check, scalar => ());
            }
        }
    };
}

#[test]
fn minmax_lanes_repeat_the_plain_search() {
    let q4_k = MinMax { nmax: 15, rmin: -1.0, rdelta: 0.1, nstep: 20, mad: false };
    let q2_k = MinMax { nmax: 3, rmin: -0.5, rdelta: 0.1, nstep: 15, mad: true };
    let weighted = MinMax { nmax: 31, rmin: -0.9, rdelta: 0.05, nstep: 36, mad: false };
    at_every_level!(s, random => {
        check_minmax::<_, 32>(Twice(s), &q4_k, random);
        check_minmax::<_, 16>(Twice(s), &q2_k, random);
        check_minmax::<_, 32>(s, &weighted, random);
    });
}

#[test]
fn sym_lanes_repeat_the_plain_search() {
    at_every_level!(s, random => {
        check_sym::<_, 16>(Twice(s), 4, random);
        check_sym::<_, 16>(Twice(s), 32, random);
        check_sym::<_, 32>(s, 8, random);
    });
}

#[test]
fn q3iter_lanes_repeat_the_plain_search() {
    at_every_level!(s, random => check_q3iter(Twice(Twice(s)), random));
}

#[test]
fn pos_lanes_repeat_the_plain_search() {
    at_every_level!(s, random => {
        check_pos::<_, 8>(Twice(s), 63, random);
        check_pos::<_, 16>(Twice(s), 15, random);
    });
}
