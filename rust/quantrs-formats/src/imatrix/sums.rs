//! An importance matrix while it is computed: sums of squares of what each column of a weight is multiplied with.

use std::collections::BTreeMap;
use std::path::Path;

use super::raw::RawEntry;
use super::{gguf_form, legacy, read_raw};
use crate::chunks::SourceFile;
use crate::error::{FormatError, Result};

/// Rows whose squares are summed in float32 before they go to the sum in float64: few enough for the error to stay at rounding.
const GROUP: usize = 16;

/// Sums of squares and counts of tokens, by weight, in float64.
#[derive(Debug, Clone)]
pub struct ImatrixSums {
    /// Tokens of a chunk.
    pub(super) chunk_size: u32,
    /// Sequences that were added whole, files that were merged aside.
    n_sequences: u64,
    /// The texts, as bytes: file names need not be UTF-8.
    pub(super) datasets: Vec<Vec<u8>>,
    /// In the order of the names' bytes, as files have them.
    pub(super) entries: BTreeMap<String, Entry>,
}

/// One weight.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// Of all experts: as many times the columns as there are counts, but for an old file that counts experts together.
    pub(super) sums: Vec<f64>,
    /// Tokens seen: one number, or one for each expert.
    pub(super) counts: Vec<u64>,
}

impl Entry {
    /// A file may count all experts together: each of them saw so many then.
    fn count_experts(&mut self, n_counts: usize) {
        if let [count] = self.counts[..] {
            self.counts = vec![count; n_counts];
        }
    }

    fn sizes(&self) -> (usize, usize) {
        (self.counts.len(), self.sums.len())
    }
}

impl ImatrixSums {
    /// Nothing yet; a chunk has `chunk_size` tokens, at least 1.
    #[must_use]
    pub fn new(chunk_size: u32) -> Self {
        Self { chunk_size: chunk_size.max(1), n_sequences: 0, datasets: Vec::new(), entries: BTreeMap::new() }
    }

    /// Note a text; it is the last one now.
    pub fn add_dataset(&mut self, name: Vec<u8>) {
        self.datasets.push(name);
    }

    /// The texts.
    #[must_use]
    pub fn datasets(&self) -> &[Vec<u8>] {
        &self.datasets
    }

    /// Chunks seen by the weight that saw most.
    #[must_use]
    pub fn chunk_count(&self) -> u32 {
        let most = self.entries.values().flat_map(|e| &e.counts).copied().max().unwrap_or(0);
        u32::try_from(most / u64::from(self.chunk_size)).unwrap_or(u32::MAX)
    }

    /// Sequences that were added whole.
    #[must_use]
    pub fn n_sequences(&self) -> u64 {
        self.n_sequences
    }

    /// All rows of a sequence have been added.
    pub fn end_sequence(&mut self) {
        self.n_sequences += 1;
    }

    /// Weights and how many tokens each, or each of its experts, saw.
    pub fn counts(&self) -> impl Iterator<Item = (&str, &[u64])> {
        self.entries.iter().map(|(name, entry)| (name.as_str(), entry.counts.as_slice()))
    }

    /// Make room for a weight, of `n_counts` experts (1 where it has none).
    ///
    /// # Errors
    /// [`FormatError::Edit`]: there are sums of another size, from a file of another model.
    pub fn expect(&mut self, name: &str, n_counts: usize, n_cols: usize) -> Result<()> {
        let empty = || Entry { sums: vec![0.0; n_counts * n_cols], counts: vec![0; n_counts] };
        let entry = self.entries.entry(name.to_owned()).or_insert_with(empty);
        entry.count_experts(n_counts);
        let (found, expected) = (entry.sizes(), (n_counts, n_counts * n_cols));
        if found == expected { Ok(()) } else { Err(other_size(name, found, expected)) }
    }

    /// Add the rows `x: [n, n_cols]` that went into a weight, or into one of its experts. False when a sum is not finite any more.
    ///
    /// # Panics
    /// When [`expect`](Self::expect) did not make room.
    pub fn add_rows(&mut self, name: &str, expert: usize, x: &[f32]) -> bool {
        let entry = self.entries.get_mut(name).expect("room was made");
        let n_cols = entry.sums.len() / entry.counts.len();
        entry.counts[expert] += (x.len() / n_cols) as u64;
        add_squares(&mut entry.sums[expert * n_cols..][..n_cols], x)
    }

    /// As if so many sequences of nothing had been added: what a plan has to know of a matrix that is not computed yet.
    pub fn assume_sequences(&mut self, n: u32) {
        let count = u64::from(n) * u64::from(self.chunk_size);
        self.entries.values_mut().for_each(|entry| entry.counts.fill(count));
    }

    /// Add what a file of either form holds.
    ///
    /// # Errors
    /// [`FormatError`]: the file cannot be read, or is of another model than what is there.
    pub fn merge(&mut self, path: impl AsRef<Path>) -> Result<()> {
        let source = SourceFile::open(path)?;
        let raw = read_raw(&source, source.path())?;
        // The legacy form counts chunks; how long they were it does not say.
        let factor = if raw.is_legacy { self.chunk_size } else { 1 };
        for RawEntry { name, sums, counts, .. } in raw.entries {
            let sums: Vec<f64> = sums.iter().map(|v| f64::from(*v) * f64::from(factor)).collect();
            let counts: Vec<u64> = counts.iter().map(|n| *n as u64 * u64::from(factor)).collect();
            let mut new = Entry { sums, counts };
            let Some(entry) = self.entries.get_mut(&name) else {
                self.entries.insert(name, new);
                continue;
            };
            entry.count_experts(new.counts.len());
            new.count_experts(entry.counts.len());
            if entry.sizes() != new.sizes() {
                return Err(other_size(&format!("{}: {name}", source.path().display()), new.sizes(), entry.sizes()));
            }
            entry.sums.iter_mut().zip(new.sums).for_each(|(a, b)| *a += b);
            entry.counts.iter_mut().zip(new.counts).for_each(|(a, b)| *a += b);
        }
        self.datasets.extend(raw.datasets);
        Ok(())
    }

    /// All sums and counts as they are, for [`restore`](Self::restore).
    #[must_use]
    pub fn state(&self) -> Vec<u8> {
        let entries = self.entries.values();
        let words = entries.flat_map(|e| e.sums.iter().map(|v| v.to_bits()).chain(e.counts.iter().copied()));
        [self.n_sequences].into_iter().chain(words).flat_map(u64::to_le_bytes).collect()
    }

    /// Take up the [`state`](Self::state) of sums of the same weights. False when it is not one; nothing is changed then.
    pub fn restore(&mut self, state: &[u8]) -> bool {
        let (words, rest) = state.as_chunks::<8>();
        let n_words: usize = self.entries.values().map(|e| e.sums.len() + e.counts.len()).sum();
        let Some((n_sequences, words)) = words.split_first().filter(|(_, w)| w.len() == n_words && rest.is_empty())
        else {
            return false;
        };
        let mut words = words.iter().map(|w| u64::from_le_bytes(*w));
        let mut entries = self.entries.clone();
        for entry in entries.values_mut() {
            entry.sums.iter_mut().zip(&mut words).for_each(|(sum, w)| *sum = f64::from_bits(w));
            entry.counts.iter_mut().zip(&mut words).for_each(|(count, w)| *count = w);
            if !entry.sums.iter().all(|sum| sum.is_finite() && *sum >= 0.0) {
                return false;
            }
        }
        self.entries = entries;
        self.n_sequences = u64::from_le_bytes(*n_sequences);
        true
    }

    /// A GGUF file of these sums.
    ///
    /// # Errors
    /// [`FormatError`]: a weight's name is too long for GGUF.
    pub fn to_gguf(&self) -> Result<Vec<u8>> {
        gguf_form::write(self)
    }

    /// A file of these sums in the legacy form.
    #[must_use]
    pub fn to_legacy(&self) -> Vec<u8> {
        legacy::write(self)
    }
}

fn other_size(name: &str, found: (usize, usize), expected: (usize, usize)) -> FormatError {
    let say = |(n_counts, n_sums): (usize, usize)| format!("{n_counts} counts and {n_sums} sums");
    let expected = format!("{}; matrices of one model alone can be merged", say(expected));
    FormatError::Edit { what: name.to_owned(), found: say(found), expected }
}

/// `sums[j] += x[i, j]^2`, in the order of the rows; false when a sum is not finite then.
fn add_squares(sums: &mut [f64], x: &[f32]) -> bool {
    let n_cols = sums.len();
    let mut partial = vec![0.0f32; n_cols];
    for rows in x.chunks(GROUP * n_cols) {
        partial.fill(0.0);
        for row in rows.chunks_exact(n_cols) {
            partial.iter_mut().zip(row).for_each(|(sum, v)| *sum += v * v);
        }
        sums.iter_mut().zip(&partial).for_each(|(sum, p)| *sum += f64::from(*p));
    }
    sums.iter().all(|sum| sum.is_finite())
}
