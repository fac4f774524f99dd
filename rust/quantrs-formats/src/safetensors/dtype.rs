//! The element types of safetensors files.

/// One element type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dtype {
    /// As it stands in headers.
    pub name: &'static str,
    /// Bytes per element.
    pub nbytes: u64,
}

const fn row(name: &'static str, nbytes: u64) -> Dtype {
    Dtype { name, nbytes }
}

/// The types of whole bytes, in the order in which upstream ranks them: writers put higher ones first, so that all are aligned.
///
/// Order and names: <https://github.com/huggingface/safetensors/blob/000a16f45cff0d4169ca15b67ea002895234d671/safetensors/src/tensor.rs>,
/// `Dtype`; `F8_E8M0` and `C64` are of later versions.
pub const DTYPES: [Dtype; 17] = [
    row("BOOL", 1),
    row("U8", 1),
    row("I8", 1),
    row("F8_E5M2", 1),
    row("F8_E4M3", 1),
    row("F8_E8M0", 1),
    row("I16", 2),
    row("U16", 2),
    row("F16", 2),
    row("BF16", 2),
    row("I32", 4),
    row("U32", 4),
    row("F32", 4),
    row("C64", 8),
    row("F64", 8),
    row("I64", 8),
    row("U64", 8),
];

impl Dtype {
    /// The type with exactly this name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<&'static Dtype> {
        DTYPES.iter().find(|t| t.name == name)
    }

    /// All names, for messages.
    #[must_use]
    pub fn known() -> String {
        DTYPES.map(|t| t.name).join(", ")
    }

    /// Bytes of a tensor; None when the number overflows.
    #[must_use]
    pub fn tensor_bytes(&self, shape: &[u64]) -> Option<u64> {
        // A 0 anywhere makes all of it 0, whatever the other sizes.
        if shape.contains(&0) {
            return Some(0);
        }
        shape.iter().try_fold(self.nbytes, |n, d| n.checked_mul(*d))
    }

    /// Where it stands in [`DTYPES`].
    pub(crate) fn rank(&self) -> usize {
        DTYPES.iter().position(|t| t.name == self.name).unwrap_or(0)
    }
}
