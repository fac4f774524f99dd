//! Rotary position embedding: tables of angles, and the rotation of queries and keys.

use quantrs_simd::Level;

/// Which two values of a head are rotated together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeStyle {
    /// Neighbours: (0, 1), (2, 3), ...: "normal" in llama.cpp.
    Interleaved,
    /// (0, n/2), (1, n/2 + 1), ...: "NeoX".
    Halves,
}

/// How positions beyond the trained context are brought into it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// Positions as they are.
    None,
    /// Positions divided by a factor.
    Linear {
        /// The factor.
        factor: f64,
    },
    /// YaRN (Peng et al. 2023, arXiv 2309.00071): fast rotations stay, slow ones are divided by the factor, a ramp between.
    Yarn {
        /// The factor.
        factor: f64,
        /// Context that the model was trained with.
        original_context: usize,
        /// Rotations over the original context above which a pair keeps its speed.
        beta_fast: f64,
        /// Rotations below which a pair is divided by the whole factor.
        beta_slow: f64,
    },
}

/// Everything that decides the angles.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Which values belong together.
    pub style: RopeStyle,
    /// How many values of a head are rotated: even, at most the head's length; the rest stay.
    pub n_dims: usize,
    /// Pair i turns by `base^(-2i / n_dims)` per position.
    pub base: f64,
    /// How the speeds are scaled.
    pub scaling: RopeScaling,
    /// Cosines and sines are multiplied by it.
    pub magnitude: f32,
    /// Divisors of the speeds, one per pair (Llama-3, LongRoPE).
    pub factors: Option<Vec<f32>>,
}

impl Rope {
    /// Radians per position of every pair, `[n_dims / 2]`.
    pub fn speeds(&self) -> Vec<f64> {
        let n_dims = self.n_dims as f64;
        (0..self.n_dims / 2)
            .map(|i| {
                let factor = self.factors.as_ref().map_or(1.0, |f| f64::from(f[i]));
                let speed = self.base.powf(-2.0 * i as f64 / n_dims) / factor;
                match self.scaling {
                    RopeScaling::None => speed,
                    RopeScaling::Linear { factor } => speed / factor,
                    RopeScaling::Yarn { factor, original_context, beta_fast, beta_slow } => {
                        // The pair that turns `beta` times over the original context.
                        let pair = |beta: f64| {
                            n_dims * (original_context as f64 / (beta * std::f64::consts::TAU)).ln()
                                / (2.0 * self.base.ln())
                        };
                        let low = pair(beta_fast).floor().max(0.0);
                        let high = pair(beta_slow).ceil().min(n_dims - 1.0);
                        let kept = 1.0 - ((i as f64 - low) / (high - low).max(1e-3)).clamp(0.0, 1.0);
                        speed / factor * (1.0 - kept) + speed * kept
                    }
                }
            })
            .collect()
    }
}

/// Cosines and sines of the positions seen so far.
#[derive(Clone, Debug)]
pub struct RopeTable {
    style: RopeStyle,
    n_dims: usize,
    magnitude: f64,
    speeds: Vec<f64>,
    /// Per position `n_dims / 2` cosines, then as many sines.
    values: Vec<f32>,
}

impl RopeTable {
    /// A table without positions.
    pub fn new(rope: &Rope) -> RopeTable {
        let (style, n_dims) = (rope.style, rope.n_dims);
        RopeTable { style, n_dims, magnitude: f64::from(rope.magnitude), speeds: rope.speeds(), values: Vec::new() }
    }

    /// Make sure that positions below `n_positions` are there.
    pub fn extend(&mut self, n_positions: usize) {
        for position in self.values.len() / self.n_dims.max(1)..n_positions {
            let angle = |speed: &f64| position as f64 * speed;
            self.values.extend(self.speeds.iter().map(|s| (angle(s).cos() * self.magnitude) as f32));
            self.values.extend(self.speeds.iter().map(|s| (angle(s).sin() * self.magnitude) as f32));
        }
    }

    /// Rotate the heads of `head_len` values in every row of `x: [n, row_len]`; row i is at position `first + i`, which was
    /// [extended](Self::extend) to.
    pub fn rotate(&self, level: Level, x: &mut [f32], row_len: usize, head_len: usize, first: usize) {
        let half = self.n_dims / 2;
        level.run(
            #[inline(always)]
            || {
                for (i, row) in x.chunks_exact_mut(row_len).enumerate() {
                    let (cos, sin) = self.values[(first + i) * self.n_dims..][..self.n_dims].split_at(half);
                    for head in row.chunks_exact_mut(head_len) {
                        let head = &mut head[..self.n_dims];
                        match self.style {
                            RopeStyle::Halves => rotate_halves(head, cos, sin),
                            RopeStyle::Interleaved => rotate_pairs(head, cos, sin),
                        }
                    }
                }
            },
        );
    }
}

#[inline(always)]
fn rotate_halves(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (a, b) = head.split_at_mut(cos.len());
    for ((a, b), (cos, sin)) in a.iter_mut().zip(b).zip(cos.iter().zip(sin)) {
        (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
    }
}

#[inline(always)]
fn rotate_pairs(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    for (pair, (cos, sin)) in head.as_chunks_mut::<2>().0.iter_mut().zip(cos.iter().zip(sin)) {
        let [a, b] = *pair;
        *pair = [a * cos - b * sin, a * sin + b * cos];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rope(style: RopeStyle, scaling: RopeScaling) -> Rope {
        Rope { style, n_dims: 8, base: 10_000.0, scaling, magnitude: 1.0, factors: None }
    }

    #[test]
    fn scores_depend_on_the_distance_alone() {
        let (q, k): (Vec<f32>, Vec<f32>) =
            ((1..=10).map(|i| i as f32).collect(), (1..=10).map(|i| 0.3 * i as f32 - 1.0).collect());
        for style in [RopeStyle::Interleaved, RopeStyle::Halves] {
            let mut table = RopeTable::new(&rope(style, RopeScaling::None));
            table.extend(100);
            let score = |at_q: usize, at_k: usize| {
                let (mut q, mut k) = (q.clone(), k.clone());
                table.rotate(Level::detect(), &mut q, 10, 10, at_q);
                table.rotate(Level::detect(), &mut k, 10, 10, at_k);
                q.iter().zip(&k).map(|(a, b)| a * b).sum::<f32>()
            };
            assert!((score(7, 3) - score(97, 93)).abs() < 1e-3);
            assert!((score(7, 3) - score(8, 3)).abs() > 1e-2);
        }
    }

    #[test]
    fn values_past_the_rotated_ones_stay() {
        let mut table = RopeTable::new(&rope(RopeStyle::Halves, RopeScaling::None));
        table.extend(6);
        let mut x: Vec<f32> = (0..10).map(|i| i as f32).collect();
        table.rotate(Level::detect(), &mut x, 10, 10, 5);
        assert_eq!(x[8..], [8.0, 9.0]);
        assert_ne!(x[0], 0.0);
    }

    #[test]
    fn yarn_keeps_fast_pairs_and_slows_the_slow_ones() {
        let plain = rope(RopeStyle::Halves, RopeScaling::None).speeds();
        let yarn = RopeScaling::Yarn { factor: 4.0, original_context: 4096, beta_fast: 32.0, beta_slow: 1.0 };
        let yarn = rope(RopeStyle::Halves, yarn).speeds();
        assert_eq!(yarn[0], plain[0]);
        assert_eq!(yarn[3], plain[3] / 4.0);
        let linear = rope(RopeStyle::Halves, RopeScaling::Linear { factor: 4.0 }).speeds();
        assert_eq!(linear[1], plain[1] / 4.0);
    }
}
