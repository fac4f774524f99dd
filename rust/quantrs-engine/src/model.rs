//! A loaded model: the graph with its tensors found.

use crate::EngineError;
use crate::block::Block;
use crate::maps::Maps;
use crate::spec::{GraphSpec, RopeScalingSpec, RopeSpec, RopeStyleSpec};
use crate::weights::{Linear, Norm, Tensors};
use quantrs_formats::Gguf;
use quantrs_kernels::{Rope, RopeScaling, RopeStyle};
use quantrs_simd::Level;

/// Weights and how they are used. Nothing in it changes; several engines can share it.
#[derive(Debug)]
pub struct Model {
    pub(crate) maps: Maps,
    pub(crate) n_vocab: usize,
    pub(crate) n_embd: usize,
    pub(crate) n_ctx_train: usize,
    pub(crate) token_embd: Linear,
    pub(crate) position_embd: Option<Linear>,
    pub(crate) embedding_scale: f32,
    pub(crate) blocks: Vec<Block>,
    /// Different ones, used by several blocks.
    pub(crate) ropes: Vec<Rope>,
    pub(crate) output_norm: Norm,
    pub(crate) output: Linear,
    pub(crate) logit_scale: f32,
    pub(crate) logit_soft_cap: Option<f32>,
}

impl Model {
    /// Map the model's files and find every tensor of the graph. Reads norms and biases, and of the matrices those of an assembly
    /// that do not lie as they are needed.
    ///
    /// # Errors
    /// [`EngineError`]: a tensor is missing, left over, or of another shape or type than the graph says.
    pub fn load(gguf: &Gguf, spec: &GraphSpec, level: Level) -> Result<Model, EngineError> {
        let maps = Maps::open(gguf.sources())?;
        let tensors = Tensors::new(gguf, &maps, level);
        let GraphSpec { n_vocab, n_embd, n_ctx_train, .. } = *spec;
        let table = |name: &str, n_rows: usize| {
            tensors.linear(&crate::spec::LinearSpec {
                tensor: name.to_owned(),
                bias: None,
                n_cols: n_embd,
                n_rows,
                tensor_rows: n_rows,
                first_row: 0,
                n_matrices: 1,
            })
        };
        let token_embd = table(&spec.token_embd, n_vocab)?;
        let position_embd = spec.position_embd.as_ref().map(|name| table(name, n_ctx_train)).transpose()?;
        let mut rope_specs: Vec<&RopeSpec> = Vec::new();
        let mut blocks = Vec::with_capacity(spec.blocks.len());
        for block in &spec.blocks {
            let rope = block.attention.rope.as_ref().map(|rope| {
                rope_specs.iter().position(|other| *other == rope).unwrap_or_else(|| {
                    rope_specs.push(rope);
                    rope_specs.len() - 1
                })
            });
            blocks.push(Block::load(block, n_embd, rope, &tensors)?);
        }
        let ropes = rope_specs.into_iter().map(|rope| load_rope(rope, &tensors)).collect::<Result<_, _>>()?;
        let output_norm = tensors.norm(&spec.output_norm, n_embd)?;
        let output = tensors.linear(&spec.output)?;
        tensors.check_all_used()?;
        drop(tensors);
        Ok(Model {
            maps,
            n_vocab,
            n_embd,
            n_ctx_train,
            token_embd,
            position_embd,
            embedding_scale: spec.embedding_scale,
            blocks,
            ropes,
            output_norm,
            output,
            logit_scale: spec.logit_scale,
            logit_soft_cap: spec.logit_soft_cap,
        })
    }

    /// Size of the vocabulary.
    pub fn n_vocab(&self) -> usize {
        self.n_vocab
    }

    /// Values per token between blocks.
    pub fn n_embd(&self) -> usize {
        self.n_embd
    }

    /// Name, experts (1 where there are none) and inputs of each matrix of the blocks, and of the output. Parts of one tensor come
    /// one by one.
    pub fn linears(&self) -> impl Iterator<Item = (&str, usize, usize)> {
        let all = self.blocks.iter().flat_map(Block::linears).chain([&self.output]);
        all.map(|linear| (linear.name.as_str(), linear.n_matrices, linear.n_cols))
    }

    /// Number of blocks.
    pub fn n_blocks(&self) -> usize {
        self.blocks.len()
    }
}

fn load_rope(spec: &RopeSpec, tensors: &Tensors<'_>) -> Result<Rope, EngineError> {
    let factors = spec.factors.as_ref().map(|name| tensors.vector(name, spec.n_dims / 2)).transpose()?;
    if let (Some(name), Some(bad)) = (&spec.factors, factors.as_ref().and_then(|f| f.iter().position(|f| *f <= 0.0))) {
        return Err(EngineError::Graph { what: format!("{name}: value {bad} is not positive; it divides a speed") });
    }
    Ok(Rope {
        style: match spec.style {
            RopeStyleSpec::Normal => RopeStyle::Interleaved,
            RopeStyleSpec::Neox => RopeStyle::Halves,
        },
        n_dims: spec.n_dims,
        base: spec.base,
        scaling: match spec.scaling {
            None => RopeScaling::None,
            Some(RopeScalingSpec::Linear { factor }) => RopeScaling::Linear { factor },
            Some(RopeScalingSpec::Yarn { factor, original_context, beta_fast, beta_slow }) => {
                RopeScaling::Yarn { factor, original_context, beta_fast, beta_slow }
            }
        },
        magnitude: spec.magnitude,
        factors,
    })
}
