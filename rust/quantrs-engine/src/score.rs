//! How well a model predicts a text, and how far it is from another one.
//!
//! Logits of many tokens over a large vocabulary are hundreds of megabytes. The output matrix is therefore taken a stretch of its
//! rows at a time: their logits, for all scored tokens, are reduced while they are in a cache, and no weight is unpacked twice.

use crate::EngineError;
use crate::engine::{BATCH, Engine};
use crate::inputs::{Inputs, Run};
use crate::model::Model;
use quantrs_kernels::elementwise::{all_finite, scale, soft_cap};
use quantrs_kernels::{Disjoint, Divergence, Softmax};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Rows of the output matrix whose logits exist at the same time: 8 MB for a batch. The same for any number of threads, because
/// sums are taken stretch by stretch.
const STRETCH: usize = 4096;

/// How two models predict one token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Compared {
    /// -ln of the probability that the model gave the token.
    pub nll: f64,
    /// Likewise of the reference.
    pub reference_nll: f64,
    /// Kullback-Leibler divergence of the model's distribution from the reference's, in nats.
    pub divergence: f64,
    /// Whether both find the same token likeliest.
    pub same_top: bool,
}

/// The last step of a model for some tokens of a batch.
struct Head<'a> {
    run: Run<'a>,
    model: &'a Model,
    inputs: &'a mut Inputs,
    /// `[n, n_embd]`
    normed: &'a [f32],
}

impl Engine {
    /// Append tokens to the context, and say how well each but the first was predicted: -ln of the probability of token i + 1 after
    /// tokens 0 to i, for i from `first` on.
    ///
    /// # Errors
    /// As [`forward`](Engine::forward); the context is then what it was before.
    pub fn score(&mut self, tokens: &[u32], first: usize) -> Result<Vec<f64>, EngineError> {
        self.check(tokens)?;
        let n_past = self.n_past();
        let mut scores = Vec::with_capacity(tokens.len());
        let result = batches(tokens, first).try_for_each(|batch| {
            self.run_batch(batch.tokens, &mut |_| {})?;
            self.score_batch(&batch, &mut scores)
        });
        self.settle(n_past, tokens, result.is_ok());
        result.map(|()| scores)
    }

    /// [`score`](Engine::score) by both models, in step, and compare what they predict.
    ///
    /// # Errors
    /// As [`forward`](Engine::forward), or the vocabularies differ in size; the contexts are then what they were before.
    pub fn compare(
        &mut self,
        reference: &mut Engine,
        tokens: &[u32],
        first: usize,
    ) -> Result<Vec<Compared>, EngineError> {
        self.check(tokens)?;
        reference.check(tokens)?;
        let (found, expected) = (self.model.n_vocab, reference.model.n_vocab);
        if found != expected {
            return Err(EngineError::Size { what: "vocabulary, compared with the reference's", found, expected });
        }
        let n_past = [self.n_past(), reference.n_past()];
        let mut compared = Vec::with_capacity(tokens.len());
        let result = batches(tokens, first).try_for_each(|batch| {
            self.run_batch(batch.tokens, &mut |_| {})?;
            reference.run_batch(batch.tokens, &mut |_| {}).map_err(of_reference)?;
            self.compare_batch(reference, &batch, &mut compared)
        });
        self.settle(n_past[0], tokens, result.is_ok());
        reference.settle(n_past[1], tokens, result.is_ok());
        result.map(|()| compared)
    }

    fn score_batch(&mut self, batch: &Batch<'_>, scores: &mut Vec<f64>) -> Result<(), EngineError> {
        let mut head = self.head(batch.scored.clone());
        let mut logits = Vec::new();
        let mut softmaxes = vec![(Softmax::EMPTY, 0.0); batch.targets.len()];
        let level = head.run.level;
        for rows in head.stretches() {
            head.logits(&rows, &mut logits);
            reduce(&head, &rows, &mut softmaxes, |i, (softmax, target_logit)| {
                let logits = &logits[i * rows.len()..][..rows.len()];
                softmax.add(level, logits, rows.start);
                note(logits, &rows, batch.targets[i], target_logit);
                all_finite(level, logits)
            })?;
        }
        scores.extend(softmaxes.iter().map(|(softmax, target)| softmax.log_sum() - f64::from(*target)));
        Ok(())
    }

    fn compare_batch(
        &mut self,
        reference: &mut Engine,
        batch: &Batch<'_>,
        compared: &mut Vec<Compared>,
    ) -> Result<(), EngineError> {
        let mut head = self.head(batch.scored.clone());
        let mut reference = reference.head(batch.scored.clone());
        // One pool for both: idle threads of another would stand in the way.
        reference.run.pool = head.run.pool;
        let (mut logits, mut reference_logits) = (Vec::new(), Vec::new());
        let mut divergences = vec![(Divergence::EMPTY, 0.0, 0.0); batch.targets.len()];
        let level = head.run.level;
        for rows in head.stretches() {
            head.logits(&rows, &mut logits);
            reference.logits(&rows, &mut reference_logits);
            reduce(&head, &rows, &mut divergences, |i, (divergence, target, reference_target)| {
                let at = i * rows.len()..(i + 1) * rows.len();
                let (logits, reference_logits) = (&logits[at.clone()], &reference_logits[at]);
                divergence.add(level, reference_logits, logits, rows.start);
                note(logits, &rows, batch.targets[i], target);
                note(reference_logits, &rows, batch.targets[i], reference_target);
                all_finite(level, logits)
            })?;
            let finite = |i: usize, _: &mut _| all_finite(level, &reference_logits[i * rows.len()..][..rows.len()]);
            reduce(&reference, &rows, &mut divergences, finite).map_err(of_reference)?;
        }
        compared.extend(divergences.iter().map(|(divergence, target, reference_target)| Compared {
            nll: divergence.model.log_sum() - f64::from(*target),
            reference_nll: divergence.reference.log_sum() - f64::from(*reference_target),
            divergence: divergence.value(),
            same_top: divergence.model.top() == divergence.reference.top(),
        }));
        Ok(())
    }

    /// The norm of the tokens `scored` of the last batch, and what the output matrix needs.
    fn head(&mut self, scored: Range<usize>) -> Head<'_> {
        let Engine { model, settings, pool, x, normed, inputs, .. } = self;
        let run = Run { pool, level: settings.level, maps: &model.maps, precision: settings.precision };
        let x = &x[scored.start * model.n_embd..scored.end * model.n_embd];
        normed.resize(x.len(), 0.0);
        run.norm(&model.output_norm, x, normed);
        inputs.renew();
        Head { run, model, inputs, normed }
    }
}

impl Head<'_> {
    /// The rows of the output matrix.
    fn stretches(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let n_vocab = self.model.n_vocab;
        (0..n_vocab).step_by(STRETCH).map(move |start| start..n_vocab.min(start + STRETCH))
    }

    /// `out` becomes the logits of some tokens of the vocabulary: `[n, rows]`.
    fn logits(&mut self, rows: &Range<usize>, out: &mut Vec<f32>) {
        let Head { run, model, inputs, normed } = self;
        out.resize(normed.len() / model.n_embd * rows.len(), 0.0);
        run.linear_rows(&model.output, 0, rows.clone(), inputs, normed, out);
        quantrs_kernels::for_rows(run.pool, out, rows.len(), |_, out| {
            if model.logit_scale != 1.0 {
                scale(run.level, out, model.logit_scale);
            }
            if let Some(cap) = model.logit_soft_cap {
                soft_cap(run.level, out, cap);
            }
        });
    }
}

/// Tokens that go through the blocks together, and which of them are scored.
struct Batch<'a> {
    tokens: &'a [u32],
    scored: Range<usize>,
    /// What follows each scored token.
    targets: &'a [u32],
}

/// The batches of tokens of which those from `first` to the last but one are scored.
fn batches(tokens: &[u32], first: usize) -> impl Iterator<Item = Batch<'_>> {
    (0..tokens.len()).step_by(BATCH).map(move |start| {
        let end = tokens.len().min(start + BATCH);
        let scored_end = end.min(tokens.len() - 1);
        let scored = first.clamp(start, scored_end.max(start))..scored_end.max(start);
        Batch {
            tokens: &tokens[start..end],
            scored: scored.start - start..scored.end - start,
            targets: &tokens[(scored.start + 1).min(tokens.len())..(scored.end + 1).min(tokens.len())],
        }
    })
}

/// Call `f` for each of the states, on all threads; an error when it finds logits that are not finite.
fn reduce<T: Send>(
    head: &Head<'_>,
    rows: &Range<usize>,
    states: &mut [T],
    f: impl Fn(usize, &mut T) -> bool + Sync,
) -> Result<(), EngineError> {
    const TASK_VALUES: usize = 1 << 14;
    let n = states.len();
    let per_task = (TASK_VALUES / rows.len()).max(1);
    let states = Disjoint::new(states);
    let finite = AtomicBool::new(true);
    head.run.pool.run(n.div_ceil(per_task), |task| {
        let first = task * per_task;
        // SAFETY: every task has its own states.
        let states = unsafe { states.range(first, per_task.min(n - first)) };
        for (i, state) in states.iter_mut().enumerate() {
            if !f(first + i, state) {
                finite.store(false, Relaxed);
            }
        }
    });
    if finite.load(Relaxed) {
        return Ok(());
    }
    Err(EngineError::NotFinite { place: head.model.output.name.clone() })
}

/// The error says that it was the other model's.
fn of_reference(error: EngineError) -> EngineError {
    match error {
        EngineError::NotFinite { place } => EngineError::NotFinite { place: format!("{place} of the reference") },
        other => other,
    }
}

/// Keep the logit of a token if it is among these rows.
fn note(logits: &[f32], rows: &Range<usize>, token: u32, target: &mut f32) {
    if rows.contains(&(token as usize)) {
        *target = logits[token as usize - rows.start];
    }
}
