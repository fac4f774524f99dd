//! MLPs: one, or a choice of several per token.

use crate::EngineError;
use crate::inputs::{Event, Inputs, Run, Watch, sized};
use crate::spec::{ActivationSpec, FfnSpec, GatingSpec, MlpSpec, MoeSpec};
use crate::weights::{Linear, Tensors};
use quantrs_kernels::elementwise::{Activation, add_scaled, sigmoid, softmax};
use quantrs_kernels::for_rows;

#[derive(Clone, Debug)]
pub(crate) struct Mlp {
    activation: Activation,
    gate: Option<Linear>,
    up: Linear,
    down: Linear,
    has_experts: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Moe {
    router: Linear,
    gating: GatingSpec,
    selection_bias: Option<Vec<f32>>,
    n_used: usize,
    renormalize: bool,
    scale: f32,
    experts: Mlp,
    shared: Option<Mlp>,
    shared_gate: Option<Linear>,
}

#[derive(Clone, Debug)]
pub(crate) enum Ffn {
    Mlp(Box<Mlp>),
    Moe(Box<Moe>),
}

/// Buffers of an MLP.
#[derive(Debug, Default)]
pub(crate) struct FfnScratch {
    gate: Vec<f32>,
    up: Vec<f32>,
    hidden: Inputs,
    router: Vec<f32>,
    expert_in: Vec<f32>,
    expert_out: Vec<f32>,
    expert_inputs: Inputs,
}

impl Mlp {
    fn load(spec: &MlpSpec, tensors: &Tensors<'_>) -> Result<Mlp, EngineError> {
        let activation = match spec.activation {
            ActivationSpec::Silu => Activation::Silu,
            ActivationSpec::GeluTanh => Activation::GeluTanh,
            ActivationSpec::Relu => Activation::Relu,
        };
        let gate = spec.gate.as_ref().map(|gate| tensors.linear(gate)).transpose()?;
        let (up, down) = (tensors.linear(&spec.up)?, tensors.linear(&spec.down)?);
        Ok(Mlp { activation, gate, up, down, has_experts: spec.up.n_matrices > 1 })
    }

    fn linears(&self) -> impl Iterator<Item = &Linear> {
        self.gate.iter().chain([&self.up, &self.down])
    }

    /// `x: [n, n_embd]`, packed in `inputs` as far as it is; `out: [n, n_embd]`.
    #[allow(clippy::too_many_arguments, reason = "the buffers of one product after the other")]
    fn run(
        &self,
        run: &Run<'_>,
        expert: usize,
        x: &[f32],
        inputs: &mut Inputs,
        gate: &mut Vec<f32>,
        up: &mut Vec<f32>,
        hidden: &mut Inputs,
        out: &mut [f32],
        watch: &mut Watch<'_>,
    ) {
        let (n_ff, n_cols) = (self.up.n_rows, self.up.n_cols);
        let n = x.len() / n_cols;
        let named = self.has_experts.then_some(expert);
        let up = sized(up, n * n_ff);
        let values = if let Some(linear) = &self.gate {
            watch(Event::LinearInput { tensor: &linear.name, expert: named, x, n_cols });
            let gate = sized(gate, n * n_ff);
            if self.up.name != linear.name {
                watch(Event::LinearInput { tensor: &self.up.name, expert: named, x, n_cols });
            }
            run.linears(expert, inputs, x, &mut [(linear, &mut *gate), (&self.up, &mut *up)]);
            for_rows(run.pool, gate, n_ff, |first, gate| {
                self.activation.apply_gated(run.level, gate, &up[first * n_ff..][..gate.len()]);
            });
            gate
        } else {
            watch(Event::LinearInput { tensor: &self.up.name, expert: named, x, n_cols });
            run.linear(&self.up, expert, inputs, x, up);
            for_rows(run.pool, up, n_ff, |_, up| self.activation.apply(run.level, up));
            up
        };
        watch(Event::LinearInput { tensor: &self.down.name, expert: named, x: values, n_cols: n_ff });
        hidden.renew();
        run.linear(&self.down, expert, hidden, values, out);
    }
}

impl Ffn {
    pub(crate) fn load(spec: &FfnSpec, tensors: &Tensors<'_>) -> Result<Ffn, EngineError> {
        Ok(match spec {
            FfnSpec::Mlp(mlp) => Ffn::Mlp(Box::new(Mlp::load(mlp, tensors)?)),
            FfnSpec::Moe(moe) => Ffn::Moe(Box::new(Moe::load(moe, tensors)?)),
        })
    }

    pub(crate) fn linears(&self) -> Box<dyn Iterator<Item = &Linear> + '_> {
        match self {
            Ffn::Mlp(mlp) => Box::new(mlp.linears()),
            Ffn::Moe(moe) => Box::new(
                [&moe.router]
                    .into_iter()
                    .chain(&moe.shared_gate)
                    .chain(moe.shared.iter().flat_map(Mlp::linears))
                    .chain(moe.experts.linears()),
            ),
        }
    }

    /// `x: [n, n_embd]`, `out: [n, n_embd]`; `inputs` holds nothing of other values.
    pub(crate) fn run(
        &self,
        run: &Run<'_>,
        x: &[f32],
        inputs: &mut Inputs,
        scratch: &mut FfnScratch,
        out: &mut [f32],
        watch: &mut Watch<'_>,
    ) {
        match self {
            Ffn::Mlp(mlp) => {
                let FfnScratch { gate, up, hidden, .. } = scratch;
                mlp.run(run, 0, x, inputs, gate, up, hidden, out, watch);
            }
            Ffn::Moe(moe) => moe.run(run, x, inputs, scratch, out, watch),
        }
    }
}

impl Moe {
    fn load(spec: &MoeSpec, tensors: &Tensors<'_>) -> Result<Moe, EngineError> {
        let router = tensors.linear(&spec.router)?;
        let n_experts = router.n_rows;
        Ok(Moe {
            gating: spec.gating,
            selection_bias: spec.selection_bias.as_ref().map(|b| tensors.vector(b, n_experts)).transpose()?,
            n_used: spec.n_used,
            renormalize: spec.renormalize,
            scale: spec.scale,
            experts: Mlp::load(&spec.experts, tensors)?,
            shared: spec.shared.as_ref().map(|shared| Mlp::load(shared, tensors)).transpose()?,
            shared_gate: spec.shared_gate.as_ref().map(|gate| tensors.linear(gate)).transpose()?,
            router,
        })
    }

    fn run(
        &self,
        run: &Run<'_>,
        x: &[f32],
        inputs: &mut Inputs,
        scratch: &mut FfnScratch,
        out: &mut [f32],
        watch: &mut Watch<'_>,
    ) {
        let FfnScratch { gate, up, hidden, router, expert_in, expert_out, expert_inputs } = scratch;
        let n_cols = self.router.n_cols;
        let n = x.len() / n_cols;
        watch(Event::LinearInput { tensor: &self.router.name, expert: None, x, n_cols });
        let scores = sized(router, n * self.router.n_rows);
        run.linear(&self.router, 0, inputs, x, scores);

        let mut chosen: Vec<Vec<(usize, f32)>> = vec![Vec::new(); self.router.n_rows];
        for (token, scores) in scores.chunks_exact_mut(self.router.n_rows).enumerate() {
            for (expert, weight) in self.choose(scores) {
                chosen[expert].push((token, weight));
            }
        }

        if let Some(shared) = &self.shared {
            shared.run(run, 0, x, inputs, gate, up, hidden, out, watch);
            if let Some(linear) = &self.shared_gate {
                watch(Event::LinearInput { tensor: &linear.name, expert: None, x, n_cols });
                let factors = sized(expert_out, n);
                run.linear(linear, 0, inputs, x, factors);
                for (out, factor) in out.chunks_exact_mut(n_cols).zip(factors) {
                    let factor = sigmoid(*factor);
                    out.iter_mut().for_each(|x| *x *= factor);
                }
            }
        } else {
            out.fill(0.0);
        }

        // Experts in order, whatever the order of the scores: the sum does not depend on the tokens beside.
        for (expert, tokens) in chosen.iter().enumerate().filter(|(_, tokens)| !tokens.is_empty()) {
            let result = sized(expert_out, tokens.len() * n_cols);
            if n == 1 {
                self.experts.run(run, expert, x, inputs, gate, up, hidden, result, watch);
            } else {
                expert_in.clear();
                for (token, _) in tokens {
                    expert_in.extend_from_slice(&x[token * n_cols..][..n_cols]);
                }
                expert_inputs.renew();
                self.experts.run(run, expert, expert_in, expert_inputs, gate, up, hidden, result, watch);
            }
            for ((token, weight), result) in tokens.iter().zip(result.chunks_exact(n_cols)) {
                add_scaled(run.level, &mut out[token * n_cols..][..n_cols], result, *weight);
            }
        }
    }

    /// The experts of a token and their weights; of equal scores the lower number goes first.
    fn choose(&self, scores: &mut [f32]) -> Vec<(usize, f32)> {
        match self.gating {
            GatingSpec::Softmax => softmax(scores),
            GatingSpec::Sigmoid => scores.iter_mut().for_each(|s| *s = sigmoid(*s)),
        }
        let bias = |i: usize| self.selection_bias.as_ref().map_or(0.0, |b| b[i]);
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|a, b| (scores[*b] + bias(*b)).total_cmp(&(scores[*a] + bias(*a))));
        order.truncate(self.n_used);
        let sum: f32 = order.iter().map(|i| scores[*i]).sum();
        let factor = if self.renormalize { self.scale / sum } else { self.scale };
        order.into_iter().map(|i| (i, scores[i] * factor)).collect()
    }
}
