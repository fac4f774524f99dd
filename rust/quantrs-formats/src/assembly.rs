//! Tensors whose rows lie in other files, in other orders and types: how a model that is no GGUF file becomes one.

use std::fmt;
use std::sync::Arc;

use crate::error::{FormatError, Result};
use crate::ggml_types::GgmlType;
use crate::gguf::TensorInfo;
use crate::packed::{At, Packed, Stretch};
use crate::sources::Source;

/// How values of a part are stored: a ggml type, or one of those that only other containers have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// As upstream spells it.
    pub name: &'static str,
    /// ggml type id, if it is one of those.
    pub type_id: Option<u32>,
    /// Elements per block.
    pub block_len: u64,
    /// Bytes per block.
    pub block_bytes: u64,
}

const fn plain(name: &'static str, nbytes: u64) -> Stored {
    Stored { name, type_id: None, block_len: 1, block_bytes: nbytes }
}

/// Types of safetensors files that ggml lacks.
const PLAIN: [Stored; 7] = [
    plain("BOOL", 1),
    plain("F8_E4M3", 1),
    plain("F8_E5M2", 1),
    plain("U16", 2),
    plain("U32", 4),
    plain("U64", 8),
    plain("U8", 1),
];

impl Stored {
    /// The type with this name, in any letter case.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Stored> {
        GgmlType::by_name(name)
            .map(Stored::from)
            .or_else(|| PLAIN.iter().find(|t| t.name.eq_ignore_ascii_case(name)).copied())
    }

    /// Bytes of a row of `n_cols` values; None when it is not whole blocks, or overflows.
    #[must_use]
    pub fn row_bytes(&self, n_cols: u64) -> Option<u64> {
        n_cols.is_multiple_of(self.block_len).then(|| n_cols / self.block_len)?.checked_mul(self.block_bytes)
    }
}

impl From<&GgmlType> for Stored {
    fn from(t: &GgmlType) -> Self {
        Self { name: t.name, type_id: Some(t.id), block_len: t.block_len, block_bytes: t.block_bytes }
    }
}

/// Where the rows of a part go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowOrder {
    /// As they are stored.
    AsStored,
    /// Within each of `n_heads` groups of d rows: stored row `j * d / 2 + i` goes to row `2 * i + j`, for j in 0..2.
    HalvesToPairs {
        /// Groups.
        n_heads: u64,
    },
    /// The inverse of `HalvesToPairs`.
    PairsToHalves {
        /// Groups.
        n_heads: u64,
    },
    /// What is stored is `[n_cols, n_rows]`: rows are columns there.
    Transposed,
}

impl RowOrder {
    /// `as_stored`, `halves_to_pairs`, `pairs_to_halves` or `transposed`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AsStored => "as_stored",
            Self::HalvesToPairs { .. } => "halves_to_pairs",
            Self::PairsToHalves { .. } => "pairs_to_halves",
            Self::Transposed => "transposed",
        }
    }

    /// Groups of rows, 0 where rows are not grouped.
    #[must_use]
    pub fn n_heads(self) -> u64 {
        match self {
            Self::HalvesToPairs { n_heads } | Self::PairsToHalves { n_heads } => n_heads,
            _ => 0,
        }
    }

    /// The order with this name; None when there is no such.
    #[must_use]
    pub fn by_name(name: &str, n_heads: u64) -> Option<Self> {
        Some(match name {
            "as_stored" => Self::AsStored,
            "halves_to_pairs" => Self::HalvesToPairs { n_heads },
            "pairs_to_halves" => Self::PairsToHalves { n_heads },
            "transposed" => Self::Transposed,
            _ => return None,
        })
    }
}

/// How the values of a part lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Values {
    /// Row after row of one type.
    Stored(Stored),
    /// As codes, with scales elsewhere.
    Packed(Packed),
}

/// Rows that lie together in one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Which source.
    pub source: usize,
    /// Of the first byte, from the start of the source.
    pub offset: u64,
    /// How the values are stored.
    pub values: Values,
    /// Rows of the tensor.
    pub n_rows: u64,
    /// Where they go.
    pub order: RowOrder,
}

impl Part {
    /// Where everything that it needs begins, the values or codes first.
    pub fn places(&self) -> impl Iterator<Item = At> + use<> {
        let sides = match &self.values {
            Values::Stored(_) => None,
            Values::Packed(packed) => Some(packed.sides()),
        };
        std::iter::once(At { source: self.source, offset: self.offset }).chain(sides.into_iter().flatten())
    }

    /// Every stretch that its rows of `n_cols` values need; else what was found, and what is expected.
    fn stretches(&self, n_cols: u64) -> std::result::Result<Vec<Stretch>, (String, String)> {
        let Part { n_rows, order, .. } = *self;
        let (name, can_be_transposed) = match &self.values {
            Values::Stored(stored) => (stored.name, stored.block_len == 1),
            Values::Packed(packed) => (packed.codes.name(), false),
        };
        let shape_ok = match order {
            RowOrder::AsStored => true,
            RowOrder::HalvesToPairs { n_heads } | RowOrder::PairsToHalves { n_heads } => {
                n_heads > 0 && n_rows.is_multiple_of(n_heads) && (n_rows / n_heads).is_multiple_of(2)
            }
            RowOrder::Transposed => can_be_transposed,
        };
        if n_rows == 0 || !shape_ok {
            let found = format!("{n_rows} rows of {name}, {} with {} heads", order.name(), order.n_heads());
            return Err((found, "rows; an even number of them for each head; plain values to be transposed".into()));
        }
        let at = At { source: self.source, offset: self.offset };
        match &self.values {
            Values::Packed(packed) => packed.check(at, n_rows, n_cols),
            Values::Stored(stored) => {
                let nbytes = stored.row_bytes(n_cols).and_then(|n| n.checked_mul(n_rows)).ok_or_else(|| {
                    let found = format!("{n_rows} rows of {n_cols} values of {name}");
                    (found, format!("rows of whole blocks of {}", stored.block_len))
                })?;
                Ok(vec![Stretch { what: "values", at, nbytes }])
            }
        }
    }
}

/// What a tensor is put together from. Where it hangs on a tensor, it was checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Assembly {
    /// Their rows follow each other.
    pub parts: Vec<Part>,
    /// Added to every value, in float32.
    pub add: f32,
}

/// A tensor to be assembled.
#[derive(Debug, Clone)]
pub struct AssembledTensor {
    /// Unique, not empty; longer than GGUF allows where no GGUF file will be written.
    pub name: String,
    /// Row length first, none 0.
    pub dims: Vec<u64>,
    /// The type it appears to have.
    pub ggml_type: &'static GgmlType,
    /// Where its rows come from.
    pub assembly: Arc<Assembly>,
}

impl AssembledTensor {
    /// The tensor of a model, once it is checked against the model's sources.
    pub(crate) fn placed(&self, sources: &[Source], sizes: &[u64]) -> Result<TensorInfo> {
        let nbytes = self.check(sources, sizes)?;
        // There is one: a tensor has at least one row.
        let first = self.assembly.parts[0];
        Ok(TensorInfo {
            name: self.name.clone(),
            dims: self.dims.clone(),
            type_id: self.ggml_type.id,
            offset: first.offset,
            nbytes,
            file: first.source,
            assembly: Some(self.assembly.clone()),
        })
    }

    /// Check that the parts make up the tensor and lie within their sources; returns the tensor's bytes.
    fn check(&self, sources: &[Source], sizes: &[u64]) -> Result<u64> {
        let fail = |found: &dyn fmt::Display, expected: String| {
            let (what, found) = (format!("tensor '{}'", self.name), found.to_string());
            Err(FormatError::Edit { what, found, expected })
        };
        let Self { name, dims, ggml_type, assembly } = self;
        if name.is_empty() {
            return fail(&"an empty name", "a name".into());
        }
        let nbytes = if dims.contains(&0) { None } else { ggml_type.tensor_bytes(dims) };
        let Some(nbytes) = nbytes.filter(|n| *n <= i64::MAX as u64) else {
            let block = ggml_type.block_len;
            let expected = format!("sizes of at least 1, rows that are a multiple of {block}, fewer than 2^63 bytes");
            return fail(&format_args!("dimensions {dims:?} of {}", ggml_type.name), expected);
        };
        let is_float = ["F32", "F16", "BF16"].contains(&ggml_type.name);
        if assembly.add != 0.0 && !(is_float && assembly.add.is_finite()) {
            let found = format!("{} to be added to values of type {}", assembly.add, ggml_type.name);
            return fail(&found, "a finite number, and F32, F16 or BF16".into());
        }
        let n_cols = dims[0];
        let n_rows = dims[1..].iter().product::<u64>();
        let mut rows_found = 0u64;
        for (i, part) in assembly.parts.iter().enumerate() {
            rows_found = rows_found.saturating_add(part.n_rows);
            let stretches = match part.stretches(n_cols) {
                Ok(stretches) => stretches,
                Err((found, expected)) => return fail(&format_args!("part {i}: {found}"), expected),
            };
            for Stretch { what, at, nbytes } in stretches {
                let (Some(source), Some(size)) = (sources.get(at.source), sizes.get(at.source)) else {
                    return fail(
                        &format_args!("part {i} in source {}", at.source),
                        format!("one of {}", sources.len()),
                    );
                };
                let end = at.offset.checked_add(nbytes).filter(|end| end <= size);
                if end.is_none() {
                    let end = u128::from(at.offset) + u128::from(nbytes);
                    let found = format!("part {i}: {what} in bytes {} to {end} of {}", at.offset, source.label());
                    return fail(&found, format!("a range within its {size} bytes; it is truncated: get it again"));
                }
            }
        }
        if rows_found != n_rows {
            return fail(
                &format_args!("{rows_found} rows in its parts"),
                format!("{n_rows}, as the dimensions {dims:?} say"),
            );
        }
        Ok(nbytes)
    }
}
