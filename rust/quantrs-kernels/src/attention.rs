//! Causal attention with an online softmax: no matrix of all positions by all positions.
//!
//! For a query row q and the keys of one span of positions, the partial result is m = max s_j, l = sum exp(s_j - m) and
//! o = sum exp(s_j - m) v_j with s_j = scale q . k_j. Two partial results of the same row merge into M = max(m, m'),
//! l exp(m - M) + l' exp(m' - M), and likewise o; the answer is o / l (Milakov and Gimelshein 2018, arXiv 1805.02867; Dao et al.
//! 2022, arXiv 2205.14135). Spans are merged in the order of positions, whoever computed them: a row's result depends neither
//! on the thread count nor on the rows it was computed with.
//!
//! Query heads that share a key/value head are rows of the same small matrix product, so keys are read once for all of them.

use crate::Disjoint;
use crate::elementwise::{exp, soft_cap};
use crate::isa::{Isa, Machine, with_isa};
use crate::kv_cache::{BLOCK, KvCache, SPAN};
use crate::output;
use crate::pool::Pool;
use quantrs_simd::Level;
use std::cell::RefCell;
use std::ops::Range;

/// Rows of a tile, at least, where there are that many: keys and values are decoded once for all of them.
const TILE_ROWS: usize = 64;

/// Rows below which reading keys and values from memory takes longer than multiplying them.
const PREFETCH_BELOW: usize = 16;

/// How the heads of a layer attend.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    /// Query heads: a multiple of the key/value heads.
    pub n_heads: usize,
    /// Factor of the scores.
    pub scale: f32,
    /// Scores become `cap * tanh(score / cap)`.
    pub soft_cap: Option<f32>,
    /// A query sees this many positions, its own among them.
    pub window: Option<usize>,
    /// One more score per head that takes part in the softmax but has no value, `[n_heads]`.
    pub sinks: Option<&'a [f32]>,
}

/// Partial result of the rows of a tile over some positions.
#[derive(Default)]
struct Partial {
    max: Vec<f32>,
    sum: Vec<f32>,
    /// `[rows][v_stride]`
    out: Vec<f32>,
}

#[derive(Default)]
struct Scratch {
    /// `[rows][k_dim]`
    q: Vec<f32>,
    keys: Vec<[f32; BLOCK]>,
    key_rows: Vec<f32>,
    value_rows: Vec<f32>,
    /// `[SPAN][v_stride]`
    values: Vec<f32>,
    /// `[rows][SPAN]`
    scores: Vec<f32>,
    span: Partial,
    total: Partial,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Attention<'_> {
    /// Attend from the last n positions of the cache: `q: [n, n_heads * k_dim]`, `out: [n, n_heads * v_dim]`.
    pub fn run(&self, pool: &Pool, level: Level, cache: &KvCache, q: &[f32], out: &mut [f32]) {
        let shape = cache.shape();
        let n = q.len() / (self.n_heads * shape.k_dim);
        let group = self.n_heads / shape.n_kv_heads;
        let tile_tokens = TILE_ROWS.div_ceil(group);
        let n_tiles = n.div_ceil(tile_tokens);
        if n_tiles == 0 {
            return;
        }
        let first = cache.len() - n;
        let machine = Machine::of(level);
        let tile = |head: usize, tile: usize| {
            let tokens = tile * tile_tokens..n.min((tile + 1) * tile_tokens);
            Tile { attention: self, level, machine, cache, q, head, group, first, tokens }
        };
        let places = Disjoint::new(out);
        if n_tiles > 1 {
            // The last tiles see the most positions: start with them, so that no thread is left with a long one.
            pool.run(n_tiles * shape.n_kv_heads, |task| {
                let tile = tile(task % shape.n_kv_heads, n_tiles - 1 - task / shape.n_kv_heads);
                SCRATCH.with_borrow_mut(|scratch| {
                    let Scratch { total, .. } = scratch;
                    let mut total = std::mem::take(total);
                    tile.gather_queries(&mut scratch.q);
                    total.clear(tile.rows(), tile.v_stride());
                    for span in tile.spans() {
                        tile.attend(span, scratch);
                        total.merge(level, &scratch.span);
                    }
                    // SAFETY: a tile's rows belong to its head and tokens alone.
                    unsafe { tile.finish(&mut total, &places) }
                    scratch.total = total;
                });
            });
            return;
        }
        // One tile: the spans are shared out instead, and merged in order afterwards.
        let spans = tile(0, 0).spans();
        let n_spans = spans.len();
        let mut partials: Vec<std::sync::Mutex<Partial>> = Vec::new();
        partials.resize_with(n_spans * shape.n_kv_heads, Default::default);
        pool.run(partials.len(), |task| {
            let tile = tile(task / n_spans, 0);
            SCRATCH.with_borrow_mut(|scratch| {
                tile.gather_queries(&mut scratch.q);
                tile.attend(spans.start + task % n_spans, scratch);
                *partials[task].lock().expect("no task panicked") = std::mem::take(&mut scratch.span);
            });
        });
        for (head, partials) in partials.chunks_mut(n_spans).enumerate() {
            let tile = tile(head, 0);
            let mut total = Partial::default();
            total.clear(tile.rows(), tile.v_stride());
            for partial in partials {
                total.merge(level, partial.get_mut().expect("no task panicked"));
            }
            // SAFETY: no other thread is at work here.
            unsafe { tile.finish(&mut total, &places) }
        }
    }
}

/// Some tokens' query heads that share one key/value head.
struct Tile<'a> {
    attention: &'a Attention<'a>,
    level: Level,
    machine: Machine,
    cache: &'a KvCache,
    q: &'a [f32],
    head: usize,
    group: usize,
    /// Position of token 0.
    first: usize,
    tokens: Range<usize>,
}

impl Tile<'_> {
    fn rows(&self) -> usize {
        self.tokens.len() * self.group
    }

    fn v_stride(&self) -> usize {
        self.cache.shape().v_dim.next_multiple_of(BLOCK)
    }

    /// Positions that `token` sees.
    fn seen(&self, token: usize) -> Range<usize> {
        let end = self.first + token + 1;
        self.attention.window.map_or(0, |window| end.saturating_sub(window))..end
    }

    /// Spans that any token sees.
    fn spans(&self) -> Range<usize> {
        self.seen(self.tokens.start).start / SPAN..self.seen(self.tokens.end - 1).end.div_ceil(SPAN)
    }

    fn gather_queries(&self, out: &mut Vec<f32>) {
        let row_len = self.group * self.cache.shape().k_dim;
        out.resize(self.tokens.len() * row_len, 0.0);
        let scale = self.attention.scale;
        self.level.run(
            #[inline(always)]
            || {
                for (token, out) in self.tokens.clone().zip(out.chunks_exact_mut(row_len)) {
                    let at = (token * (self.attention.n_heads / self.group) + self.head) * row_len;
                    for (out, q) in out.iter_mut().zip(&self.q[at..]) {
                        *out = q * scale;
                    }
                }
            },
        );
    }

    /// Positions of a span that any of these rows sees.
    fn seen_in(&self, rows: Range<usize>, span: usize) -> Range<usize> {
        let (start, token) = (span * SPAN, |r: usize| self.tokens.start + r / self.group);
        let (from, to) = (self.seen(token(rows.start)).start, self.seen(token(rows.end - 1)).end);
        from.max(start) - start..to.min(start + SPAN).saturating_sub(start)
    }

    /// The partial result over one span.
    fn attend(&self, span: usize, scratch: &mut Scratch) {
        let (rows, k_dim, v_dim, v_stride) =
            (self.rows(), self.cache.shape().k_dim, self.cache.shape().v_dim, self.v_stride());
        let start = span * SPAN;
        let seen = self.seen_in(0..rows, span);
        let blocks = seen.start / BLOCK..seen.end.div_ceil(BLOCK);
        let columns = blocks.start * BLOCK..blocks.end * BLOCK;

        scratch.keys.resize(k_dim, [0.0; BLOCK]);
        scratch.scores.resize(rows * SPAN, 0.0);
        scratch.values.resize(SPAN * v_stride, 0.0);
        for block in blocks {
            let positions = block * BLOCK..(block + 1) * BLOCK;
            let first = start + positions.start;
            if rows < PREFETCH_BELOW {
                self.prefetch(first);
            }
            self.cache.read_keys(self.level, self.head, first, &mut scratch.keys, &mut scratch.key_rows);
            let keys = scratch.keys.as_flattened();
            self.by_rows(|r| {
                let seen = self.seen_in(r.clone(), span);
                if seen.start < positions.end && positions.start < seen.end {
                    let out = &mut scratch.scores[r.start * SPAN + positions.start..];
                    self.multiply(r.len(), (&scratch.q[r.start * k_dim..], k_dim), (keys, BLOCK), k_dim, (out, SPAN));
                }
            });
            let values = &mut scratch.values[positions.start * v_stride..positions.end * v_stride];
            if v_stride == v_dim {
                self.cache.read_values(self.level, self.head, first, values);
            } else {
                scratch.value_rows.resize(BLOCK * v_dim, 0.0);
                self.cache.read_values(self.level, self.head, first, &mut scratch.value_rows);
                for (out, row) in values.chunks_exact_mut(v_stride).zip(scratch.value_rows.chunks_exact(v_dim)) {
                    out[..v_dim].copy_from_slice(row);
                    out[v_dim..].fill(0.0);
                }
            }
        }

        let partial = &mut scratch.span;
        partial.clear(rows, v_stride);
        for r in 0..rows {
            let seen = self.seen_in(r..r + 1, span);
            let row = &mut scratch.scores[r * SPAN..][..SPAN];
            if seen.is_empty() {
                row[columns.clone()].fill(0.0);
                continue;
            }
            let scores = &mut row[seen.clone()];
            if let Some(cap) = self.attention.soft_cap {
                soft_cap(self.level, scores, cap);
            }
            (partial.max[r], partial.sum[r]) = exponentials(self.level, scores);
            row[columns.start..seen.start].fill(0.0);
            row[seen.end..columns.end].fill(0.0);
        }
        self.by_rows(|r| {
            let seen = self.seen_in(r.clone(), span);
            if seen.is_empty() {
                return;
            }
            let scores = &scratch.scores[r.start * SPAN + seen.start..];
            for column in (0..v_stride).step_by(BLOCK) {
                let values = &scratch.values[seen.start * v_stride + column..];
                let out = &mut partial.out[r.start * v_stride + column..];
                self.multiply(r.len(), (scores, SPAN), (values, v_stride), seen.len(), (out, v_stride));
            }
        });
    }

    /// Ask for the values of this block, and for the keys of the next.
    fn prefetch(&self, first: usize) {
        let [_, here] = self.cache.bytes_ahead(self.head, first);
        let [next, _] = self.cache.bytes_ahead(self.head, first + BLOCK);
        with_isa!(self.machine, m => {
            for bytes in [here, next] {
                for line in bytes.chunks(64) {
                    m.prefetch(line.as_ptr());
                }
            }
        });
    }

    /// Call `f` with rows that [`multiply`](Self::multiply) takes at a time: all, in order.
    fn by_rows(&self, mut f: impl FnMut(Range<usize>)) {
        let most = with_isa!(self.machine, m => most_rows(m));
        let mut r = 0;
        while r < self.rows() {
            let n = [8, 4, 2, 1].into_iter().find(|n| *n <= most.min(self.rows() - r)).expect("one fits");
            f(r..r + n);
            r += n;
        }
    }

    /// `out[r, ..BLOCK] = sum over k of a[r, k] * b[k, ..BLOCK]`, k in order, for 1, 2, 4 or 8 rows; matrices come with the distance of
    /// their rows.
    fn multiply(&self, rows: usize, a: (&[f32], usize), b: (&[f32], usize), n_k: usize, out: (&mut [f32], usize)) {
        with_isa!(self.machine, m => match rows {
            8 => multiply_rows::<_, 8>(m, a, b, n_k, out),
            4 => multiply_rows::<_, 4>(m, a, b, n_k, out),
            2 => multiply_rows::<_, 2>(m, a, b, n_k, out),
            _ => multiply_rows::<_, 1>(m, a, b, n_k, out),
        });
    }

    /// Divide by the sums and write to the rows' places in `[n, n_heads * v_dim]`.
    ///
    /// # Safety
    /// No other thread writes the places of these heads and tokens.
    unsafe fn finish(&self, total: &mut Partial, places: &Disjoint<'_, f32>) {
        let (v_dim, v_stride) = (self.cache.shape().v_dim, self.v_stride());
        for r in 0..self.rows() {
            let (token, head) = (self.tokens.start + r / self.group, self.head * self.group + r % self.group);
            if let Some(sinks) = self.attention.sinks {
                total.merge_row(r, v_stride, sinks[head], 1.0, None);
            }
            let factor = 1.0 / total.sum[r];
            // SAFETY: a row's places are those of its token and head; the caller promises that nobody else writes them.
            let out = unsafe { places.range((token * self.attention.n_heads + head) * v_dim, v_dim) };
            for (out, x) in out.iter_mut().zip(&total.out[r * v_stride..]) {
                *out = x * factor;
            }
        }
    }
}

impl Partial {
    /// The result over no position.
    fn clear(&mut self, rows: usize, v_stride: usize) {
        self.max.clear();
        self.max.resize(rows, f32::NEG_INFINITY);
        self.sum.clear();
        self.sum.resize(rows, 0.0);
        self.out.clear();
        self.out.resize(rows * v_stride, 0.0);
    }

    fn merge(&mut self, level: Level, other: &Partial) {
        let v_stride = self.out.len() / self.max.len();
        level.run(
            #[inline(always)]
            || {
                for r in 0..self.max.len() {
                    self.merge_row(
                        r,
                        v_stride,
                        other.max[r],
                        other.sum[r],
                        Some(&other.out[r * v_stride..][..v_stride]),
                    );
                }
            },
        );
    }

    #[inline(always)]
    fn merge_row(&mut self, r: usize, v_stride: usize, max: f32, sum: f32, out: Option<&[f32]>) {
        let to = if max > self.max[r] { max } else { self.max[r] };
        // Rows over no position keep their -inf: the difference would be NaN.
        let factor = |from: f32| if from == f32::NEG_INFINITY { 0.0 } else { exp(from - to) };
        let (mine, theirs) = (factor(self.max[r]), factor(max));
        self.max[r] = to;
        self.sum[r] = self.sum[r] * mine + sum * theirs;
        let row = &mut self.out[r * v_stride..][..v_stride];
        match out {
            Some(out) => {
                for (x, y) in row.iter_mut().zip(out) {
                    *x = *x * mine + *y * theirs;
                }
            }
            None => {
                for x in row {
                    *x *= mine;
                }
            }
        }
    }
}

/// The largest score; the scores become exponentials of their distance to it, and their sum. A NaN among them gives a NaN sum.
fn exponentials(level: Level, scores: &mut [f32]) -> (f32, f32) {
    const PARTS: usize = 16;
    level.run(
        #[inline(always)]
        || {
            let mut max = [f32::NEG_INFINITY; PARTS];
            let (chunks, rest) = scores.as_chunks::<PARTS>();
            for chunk in chunks {
                for (max, x) in max.iter_mut().zip(chunk) {
                    *max = if *x > *max { *x } else { *max };
                }
            }
            let max = max.iter().chain(rest).fold(f32::NEG_INFINITY, |max, x| if *x > max { *x } else { max });
            let mut sum = [0.0; PARTS];
            let (chunks, rest) = scores.as_chunks_mut::<PARTS>();
            for chunk in chunks {
                for (sum, x) in sum.iter_mut().zip(chunk) {
                    *x = exp(*x - max);
                    *sum += *x;
                }
            }
            for (sum, x) in sum.iter_mut().zip(rest) {
                *x = exp(*x - max);
                *sum += *x;
            }
            (max, sum.iter().sum())
        },
    )
}

/// Rows of a product whose sums, two wide vectors each, fit the registers.
#[inline(always)]
fn most_rows<M: Isa>(_: M) -> usize {
    if M::W == 16 { 8 } else { 4 }
}

/// See [`Tile::multiply`].
#[inline(always)]
fn multiply_rows<M: Isa, const ROWS: usize>(
    m: M,
    (a, a_stride): (&[f32], usize),
    (b, b_stride): (&[f32], usize),
    n_k: usize,
    (out, out_stride): (&mut [f32], usize),
) {
    assert!(n_k > 0 && BLOCK.is_multiple_of(2 * M::W));
    assert!(a.len() >= (ROWS - 1) * a_stride + n_k);
    assert!(b.len() >= (n_k - 1) * b_stride + BLOCK);
    assert!(out.len() >= (ROWS - 1) * out_stride + BLOCK);
    for column in (0..BLOCK).step_by(2 * M::W) {
        let mut sums = [[m.wide_splat(0.0); 2]; ROWS];
        for k in 0..n_k {
            // SAFETY: row k of b has BLOCK values, and row r of a has n_k, by the assertions.
            unsafe {
                let b = b.as_ptr().add(k * b_stride + column);
                let b = [m.wide_load(b), m.wide_load(b.add(M::W))];
                for (r, sums) in sums.iter_mut().enumerate() {
                    let a = m.wide_splat(*a.get_unchecked(r * a_stride + k));
                    *sums = [m.wide_fma(a, b[0], sums[0]), m.wide_fma(a, b[1], sums[1])];
                }
            }
        }
        for (r, sums) in sums.into_iter().enumerate() {
            // SAFETY: row r of out has BLOCK places, by the assertions.
            unsafe { output::put(m, sums, out.as_mut_ptr().add(r * out_stride + column)) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv_cache::{KvShape, KvType};

    fn values(n: usize, seed: usize) -> Vec<f32> {
        (0..n).map(|i| (((i + seed) * 7919 % 1013) as f32 - 506.0) / 300.0).collect()
    }

    /// The definition, in double precision.
    fn attention_ref(
        attention: &Attention<'_>,
        shape: KvShape,
        q: &[f32],
        k: &[f32],
        v: &[f32],
        first: usize,
    ) -> Vec<f64> {
        let KvShape { n_kv_heads, k_dim, v_dim } = shape;
        let mut out = Vec::new();
        for (i, q) in q.chunks(attention.n_heads * k_dim).enumerate() {
            for (head, q) in q.chunks(k_dim).enumerate() {
                let kv = head / (attention.n_heads / n_kv_heads);
                let end = first + i + 1;
                let start = attention.window.map_or(0, |w| end.saturating_sub(w));
                let mut scores: Vec<f64> = (start..end)
                    .map(|j| {
                        let k = &k[(j * n_kv_heads + kv) * k_dim..][..k_dim];
                        let dot: f64 = q.iter().zip(k).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                        let score = dot * f64::from(attention.scale);
                        attention.soft_cap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh())
                    })
                    .collect();
                scores.extend(attention.sinks.map(|s| f64::from(s[head])));
                let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
                let sum: f64 = weights.iter().sum();
                for d in 0..v_dim {
                    let at = |j: usize| f64::from(v[(j * n_kv_heads + kv) * v_dim + d]);
                    out.push((start..end).zip(&weights).map(|(j, w)| w * at(j)).sum::<f64>() / sum);
                }
            }
        }
        out
    }

    fn check(attention: Attention<'_>, shape: KvShape, n_positions: usize, n: usize) {
        let (q, k, v) = (
            values(n * attention.n_heads * shape.k_dim, 1),
            values(n_positions * shape.n_kv_heads * shape.k_dim, 2),
            values(n_positions * shape.n_kv_heads * shape.v_dim, 3),
        );
        let want = attention_ref(&attention, shape, &q, &k, &v, n_positions - n);
        for level in Level::all() {
            let mut first: Option<Vec<f32>> = None;
            for threads in [1, 3] {
                let mut cache = KvCache::new(KvType::F32, shape).unwrap();
                cache.append(&Pool::new(1), level, &k, &v);
                let mut out = vec![0.0; want.len()];
                attention.run(&Pool::new(threads), level, &cache, &q, &mut out);
                let worst = out.iter().zip(&want).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
                assert!(
                    worst < 2e-6,
                    "{attention:?} {shape:?} {n} of {n_positions}, {}: off by {worst:e}",
                    level.name()
                );
                assert!(first.is_none_or(|f| f == out), "threads change the result");
                first = Some(out);
            }
        }
    }

    #[test]
    fn it_is_the_definition_for_heads_windows_caps_and_sinks() {
        let plain = Attention { n_heads: 6, scale: 0.125, soft_cap: None, window: None, sinks: None };
        let shape = KvShape { n_kv_heads: 2, k_dim: 40, v_dim: 24 };
        let sinks = values(6, 9);
        for (n_positions, n) in [(1, 1), (33, 33), (300, 1), (300, 200), (600, 3)] {
            check(plain, shape, n_positions, n);
            check(Attention { window: Some(8), ..plain }, shape, n_positions, n);
            check(Attention { window: Some(290), soft_cap: Some(2.0), ..plain }, shape, n_positions, n);
            check(Attention { sinks: Some(&sinks), ..plain }, shape, n_positions, n);
        }
        check(Attention { n_heads: 2, ..plain }, KvShape { n_kv_heads: 2, k_dim: 64, v_dim: 64 }, 70, 70);
        check(Attention { n_heads: 40, ..plain }, KvShape { n_kv_heads: 1, k_dim: 32, v_dim: 128 }, 70, 70);
    }

    #[test]
    fn a_row_does_not_depend_on_the_rows_beside_it() {
        let attention = Attention { n_heads: 4, scale: 0.2, soft_cap: None, window: None, sinks: None };
        let shape = KvShape { n_kv_heads: 2, k_dim: 32, v_dim: 32 };
        let (q, k, v) = (values(300 * 128, 1), values(300 * 64, 2), values(300 * 64, 3));
        let pool = Pool::new(2);
        for level in Level::all() {
            let mut cache = KvCache::new(KvType::F16, shape).unwrap();
            cache.append(&pool, level, &k, &v);
            let mut all = vec![0.0; 300 * 128];
            attention.run(&pool, level, &cache, &q, &mut all);
            let mut last = vec![0.0; 128];
            attention.run(&pool, level, &cache, &q[299 * 128..], &mut last);
            assert_eq!(last, all[299 * 128..]);
        }
    }
}
