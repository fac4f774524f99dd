//! One block: attention and MLP, each with its norms, added to what came in.

use crate::EngineError;
use crate::experts::{Ffn, FfnScratch};
use crate::inputs::{Event, Inputs, Run, Watch, sized};
use crate::spec::{AttentionSpec, BlockSpec, NormSpec};
use crate::weights::{Linear, Norm, Tensors};
use quantrs_kernels::{Attention, KvCache, KvShape, RopeTable, for_rows};

#[derive(Clone, Debug)]
pub(crate) struct Block {
    /// `blk.3`, as its tensors say: a model may consist of some blocks of another.
    pub(crate) name: String,
    attn_norm: Option<Norm>,
    n_heads: usize,
    pub(crate) kv_shape: KvShape,
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
    q_norm: Option<Norm>,
    k_norm: Option<Norm>,
    /// Which of the model's tables.
    rope: Option<usize>,
    window: Option<usize>,
    scale: f32,
    soft_cap: Option<f32>,
    sinks: Option<Vec<f32>>,
    post_attn_norm: Option<Norm>,
    ffn_norm: Option<Norm>,
    ffn: Ffn,
    post_ffn_norm: Option<Norm>,
    residual_scale: f32,
}

/// Buffers of a block.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    normed: Vec<f32>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    heads: Vec<f32>,
    out: Vec<f32>,
    inputs: Inputs,
    ffn: FfnScratch,
}

/// A norm over `n_heads` heads of `dim` values: of each head, or of all at once, as the weight's length says.
fn head_norm(
    spec: Option<&NormSpec>,
    tensors: &Tensors<'_>,
    n_heads: usize,
    dim: usize,
) -> Result<Option<Norm>, EngineError> {
    let Some(spec) = spec else { return Ok(None) };
    let over_all = tensors.len_of(&spec.weight) == Some(n_heads * dim);
    Ok(Some(tensors.norm(spec, if over_all { n_heads * dim } else { dim })?))
}

impl Block {
    pub(crate) fn load(
        spec: &BlockSpec,
        n_embd: usize,
        rope: Option<usize>,
        tensors: &Tensors<'_>,
    ) -> Result<Block, EngineError> {
        let norm = |norm: &Option<NormSpec>| norm.as_ref().map(|norm| tensors.norm(norm, n_embd)).transpose();
        let AttentionSpec { n_heads, n_kv_heads, k_dim, v_dim, window, scale, soft_cap, .. } = spec.attention;
        let attention = &spec.attention;
        Ok(Block {
            name: attention.out.tensor.splitn(3, '.').take(2).collect::<Vec<_>>().join("."),
            attn_norm: norm(&spec.attn_norm)?,
            n_heads,
            kv_shape: KvShape { n_kv_heads, k_dim, v_dim },
            q: tensors.linear(&attention.q)?,
            k: tensors.linear(&attention.k)?,
            v: tensors.linear(&attention.v)?,
            out: tensors.linear(&attention.out)?,
            q_norm: head_norm(attention.q_norm.as_ref(), tensors, n_heads, k_dim)?,
            k_norm: head_norm(attention.k_norm.as_ref(), tensors, n_kv_heads, k_dim)?,
            rope,
            window,
            scale,
            soft_cap,
            sinks: attention.sinks.as_ref().map(|sinks| tensors.vector(sinks, n_heads)).transpose()?,
            post_attn_norm: norm(&spec.post_attn_norm)?,
            ffn_norm: norm(&spec.ffn_norm)?,
            ffn: Ffn::load(&spec.ffn, tensors)?,
            post_ffn_norm: norm(&spec.post_ffn_norm)?,
            residual_scale: spec.residual_scale,
        })
    }

    pub(crate) fn linears(&self) -> impl Iterator<Item = &Linear> {
        [&self.q, &self.k, &self.v, &self.out].into_iter().chain(self.ffn.linears())
    }

    /// `x: [n, n_embd]`, the tokens that follow those in the cache, in place; they are appended to the cache.
    pub(crate) fn run(
        &self,
        run: &Run<'_>,
        ropes: &[RopeTable],
        cache: &mut KvCache,
        x: &mut [f32],
        scratch: &mut Scratch,
        watch: &mut Watch<'_>,
    ) {
        let Scratch { normed, q, k, v, heads, out, inputs, ffn } = scratch;
        let KvShape { n_kv_heads, k_dim, v_dim } = self.kv_shape;
        let (n_embd, first) = (self.q.n_cols, cache.len());
        let n = x.len() / n_embd;

        let normed = sized(normed, n * n_embd);
        self.norm_or_copy(run, self.attn_norm.as_ref(), x, normed);
        inputs.renew();
        let q = sized(q, n * self.n_heads * k_dim);
        let k = sized(k, n * n_kv_heads * k_dim);
        let v = sized(v, n * n_kv_heads * v_dim);
        let mut watched = "";
        for linear in [&self.q, &self.k, &self.v] {
            if watched != linear.name {
                watch(Event::LinearInput { tensor: &linear.name, expert: None, x: normed, n_cols: n_embd });
                watched = &linear.name;
            }
        }
        run.linears(0, inputs, normed, &mut [(&self.q, &mut *q), (&self.k, &mut *k), (&self.v, &mut *v)]);
        run.norm_in_place(self.q_norm.as_ref(), q);
        run.norm_in_place(self.k_norm.as_ref(), k);
        if let Some(rope) = self.rope.map(|i| &ropes[i]) {
            for (x, row_len) in [(&mut *q, self.n_heads * k_dim), (&mut *k, n_kv_heads * k_dim)] {
                for_rows(run.pool, x, row_len, |i, x| rope.rotate(run.level, x, row_len, k_dim, first + i));
            }
        }
        cache.append(run.pool, run.level, k, v);
        let heads = sized(heads, n * self.n_heads * v_dim);
        let Block { n_heads, scale, soft_cap, window, .. } = *self;
        let attention = Attention { n_heads, scale, soft_cap, window, sinks: self.sinks.as_deref() };
        attention.run(run.pool, run.level, cache, q, heads);

        let n_cols = self.out.n_cols;
        watch(Event::LinearInput { tensor: &self.out.name, expert: None, x: heads, n_cols });
        inputs.renew();
        let out = sized(out, n * n_embd);
        run.linear(&self.out, 0, inputs, heads, out);
        run.norm_in_place(self.post_attn_norm.as_ref(), out);
        run.add_scaled(x, out, self.residual_scale, n_embd);

        self.norm_or_copy(run, self.ffn_norm.as_ref(), x, normed);
        inputs.renew();
        self.ffn.run(run, normed, inputs, ffn, out, watch);
        run.norm_in_place(self.post_ffn_norm.as_ref(), out);
        run.add_scaled(x, out, self.residual_scale, n_embd);
    }

    fn norm_or_copy(&self, run: &Run<'_>, norm: Option<&Norm>, x: &[f32], out: &mut [f32]) {
        match norm {
            Some(norm) => run.norm(norm, x, out),
            None => out.copy_from_slice(x),
        }
    }
}
