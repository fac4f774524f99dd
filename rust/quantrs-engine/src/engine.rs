//! A model at work: its context, and the passes of tokens through the blocks.

use crate::EngineError;
use crate::block::Scratch;
use crate::inputs::{Event, Inputs, Run, Watch};
use crate::model::Model;
use quantrs_kernels::elementwise::{all_finite, scale, soft_cap};
use quantrs_kernels::{KvCache, KvType, Pool, Precision, RopeTable, for_rows};
use quantrs_simd::Level;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Tokens that go through the blocks together: enough for the products to be bound by arithmetic, few enough for their buffers to
/// stay small.
pub(crate) const BATCH: usize = 512;

/// How a model is run.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Threads, the caller's included.
    pub threads: usize,
    /// The instructions to use.
    pub level: Level,
    /// Whether activations are quantized for quantized weights.
    pub precision: Precision,
    /// How keys and values are kept.
    pub kv_type: KvType,
    /// Tokens that the context holds.
    pub n_ctx: usize,
}

/// What [`Engine::forward`] is to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Logits of the last token: `[n_vocab]`.
    Last,
    /// Logits of every token: `[n, n_vocab]`.
    All,
    /// What the output matrix would be multiplied with: `[n, n_embd]`.
    Hidden,
}

/// A model with a context of tokens.
#[derive(Debug)]
pub struct Engine {
    pub(crate) model: Arc<Model>,
    pub(crate) settings: Settings,
    pub(crate) pool: Pool,
    ropes: Vec<RopeTable>,
    caches: Vec<KvCache>,
    /// What the context holds, or what it begins with: other passes than [`forward`](Self::forward) do not note theirs.
    tokens: Vec<u32>,
    /// `[n, n_embd]`
    pub(crate) x: Vec<f32>,
    pub(crate) normed: Vec<f32>,
    pub(crate) inputs: Inputs,
    scratch: Scratch,
}

impl Engine {
    /// An engine with an empty context.
    ///
    /// # Errors
    /// The cache type cannot hold the model's heads, or the context is empty or longer than a model with learned positions has.
    pub fn new(model: Arc<Model>, settings: Settings) -> Result<Engine, EngineError> {
        let n_ctx = settings.n_ctx;
        let limit = if model.position_embd.is_some() { model.n_ctx_train } else { usize::MAX };
        if n_ctx == 0 || n_ctx > limit {
            let expected = if n_ctx == 0 {
                "at least 1".to_owned()
            } else {
                format!("at most {limit}, the positions that it learned")
            };
            return Err(EngineError::Graph { what: format!("n_ctx is {n_ctx}, expected {expected}") });
        }
        let cache = |shape| {
            KvCache::new(settings.kv_type, shape)
                .map_err(|reason| EngineError::KvType { kv_type: settings.kv_type.name(), reason })
        };
        let caches = model.blocks.iter().map(|block| cache(block.kv_shape)).collect::<Result<_, _>>()?;
        Ok(Engine {
            pool: Pool::new(settings.threads),
            ropes: model.ropes.iter().map(RopeTable::new).collect(),
            caches,
            tokens: Vec::new(),
            model,
            settings,
            x: Vec::new(),
            normed: Vec::new(),
            inputs: Inputs::default(),
            scratch: Scratch::default(),
        })
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// How it is run.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Tokens in the context.
    pub fn n_past(&self) -> usize {
        self.caches[0].len()
    }

    /// Forget all tokens but the first `n`.
    pub fn truncate(&mut self, n: usize) {
        for cache in &mut self.caches {
            cache.truncate(n);
        }
        self.tokens.truncate(n);
    }

    /// How many of the first `tokens` the context begins with.
    pub fn n_shared(&self, tokens: &[u32]) -> usize {
        self.tokens.iter().zip(tokens).take_while(|(held, wanted)| held == wanted).count()
    }

    /// Make `tokens` the context and compute the logits of what follows: only what the context does not begin with already is
    /// computed, at least the last token.
    ///
    /// # Errors
    /// Those of [`forward`](Self::forward).
    pub fn next_logits(&mut self, tokens: &[u32], out: &mut [f32]) -> Result<(), EngineError> {
        let n_ctx = self.settings.n_ctx;
        if tokens.len() > n_ctx {
            return Err(EngineError::ContextFull { n_past: 0, n_new: tokens.len(), n_ctx });
        }
        let n_kept = self.n_shared(tokens).min(tokens.len().saturating_sub(1));
        self.truncate(n_kept);
        self.forward(&tokens[n_kept..], Wanted::Last, out, &mut |_| {})
    }

    /// Bytes of keys and values.
    pub fn cache_bytes(&self) -> usize {
        self.caches.iter().map(KvCache::n_bytes).sum()
    }

    /// Values that [`forward`](Self::forward) gives for `n` tokens.
    pub fn output_len(&self, n: usize, wanted: Wanted) -> usize {
        match wanted {
            Wanted::Last => self.model.n_vocab,
            Wanted::All => n * self.model.n_vocab,
            Wanted::Hidden => n * self.model.n_embd,
        }
    }

    /// Append tokens to the context and compute what follows them.
    ///
    /// # Errors
    /// No tokens, an id outside the vocabulary, more tokens than the context holds, or a result that is not finite; the context is
    /// then what it was before.
    pub fn forward(
        &mut self,
        tokens: &[u32],
        wanted: Wanted,
        out: &mut [f32],
        watch: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), EngineError> {
        self.check(tokens)?;
        let expected = self.output_len(tokens.len(), wanted);
        if out.len() != expected {
            return Err(EngineError::Size { what: "output of forward", found: out.len(), expected });
        }
        let n_past = self.n_past();
        let result = self.forward_checked(tokens, wanted, out, watch);
        self.settle(n_past, tokens, result.is_ok());
        result
    }

    /// After a pass of `tokens` over a context of `n_past`: they belong to it now, or it is what it was before.
    pub(crate) fn settle(&mut self, n_past: usize, tokens: &[u32], succeeded: bool) {
        if !succeeded {
            self.truncate(n_past);
        } else if self.tokens.len() == n_past {
            self.tokens.extend_from_slice(tokens);
        }
    }

    pub(crate) fn check(&self, tokens: &[u32]) -> Result<(), EngineError> {
        if tokens.is_empty() {
            return Err(EngineError::Size { what: "tokens", found: 0, expected: 1 });
        }
        let n_vocab = self.model.n_vocab;
        if let Some(index) = tokens.iter().position(|id| *id as usize >= n_vocab) {
            return Err(EngineError::Token { index, id: tokens[index], n_vocab });
        }
        self.check_room(tokens.len())
    }

    fn check_room(&self, n_new: usize) -> Result<(), EngineError> {
        let (n_past, n_ctx) = (self.n_past(), self.settings.n_ctx);
        if n_new > n_ctx - n_past {
            return Err(EngineError::ContextFull { n_past, n_new, n_ctx });
        }
        Ok(())
    }

    fn forward_checked(
        &mut self,
        tokens: &[u32],
        wanted: Wanted,
        out: &mut [f32],
        watch: &mut Watch<'_>,
    ) -> Result<(), EngineError> {
        let n_batches = tokens.len().div_ceil(BATCH);
        let per_token = if wanted == Wanted::Last { 0 } else { out.len() / tokens.len() };
        for (i, tokens) in tokens.chunks(BATCH).enumerate() {
            self.run_batch(tokens, watch)?;
            let n_embd = self.model.n_embd;
            match wanted {
                Wanted::Last if i + 1 < n_batches => {}
                Wanted::Last => {
                    let last = self.x.len() - n_embd;
                    self.finish(last, wanted, out, watch)?;
                }
                _ => self.finish(0, wanted, &mut out[i * BATCH * per_token..][..tokens.len() * per_token], watch)?,
            }
        }
        Ok(())
    }

    /// Up to [`BATCH`] tokens go through all blocks; `x` is what comes out.
    pub(crate) fn run_batch(&mut self, tokens: &[u32], watch: &mut Watch<'_>) -> Result<(), EngineError> {
        self.embed(tokens)?;
        for block in 0..self.model.blocks.len() {
            watch(Event::Hidden { block, x: &self.x });
            self.run_block(block, watch)?;
        }
        watch(Event::Hidden { block: self.model.blocks.len(), x: &self.x });
        Ok(())
    }

    /// What goes into the first block, for the first tokens of a context: `[n, n_embd]`. The context is empty afterwards.
    ///
    /// # Errors
    /// No tokens, an id outside the vocabulary, more tokens than the context holds, or a value that is not finite.
    pub fn embeddings(&mut self, tokens: &[u32]) -> Result<Vec<f32>, EngineError> {
        self.truncate(0);
        self.check(tokens)?;
        self.embed(tokens)?;
        Ok(std::mem::take(&mut self.x))
    }

    /// `x` becomes the embeddings of the tokens.
    fn embed(&mut self, tokens: &[u32]) -> Result<(), EngineError> {
        let Engine { model, settings, x, pool, .. } = self;
        let (n_embd, n_past) = (model.n_embd, self.caches[0].len());
        x.resize(tokens.len() * n_embd, 0.0);
        for_rows(pool, x, n_embd, |first, rows| {
            for (i, row) in rows.chunks_exact_mut(n_embd).enumerate() {
                model.token_embd.read_row(settings.level, &model.maps, tokens[first + i] as usize, row);
                if model.embedding_scale != 1.0 {
                    scale(settings.level, row, model.embedding_scale);
                }
            }
        });
        if let Some(positions) = &model.position_embd {
            let mut position = vec![0.0; n_embd];
            for (i, row) in x.chunks_exact_mut(n_embd).enumerate() {
                positions.read_row(settings.level, &model.maps, n_past + i, &mut position);
                row.iter_mut().zip(&position).for_each(|(x, p)| *x += p);
            }
        }
        self.check_finite(|| self.model.token_embd.name.clone())
    }

    /// `x` goes through one block.
    fn run_block(&mut self, i: usize, watch: &mut Watch<'_>) -> Result<(), EngineError> {
        let Engine { model, settings, pool, ropes, caches, x, scratch, .. } = self;
        for rope in ropes.iter_mut() {
            rope.extend(caches[i].len() + x.len() / model.n_embd);
        }
        let run = Run { pool, level: settings.level, maps: &model.maps, precision: settings.precision };
        model.blocks[i].run(&run, ropes, &mut caches[i], x, scratch, watch);
        self.check_finite(|| self.model.blocks[i].name.clone())
    }

    /// The norm and the output matrix for the tokens whose values begin at `first` of `x`.
    fn finish(
        &mut self,
        first: usize,
        wanted: Wanted,
        out: &mut [f32],
        watch: &mut Watch<'_>,
    ) -> Result<(), EngineError> {
        let Engine { model, settings, pool, x, normed, inputs, .. } = self;
        let (level, n_cols) = (settings.level, model.n_embd);
        let run = Run { pool, level, maps: &model.maps, precision: settings.precision };
        normed.resize(x.len() - first, 0.0);
        run.norm(&model.output_norm, &x[first..], normed);
        if wanted == Wanted::Hidden {
            out.copy_from_slice(normed);
            return Ok(());
        }
        watch(Event::LinearInput { tensor: &model.output.name, expert: None, x: normed, n_cols });
        inputs.renew();
        run.linear(&model.output, 0, inputs, normed, out);
        for_rows(pool, out, model.n_vocab, |_, out| {
            if model.logit_scale != 1.0 {
                scale(level, out, model.logit_scale);
            }
            if let Some(cap) = model.logit_soft_cap {
                soft_cap(level, out, cap);
            }
        });
        if all_finite(level, out) {
            return Ok(());
        }
        Err(EngineError::NotFinite { place: model.output.name.clone() })
    }

    /// Run the first tokens of a context, watching what goes into every linear of the blocks, and with `with_output` into the output
    /// matrix. No logits are computed. The context is empty afterwards.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn watch_inputs(
        &mut self,
        tokens: &[u32],
        with_output: bool,
        watch: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), EngineError> {
        self.truncate(0);
        let mut hidden = vec![0.0; self.output_len(tokens.len(), Wanted::Hidden)];
        let result = self.forward(tokens, Wanted::Hidden, &mut hidden, watch);
        if result.is_ok() && with_output {
            let Model { output, n_embd, .. } = &*self.model;
            watch(Event::LinearInput { tensor: &output.name, expert: None, x: &hidden, n_cols: *n_embd });
        }
        self.truncate(0);
        result
    }

    fn check_finite(&self, place: impl Fn() -> String) -> Result<(), EngineError> {
        /// Values that a thread looks at in one go.
        const CHUNK: usize = 1 << 16;
        let finite = AtomicBool::new(true);
        self.pool.run(self.x.len().div_ceil(CHUNK), |i| {
            let x = &self.x[i * CHUNK..self.x.len().min((i + 1) * CHUNK)];
            if !all_finite(self.settings.level, x) {
                finite.store(false, Relaxed);
            }
        });
        if finite.into_inner() {
            return Ok(());
        }
        Err(EngineError::NotFinite { place: place() })
    }

    /// Run one block alone over `x: [n, n_embd]` in place, as the first tokens of a context; the context is empty afterwards.
    ///
    /// # Errors
    /// No such block, values that are not whole rows or too many, or a result that is not finite.
    pub fn block_forward(
        &mut self,
        block: usize,
        x: &mut [f32],
        watch: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), EngineError> {
        let (n_blocks, n_embd) = (self.model.blocks.len(), self.model.n_embd);
        if block >= n_blocks {
            return Err(EngineError::Graph {
                what: format!("block {block} does not exist, expected one below {n_blocks}"),
            });
        }
        if x.is_empty() || !x.len().is_multiple_of(n_embd) {
            let expected = x.len().next_multiple_of(n_embd).max(n_embd);
            return Err(EngineError::Size { what: "input of a block", found: x.len(), expected });
        }
        self.truncate(0);
        self.check_room(x.len() / n_embd)?;
        let result = x.chunks_mut(BATCH * n_embd).try_for_each(|x| {
            self.x.clear();
            self.x.extend_from_slice(x);
            self.run_block(block, watch)?;
            x.copy_from_slice(&self.x);
            Ok(())
        });
        self.truncate(0);
        result
    }
}
