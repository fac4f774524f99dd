//! Tests of the crate from outside, in one binary.

mod assemblies;
mod common;
mod gguf_damage;
mod gguf_edits;
mod gguf_golden;
mod gguf_properties;
mod gguf_splits;
mod imatrix;
mod safetensors;
