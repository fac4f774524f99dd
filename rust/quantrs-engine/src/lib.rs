//! Runs a language model on the CPU.
//!
//! A model is a GGUF file and a [`GraphSpec`](spec::GraphSpec): plain data that says which tensors make up which block and how
//! they are used. The engine knows no model family by name. Weights are used where they lie in the mapped file; loading reads
//! norms and biases only.

mod block;
mod engine;
mod error;
mod experts;
mod inputs;
mod maps;
mod model;
mod score;
pub mod spec;
mod weights;

pub use engine::{Engine, Settings, Wanted};
pub use error::EngineError;
pub use inputs::Event;
pub use model::Model;
pub use score::Compared;
