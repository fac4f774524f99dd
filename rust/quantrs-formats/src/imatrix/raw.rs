//! What an importance matrix file holds, before it is divided.

use super::check_statistics;
use crate::error::{Place, Result};

/// A file of either form.
pub(super) struct Raw {
    pub(super) entries: Vec<RawEntry>,
    pub(super) datasets: Vec<Vec<u8>>,
    pub(super) chunk_count: u32,
    /// Sums are means times chunks, and counts are chunks.
    pub(super) is_legacy: bool,
}

/// One weight.
pub(super) struct RawEntry {
    pub(super) name: String,
    /// Of all experts.
    pub(super) sums: Vec<f32>,
    /// One, or one for each expert; whole.
    pub(super) counts: Vec<f32>,
    /// Of the sums.
    pub(super) place: Place,
}

impl RawEntry {
    /// Mean square of each column: sums / count, expert by expert. What saw no token weighs 1; in the legacy form it is as it stands.
    pub(super) fn column_weights(&self, is_legacy: bool) -> Result<Vec<f32>> {
        let mut weights = self.sums.clone();
        let per_count = weights.len() / self.counts.len();
        for (expert, count) in weights.chunks_exact_mut(per_count).zip(&self.counts) {
            if *count > 0.0 {
                expert.iter_mut().for_each(|v| *v /= count);
            } else if !is_legacy {
                expert.fill(1.0);
            }
        }
        check_statistics(&self.place, &weights)?;
        Ok(weights)
    }
}
