//! Model file containers: bytes -> checked view -> bytes.
//!
//! Parsers check everything once, with checked arithmetic and limits before allocation; what they return can be
//! trusted. They hold the header alone: tensor data is read at its place, by whoever needs it.
//!
//! - [`Gguf`] opens a model (all files of a split one), [`GgufFile`] a single file or bytes in memory.
//! - [`Header`] is the beginning of a file to be written.
//! - [`Gguf::assembled`] makes a model from tensors in other files, or in memory, that exists nowhere as a file.
//! - [`SafeTensorsFile`] opens one safetensors file; [`safetensors::write_header`] makes the beginning of one.
//! - [`Imatrix`] reads importance matrices, both formats; [`ImatrixSums`] makes and merges them.
//! - [`SourceFile`] and [`PartFile`] read and write at any position, from many threads.
//!
//! ```
//! use quantrs_formats::{GgmlType, GgufFile, Header, NewValue, PartFile, Value};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut header = Header::new(3)?;
//! header.set("general.architecture", "string".parse()?, &NewValue::Bytes(b"llama".to_vec()))?;
//! let f32_type = GgmlType::by_name("F32").unwrap();
//! let offset = header.add_tensor("output_norm.weight", &[4], f32_type)?;
//!
//! let dir = tempfile::tempdir()?;
//! let path = dir.path().join("model.gguf");
//! let head = header.to_bytes();
//! let file = PartFile::create(&path, head.len() as u64 + header.data_len())?;
//! file.write_at(0, &head)?;
//! file.write_at(head.len() as u64 + offset, &[0; 16])?;
//! file.sync()?;
//!
//! let read = GgufFile::open(&path)?;
//! assert_eq!(read.value("general.architecture"), Some(Value::String(b"llama")));
//! assert_eq!(read.tensors()[0].dims, [4]);
//! # Ok(())
//! # }
//! ```

#![deny(unsafe_code)]

pub mod assembly;
pub mod chunks;
pub mod error;
pub mod ggml_types;
pub mod gguf;
pub mod imatrix;
pub mod packed;
pub mod safetensors;
pub mod source;
pub mod sources;

pub use assembly::{AssembledTensor, Assembly, Part, RowOrder, Stored, Values};
pub use chunks::{PartFile, SourceFile};
pub use error::{FormatError, Place, Result};
pub use ggml_types::{GGML_TYPES, GgmlType, REMOVED_TYPE_IDS};
pub use gguf::{Array, Gguf, GgufFile, Header, NewValue, ScalarType, TensorInfo, Value, ValueType};
pub use imatrix::{Imatrix, ImatrixSums};
pub use packed::{At, Codes, Less, Packed, ScaleType, Scales, Zeros};
pub use safetensors::SafeTensorsFile;
pub use source::ReadAt;
pub use sources::{OpenSources, Source};
