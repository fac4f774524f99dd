//! Builds GGUF bytes by hand, field by field, so that tests can write what our own writer refuses to.

use std::path::PathBuf;

/// Files that the real tools wrote.
pub(crate) fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/ggml/tiny").join(name)
}

pub(crate) fn golden_bytes(name: &str) -> Vec<u8> {
    let path = golden(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

pub(crate) fn string(text: impl AsRef<[u8]>) -> Vec<u8> {
    let text = text.as_ref();
    [&(text.len() as u64).to_le_bytes(), text].concat()
}

pub(crate) const U8: u32 = 0;
pub(crate) const U16: u32 = 2;
pub(crate) const U32: u32 = 4;
pub(crate) const I32: u32 = 5;
pub(crate) const STRING: u32 = 8;
pub(crate) const ARRAY: u32 = 9;

pub(crate) fn key_value(key: impl AsRef<[u8]>, code: u32, value: &[u8]) -> Vec<u8> {
    [&string(key), &code.to_le_bytes()[..], value].concat()
}

pub(crate) fn u32_value(key: &str, value: u32) -> Vec<u8> {
    key_value(key, U32, &value.to_le_bytes())
}

pub(crate) fn array(element_code: u32, count: u64, elements: &[u8]) -> Vec<u8> {
    [&element_code.to_le_bytes()[..], &count.to_le_bytes(), elements].concat()
}

pub(crate) fn tensor(name: impl AsRef<[u8]>, dims: &[u64], type_id: u32, offset: u64) -> Vec<u8> {
    let mut out = string(name);
    out.extend((dims.len() as u32).to_le_bytes());
    dims.iter().for_each(|d| out.extend(d.to_le_bytes()));
    out.extend(type_id.to_le_bytes());
    out.extend(offset.to_le_bytes());
    out
}

/// A file; the counts can be made to lie.
pub(crate) struct File {
    pub(crate) version: u32,
    pub(crate) key_values: Vec<Vec<u8>>,
    pub(crate) tensors: Vec<Vec<u8>>,
    pub(crate) n_key_values: Option<u64>,
    pub(crate) n_tensors: Option<u64>,
    pub(crate) alignment: usize,
    /// Zeros after the header's padding.
    pub(crate) data_bytes: usize,
}

impl Default for File {
    fn default() -> Self {
        Self {
            version: 3,
            key_values: Vec::new(),
            tensors: Vec::new(),
            n_key_values: None,
            n_tensors: None,
            alignment: 32,
            data_bytes: 0,
        }
    }
}

impl File {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(self.n_tensors.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        out.extend(self.n_key_values.unwrap_or(self.key_values.len() as u64).to_le_bytes());
        out.extend(self.key_values.concat());
        out.extend(self.tensors.concat());
        out.resize(out.len().next_multiple_of(self.alignment) + self.data_bytes, 0);
        out
    }
}
