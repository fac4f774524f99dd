//! The graph of a model as data.
//!
//! Written as JSON by whoever knows the model family; unknown fields are refused, so that a feature this engine lacks is never
//! ignored silently. Tensors are named as in the GGUF file.

use crate::EngineError;
use serde::Deserialize;

/// A decoder: embedding, blocks, norm, output.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GraphSpec {
    /// Size of the vocabulary.
    pub n_vocab: usize,
    /// Values per token between blocks.
    pub n_embd: usize,
    /// Longest context that the model was made for.
    pub n_ctx_train: usize,
    /// `[n_vocab, n_embd]`
    pub token_embd: String,
    /// `[n_ctx_train, n_embd]`, added to the embeddings by position.
    pub position_embd: Option<String>,
    /// Factor of the embeddings.
    pub embedding_scale: f32,
    /// In order.
    pub blocks: Vec<BlockSpec>,
    /// Before the output.
    pub output_norm: NormSpec,
    /// `[n_vocab, n_embd]`; the tensor of the embeddings where they are tied.
    pub output: LinearSpec,
    /// Factor of the logits.
    pub logit_scale: f32,
    /// Logits become `cap * tanh(logit / cap)`.
    pub logit_soft_cap: Option<f32>,
}

/// x += scale * attention(norm(x)); x += scale * ffn(norm(x)).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockSpec {
    /// Of the attention's input.
    pub attn_norm: Option<NormSpec>,
    /// The attention.
    pub attention: AttentionSpec,
    /// Of the attention's output, before it is added.
    pub post_attn_norm: Option<NormSpec>,
    /// Of the MLP's input.
    pub ffn_norm: Option<NormSpec>,
    /// The MLP or the experts.
    pub ffn: FfnSpec,
    /// Of the MLP's output, before it is added.
    pub post_ffn_norm: Option<NormSpec>,
    /// Factor of both outputs.
    pub residual_scale: f32,
}

/// Which norm.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum NormKind {
    /// x / sqrt(mean(x^2) + eps) * weight
    Rms,
    /// (x - mean) / sqrt(variance + eps) * weight + bias
    Layer,
}

/// A norm.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NormSpec {
    /// Which.
    pub kind: NormKind,
    /// Tensor.
    pub weight: String,
    /// Tensor.
    pub bias: Option<String>,
    /// Added to the mean square.
    pub eps: f32,
}

/// A matrix, or some rows of one, or one matrix per expert.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinearSpec {
    /// `[n_matrices, tensor_rows, n_cols]`; without the first where `n_matrices` is 1.
    pub tensor: String,
    /// `[tensor_rows]`
    pub bias: Option<String>,
    /// Inputs.
    pub n_cols: usize,
    /// Outputs.
    pub n_rows: usize,
    /// Rows of the tensor, more than `n_rows` where several matrices are stored as one.
    pub tensor_rows: usize,
    /// The first of the `n_rows`.
    pub first_row: usize,
    /// Experts.
    pub n_matrices: usize,
}

/// Attention with its projections.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttentionSpec {
    /// Query heads.
    pub n_heads: usize,
    /// Key/value heads; they divide the query heads.
    pub n_kv_heads: usize,
    /// Values per key.
    pub k_dim: usize,
    /// Values per value.
    pub v_dim: usize,
    /// `[n_heads * k_dim, n_embd]`
    pub q: LinearSpec,
    /// `[n_kv_heads * k_dim, n_embd]`
    pub k: LinearSpec,
    /// `[n_kv_heads * v_dim, n_embd]`
    pub v: LinearSpec,
    /// `[n_embd, n_heads * v_dim]`
    pub out: LinearSpec,
    /// Of each query head, or of all at once, by the length of the weight.
    pub q_norm: Option<NormSpec>,
    /// Likewise of the keys.
    pub k_norm: Option<NormSpec>,
    /// How positions enter, if by rotation.
    pub rope: Option<RopeSpec>,
    /// Positions seen, the own one included; all when absent.
    pub window: Option<usize>,
    /// Factor of the scores.
    pub scale: f32,
    /// Scores become `cap * tanh(score / cap)`.
    pub soft_cap: Option<f32>,
    /// Tensor of one more score per head, without value.
    pub sinks: Option<String>,
}

/// Which values of a head are rotated together.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum RopeStyleSpec {
    /// Neighbours.
    Normal,
    /// First and second half.
    Neox,
}

/// How long contexts are reached.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum RopeScalingSpec {
    /// Positions divided by the factor.
    Linear {
        /// The factor.
        factor: f64,
    },
    /// See [`quantrs_kernels::RopeScaling::Yarn`].
    Yarn {
        /// The factor.
        factor: f64,
        /// Trained context.
        original_context: usize,
        /// Kept above.
        beta_fast: f64,
        /// Divided below.
        beta_slow: f64,
    },
}

/// Rotary position embedding.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct RopeSpec {
    /// Which values belong together.
    pub style: RopeStyleSpec,
    /// Rotated values per head.
    pub n_dims: usize,
    /// Base of the speeds.
    pub base: f64,
    /// For long contexts.
    pub scaling: Option<RopeScalingSpec>,
    /// Factor of cosines and sines.
    pub magnitude: f32,
    /// Tensor `[n_dims / 2]` of divisors of the speeds.
    pub factors: Option<String>,
}

/// The activation function of an MLP.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum ActivationSpec {
    /// x * sigmoid(x)
    Silu,
    /// GELU by its tanh form.
    GeluTanh,
    /// max(x, 0)
    Relu,
}

/// down(act(gate(x)) * up(x)), or down(act(up(x))) without a gate.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MlpSpec {
    /// The function.
    pub activation: ActivationSpec,
    /// `[n_ff, n_embd]`
    pub gate: Option<LinearSpec>,
    /// `[n_ff, n_embd]`
    pub up: LinearSpec,
    /// `[n_embd, n_ff]`
    pub down: LinearSpec,
}

/// What a router makes of its scores.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum GatingSpec {
    /// Over all experts.
    Softmax,
    /// Each for itself.
    Sigmoid,
}

/// A mixture of experts.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MoeSpec {
    /// `[n_experts, n_embd]`
    pub router: LinearSpec,
    /// What becomes of its scores.
    pub gating: GatingSpec,
    /// Tensor `[n_experts]` added to the scores for the choice alone.
    pub selection_bias: Option<String>,
    /// Experts of a token.
    pub n_used: usize,
    /// Whether the chosen weights are divided by their sum.
    pub renormalize: bool,
    /// Factor of the weights.
    pub scale: f32,
    /// One MLP per expert: every linear has `n_matrices` of them.
    pub experts: MlpSpec,
    /// An MLP that every token goes through.
    pub shared: Option<MlpSpec>,
    /// `[1, n_embd]`: its sigmoid is the factor of the shared MLP.
    pub shared_gate: Option<LinearSpec>,
}

/// The second half of a block.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FfnSpec {
    /// One MLP.
    Mlp(Box<MlpSpec>),
    /// A choice of several.
    Moe(Box<MoeSpec>),
}

impl GraphSpec {
    /// Read a graph and check what can be checked without the file.
    ///
    /// # Errors
    /// [`EngineError::Graph`]
    pub fn from_json(json: &str) -> Result<GraphSpec, EngineError> {
        let spec: GraphSpec = serde_json::from_str(json).map_err(|e| EngineError::Graph { what: e.to_string() })?;
        spec.check()?;
        Ok(spec)
    }

    fn check(&self) -> Result<(), EngineError> {
        check(self.n_vocab > 0 && self.n_vocab <= u32::MAX as usize, "n_vocab", self.n_vocab, "1 to 2^32 - 1")?;
        check(self.n_embd > 0, "n_embd", self.n_embd, "at least 1")?;
        check(self.n_ctx_train > 0, "n_ctx_train", self.n_ctx_train, "at least 1")?;
        check(!self.blocks.is_empty(), "number of blocks", 0, "at least 1")?;
        self.output.check("output", self.n_embd, self.n_vocab, 1)?;
        for (i, block) in self.blocks.iter().enumerate() {
            block.attention.check(&format!("blk.{i} attention"), self.n_embd)?;
            let place = format!("blk.{i} ffn");
            match &block.ffn {
                FfnSpec::Mlp(mlp) => mlp.check(&place, self.n_embd, 1)?,
                FfnSpec::Moe(moe) => moe.check(&place, self.n_embd)?,
            }
        }
        Ok(())
    }
}

fn check(holds: bool, what: &str, found: impl std::fmt::Debug, expected: &str) -> Result<(), EngineError> {
    if holds {
        return Ok(());
    }
    Err(EngineError::Graph { what: format!("{what} is {found:?}, expected {expected}") })
}

impl LinearSpec {
    fn check(&self, place: &str, n_cols: usize, n_rows: usize, n_matrices: usize) -> Result<(), EngineError> {
        let found = (self.n_matrices, self.n_rows, self.n_cols);
        let expected = (n_matrices, n_rows, n_cols);
        check(
            found == expected,
            &format!("{place}: {} (matrices, rows, columns)", self.tensor),
            found,
            &format!("{expected:?}"),
        )?;
        check(n_rows > 0 && n_cols > 0, &format!("{place}: {}", self.tensor), (n_rows, n_cols), "rows and columns")?;
        let fits = self.first_row.checked_add(n_rows).is_some_and(|end| end <= self.tensor_rows);
        let what = format!("{place}: {} rows {}..+{n_rows}", self.tensor, self.first_row);
        check(fits, &what, self.tensor_rows, "rows within the tensor")
    }
}

impl AttentionSpec {
    fn check(&self, place: &str, n_embd: usize) -> Result<(), EngineError> {
        let heads = (self.n_heads, self.n_kv_heads);
        let shared_out = self.n_kv_heads > 0 && self.n_heads > 0 && self.n_heads.is_multiple_of(self.n_kv_heads);
        check(
            shared_out,
            &format!("{place}: heads, kv heads"),
            heads,
            "at least 1 each, the second dividing the first",
        )?;
        let dims = (self.k_dim, self.v_dim);
        check(
            (1..=4096).contains(&self.k_dim) && (1..=4096).contains(&self.v_dim),
            &format!("{place}: values per head"),
            dims,
            "1 to 4096",
        )?;
        check(self.n_heads <= 1 << 16, &format!("{place}: heads"), self.n_heads, "at most 65536")?;
        self.q.check(place, n_embd, self.n_heads * self.k_dim, 1)?;
        self.k.check(place, n_embd, self.n_kv_heads * self.k_dim, 1)?;
        self.v.check(place, n_embd, self.n_kv_heads * self.v_dim, 1)?;
        self.out.check(place, self.n_heads * self.v_dim, n_embd, 1)?;
        check(self.window != Some(0), &format!("{place}: window"), self.window, "at least 1, or none")?;
        check(self.scale.is_finite(), &format!("{place}: scale"), self.scale, "a finite number")?;
        match &self.rope {
            Some(rope) => rope.check(place, self.k_dim),
            None => Ok(()),
        }
    }
}

impl RopeSpec {
    fn check(&self, place: &str, k_dim: usize) -> Result<(), EngineError> {
        let fits = self.n_dims >= 2 && self.n_dims.is_multiple_of(2) && self.n_dims <= k_dim;
        check(
            fits,
            &format!("{place}: rotated values"),
            self.n_dims,
            &format!("an even number of 2 to {k_dim}, the head's length"),
        )?;
        check(
            self.base > 1.0 && self.base.is_finite(),
            &format!("{place}: rope base"),
            self.base,
            "a finite number above 1",
        )?;
        check(self.magnitude.is_finite(), &format!("{place}: rope magnitude"), self.magnitude, "a finite number")?;
        let factor = match self.scaling {
            None => 1.0,
            Some(RopeScalingSpec::Linear { factor }) => factor,
            Some(RopeScalingSpec::Yarn { factor, original_context, beta_fast, beta_slow }) => {
                let betas = beta_fast > 0.0 && beta_slow > 0.0 && original_context > 0;
                let found = (original_context, beta_fast, beta_slow);
                check(betas, &format!("{place}: YaRN context, beta_fast, beta_slow"), found, "positive numbers")?;
                factor
            }
        };
        check(factor > 0.0 && factor.is_finite(), &format!("{place}: rope scaling factor"), factor, "a positive number")
    }
}

impl MlpSpec {
    fn check(&self, place: &str, n_embd: usize, n_matrices: usize) -> Result<(), EngineError> {
        let n_ff = self.up.n_rows;
        self.up.check(place, n_embd, n_ff, n_matrices)?;
        if let Some(gate) = &self.gate {
            gate.check(place, n_embd, n_ff, n_matrices)?;
        }
        self.down.check(place, n_ff, n_embd, n_matrices)
    }
}

impl MoeSpec {
    fn check(&self, place: &str, n_embd: usize) -> Result<(), EngineError> {
        let n_experts = self.router.n_rows;
        self.router.check(place, n_embd, n_experts, 1)?;
        let what = format!("{place}: experts used per token");
        check((1..=n_experts).contains(&self.n_used), &what, self.n_used, &format!("1 to {n_experts}"))?;
        self.experts.check(place, n_embd, n_experts)?;
        if let Some(shared) = &self.shared {
            shared.check(place, n_embd, 1)?;
        }
        match &self.shared_gate {
            Some(gate) => gate.check(place, n_embd, 1, 1),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRAPH: &str = r#"{"n_vocab": 8, "n_embd": 4, "n_ctx_train": 16, "token_embd": "e", "position_embd": null, "embedding_scale": 1.0,
        "logit_scale": 1.0, "logit_soft_cap": null, "output_norm": {"kind": "rms", "weight": "n", "bias": null, "eps": 1e-5},
        "output": {"tensor": "o", "bias": null, "n_cols": 4, "n_rows": 8, "tensor_rows": 8, "first_row": 0, "n_matrices": 1},
        "blocks": [{"attn_norm": null, "post_attn_norm": null, "ffn_norm": null, "post_ffn_norm": null, "residual_scale": 1.0,
          "attention": {"n_heads": 2, "n_kv_heads": 1, "k_dim": 2, "v_dim": 2, "scale": 0.7, "rope": null, "q_norm": null,
            "k_norm": null, "window": null, "soft_cap": null, "sinks": null,
            "q": {"tensor": "q", "bias": null, "n_cols": 4, "n_rows": 4, "tensor_rows": 4, "first_row": 0, "n_matrices": 1},
            "k": {"tensor": "kv", "bias": null, "n_cols": 4, "n_rows": 2, "tensor_rows": 4, "first_row": 0, "n_matrices": 1},
            "v": {"tensor": "kv", "bias": null, "n_cols": 4, "n_rows": 2, "tensor_rows": 4, "first_row": 2, "n_matrices": 1},
            "out": {"tensor": "p", "bias": null, "n_cols": 4, "n_rows": 4, "tensor_rows": 4, "first_row": 0, "n_matrices": 1}},
          "ffn": {"mlp": {"activation": "silu", "gate": null,
            "up": {"tensor": "u", "bias": null, "n_cols": 4, "n_rows": 6, "tensor_rows": 6, "first_row": 0, "n_matrices": 1},
            "down": {"tensor": "d", "bias": null, "n_cols": 6, "n_rows": 4, "tensor_rows": 4, "first_row": 0, "n_matrices": 1}}}}]}"#;

    #[test]
    fn a_sound_graph_is_read() {
        let graph = GraphSpec::from_json(GRAPH).unwrap();
        assert_eq!(graph.blocks[0].attention.v.first_row, 2);
    }

    #[test]
    fn every_kind_of_mistake_is_named() {
        for (from, to, words) in [
            (r#""n_vocab": 8"#, r#""n_vocab": 0"#, "n_vocab is 0"),
            (r#""n_vocab": 8"#, r#""n_vocab": -1"#, "invalid value"),
            (r#""n_kv_heads": 1"#, r#""n_kv_heads": 0"#, "dividing"),
            (r#""n_heads": 2"#, r#""n_heads": 3"#, "blk.0 attention: q"),
            (r#""k_dim": 2"#, r#""k_dim": 5000"#, "1 to 4096"),
            (r#""first_row": 2"#, r#""first_row": 3"#, "rows within the tensor"),
            (r#""first_row": 2"#, r#""first_row": 18446744073709551615"#, "rows within the tensor"),
            (r#""window": null"#, r#""window": 0"#, "window"),
            (r#""sinks": null"#, r#""sinks": null, "odd": 1"#, "unknown field `odd`"),
            (r#""kind": "rms""#, r#""kind": "odd""#, "unknown variant"),
            (
                r#""rope": null"#,
                r#""rope": {"style": "neox", "n_dims": 3, "base": 1e4, "scaling": null, "magnitude": 1.0, "factors": null}"#,
                "even number of 2 to 2",
            ),
        ] {
            let error = GraphSpec::from_json(&GRAPH.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(words), "{to}: {error}");
        }
    }
}
