//! ggml's tensor types: what a file must be known to hold, nothing about how values are packed.

/// One ggml type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GgmlType {
    /// The number that stands in files.
    pub id: u32,
    /// As upstream spells it.
    pub name: &'static str,
    /// Elements per block; rows are a multiple of it.
    pub block_len: u64,
    /// Bytes per block.
    pub block_bytes: u64,
}

const fn row(id: u32, name: &'static str, block_len: u64, block_bytes: u64) -> GgmlType {
    GgmlType { id, name, block_len, block_bytes }
}

/// Every type that ggml 0.25.3 defines, by ascending id.
pub const GGML_TYPES: [GgmlType; 35] = [
    row(0, "F32", 1, 4),
    row(1, "F16", 1, 2),
    row(2, "Q4_0", 32, 18),
    row(3, "Q4_1", 32, 20),
    row(6, "Q5_0", 32, 22),
    row(7, "Q5_1", 32, 24),
    row(8, "Q8_0", 32, 34),
    row(9, "Q8_1", 32, 36),
    row(10, "Q2_K", 256, 84),
    row(11, "Q3_K", 256, 110),
    row(12, "Q4_K", 256, 144),
    row(13, "Q5_K", 256, 176),
    row(14, "Q6_K", 256, 210),
    row(15, "Q8_K", 256, 292),
    row(16, "IQ2_XXS", 256, 66),
    row(17, "IQ2_XS", 256, 74),
    row(18, "IQ3_XXS", 256, 98),
    row(19, "IQ1_S", 256, 50),
    row(20, "IQ4_NL", 32, 18),
    row(21, "IQ3_S", 256, 110),
    row(22, "IQ2_S", 256, 82),
    row(23, "IQ4_XS", 256, 136),
    row(24, "I8", 1, 1),
    row(25, "I16", 1, 2),
    row(26, "I32", 1, 4),
    row(27, "I64", 1, 8),
    row(28, "F64", 1, 8),
    row(29, "IQ1_M", 256, 56),
    row(30, "BF16", 1, 2),
    row(34, "TQ1_0", 256, 54),
    row(35, "TQ2_0", 256, 66),
    row(39, "MXFP4", 32, 17),
    row(40, "NVFP4", 64, 36),
    row(41, "Q1_0", 128, 18),
    row(42, "Q2_0", 64, 18),
];

/// Ids that ggml has given up; files that use them cannot be read by any current tool.
pub const REMOVED_TYPE_IDS: [u32; 8] = [4, 5, 31, 32, 33, 36, 37, 38];

impl GgmlType {
    /// The type with this id.
    #[must_use]
    pub fn by_id(id: u32) -> Option<&'static GgmlType> {
        let i = GGML_TYPES.binary_search_by_key(&id, |t| t.id).ok()?;
        Some(&GGML_TYPES[i])
    }

    /// The type with this name, in any letter case.
    #[must_use]
    pub fn by_name(name: &str) -> Option<&'static GgmlType> {
        GGML_TYPES.iter().find(|t| t.name.eq_ignore_ascii_case(name))
    }

    /// Bytes of a tensor: `dims[0]` elements a row, the product of the others rows.
    ///
    /// None when the product overflows or a row is not whole blocks.
    #[must_use]
    pub fn tensor_bytes(&self, dims: &[u64]) -> Option<u64> {
        let (row_len, outer) = dims.split_first()?;
        if row_len % self.block_len != 0 {
            return None;
        }
        let row_bytes = (row_len / self.block_len).checked_mul(self.block_bytes)?;
        outer.iter().try_fold(row_bytes, |n, d| n.checked_mul(*d))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_sorted_and_covers_every_id_up_to_its_last_together_with_the_removed_ones() {
        assert!(GGML_TYPES.windows(2).all(|w| w[0].id < w[1].id));
        let mut ids: Vec<u32> = GGML_TYPES.iter().map(|t| t.id).chain(REMOVED_TYPE_IDS).collect();
        ids.sort_unstable();
        assert_eq!(ids, (0..=42).collect::<Vec<_>>());
    }

    #[test]
    fn names_are_found_in_any_letter_case() {
        assert_eq!(GgmlType::by_name("q4_k").map(|t| t.id), Some(12));
        assert_eq!(GgmlType::by_name("Iq4_Xs").map(|t| t.id), Some(23));
        assert_eq!(GgmlType::by_name("Q4_2"), None);
    }

    #[test]
    fn tensor_bytes_refuses_partial_blocks_and_overflow() {
        let q4_k = GgmlType::by_name("Q4_K").unwrap();
        assert_eq!(q4_k.tensor_bytes(&[512, 3]), Some(2 * 144 * 3));
        assert_eq!(q4_k.tensor_bytes(&[100, 3]), None);
        assert_eq!(q4_k.tensor_bytes(&[1 << 40, 1 << 30]), None);
        assert_eq!(q4_k.tensor_bytes(&[]), None);
    }
}
