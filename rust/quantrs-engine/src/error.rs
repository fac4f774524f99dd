//! What can go wrong in loading and running a model.

use quantrs_convert::ConvertError;
use quantrs_kernels::KernelError;
use std::path::PathBuf;

/// Why a model cannot be loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The operating system refused to map the file.
    #[error("{path}: cannot be mapped into memory: {reason}")]
    Map {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        reason: std::io::Error,
    },
    /// A tensor that has to be copied cannot be read.
    #[error(transparent)]
    Read(#[from] ConvertError),
    /// The graph is not one: a field is missing, unknown or out of range.
    #[error("graph: {what}")]
    Graph {
        /// What was found and what was expected.
        what: String,
    },
    /// The graph names a tensor that the file lacks.
    #[error("{tensor}: the file has no such tensor, which this model needs; convert the model again")]
    MissingTensor {
        /// Its name.
        tensor: String,
    },
    /// A tensor has another shape than the metadata asks for.
    #[error(
        "{tensor}: found the shape {found:?}, expected {expected:?} from the metadata; the file is damaged or was made for another model"
    )]
    Shape {
        /// Its name.
        tensor: String,
        /// Row length first, as the file has it.
        found: Vec<u64>,
        /// Likewise.
        expected: Vec<u64>,
    },
    /// A tensor is of a type that cannot be computed with.
    #[error("{tensor}: found the type {found}, expected a type of floating point values; convert the model again")]
    Type {
        /// Its name.
        tensor: String,
        /// The type's name or number.
        found: String,
    },
    /// A tensor's bytes do not suit its type.
    #[error("{tensor}: {reason}")]
    Tensor {
        /// Its name.
        tensor: String,
        /// The kernel's reason.
        reason: KernelError,
    },
    /// Tensors that the graph does not use: computing without them would give something else than the model.
    #[error("the model's architecture does not use {first} and {} more tensors of the file; get a file made for this architecture", count - 1)]
    UnusedTensors {
        /// How many.
        count: usize,
        /// The first one.
        first: String,
    },
    /// A small tensor that has to be finite is not.
    #[error("{tensor}: value {index} is {value}; the file is damaged: get it again")]
    BadValue {
        /// Its name.
        tensor: String,
        /// From 0.
        index: usize,
        /// NaN or an infinity.
        value: f32,
    },
    /// The cache type cannot hold the model's heads.
    #[error("kv_type {kv_type}: {reason}")]
    KvType {
        /// What was asked for.
        kv_type: &'static str,
        /// The kernel's reason.
        reason: KernelError,
    },
    /// More tokens than the context has room for.
    #[error(
        "{n_past} tokens are in the context and {n_new} more were given, but it holds {n_ctx}; give fewer tokens or a larger n_ctx"
    )]
    ContextFull {
        /// Tokens held.
        n_past: usize,
        /// Tokens given.
        n_new: usize,
        /// Room.
        n_ctx: usize,
    },
    /// A token id outside the vocabulary.
    #[error("token {index} is {id}, expected an id below {n_vocab}, the size of the vocabulary")]
    Token {
        /// Which of the tokens, from 0.
        index: usize,
        /// The id.
        id: u32,
        /// Size of the vocabulary.
        n_vocab: usize,
    },
    /// Values handed in or asked for in the wrong number.
    #[error("{what}: found {found} values, expected {expected}")]
    Size {
        /// Of what.
        what: &'static str,
        /// How many.
        found: usize,
        /// How many there should be.
        expected: usize,
    },
    /// A computed value is NaN or infinite.
    #[error("{place}: the result is not finite; its weights are damaged or overflow: run `quantrs verify` on the file")]
    NotFinite {
        /// `blk.3`, or a tensor.
        place: String,
    },
}
