//! The legacy `.dat` form: a count, then name, calls and values of each entry, then optionally chunks and data set.

use std::collections::HashMap;
use std::path::Path;

use super::raw::{Raw, RawEntry};
use super::read_statistics;
use super::sums::ImatrixSums;
use crate::error::{FormatError, Place, Result, preview};
use crate::source::ReadAt;

/// Names longer than this are no tensor names; files that are no imatrix at all fail here or at the counts.
const MAX_NAME_BYTES: u64 = 4096;
/// The shortest entry: name length, a one-byte name, calls, value count, one value.
const MIN_ENTRY_BYTES: u64 = 4 + 1 + 4 + 4 + 4;

struct Reader<'s, S: ReadAt + ?Sized> {
    source: &'s S,
    path: &'s Path,
    pos: u64,
}

impl<S: ReadAt + ?Sized> Reader<'_, S> {
    fn place(&self, field: impl ToString) -> Place {
        Place { path: self.path.into(), offset: self.pos, field: field.to_string() }
    }

    fn left(&self) -> u64 {
        self.source.size() - self.pos
    }

    fn need(&self, needed: u64, field: &str) -> Result<()> {
        if needed > self.left() {
            return Err(FormatError::Truncated { place: self.place(field), needed, left: self.left() });
        }
        Ok(())
    }

    fn i32(&mut self, field: &str) -> Result<i32> {
        self.need(4, field)?;
        let mut bytes = [0; 4];
        self.source.read_exact_at(self.pos, &mut bytes).map_err(FormatError::io(self.path, "read"))?;
        self.pos += 4;
        Ok(i32::from_le_bytes(bytes))
    }

    /// A number that must lie within `min..=max`.
    fn count(&mut self, field: &str, min: u64, max: u64) -> Result<u64> {
        let place = self.place(field);
        let n = self.i32(field)?;
        u64::try_from(n).ok().filter(|v| (min..=max).contains(v)).ok_or_else(|| FormatError::Invalid {
            place,
            found: n.to_string(),
            expected: format!("a number from {min} to {max} (or is this no imatrix file?)"),
        })
    }

    fn bytes(&mut self, n: u64, field: &str) -> Result<Vec<u8>> {
        self.need(n, field)?;
        let mut bytes = vec![0; n as usize];
        self.source.read_exact_at(self.pos, &mut bytes).map_err(FormatError::io(self.path, "read"))?;
        self.pos += n;
        Ok(bytes)
    }
}

pub(super) fn read<S: ReadAt + ?Sized>(source: &S, path: &Path) -> Result<Raw> {
    let mut reader = Reader { source, path, pos: 0 };
    let n_entries = reader.count("entry count", 1, i32::MAX as u64)?;
    reader.need(n_entries.saturating_mul(MIN_ENTRY_BYTES), "the entries")?;
    let mut raw = Raw { entries: Vec::new(), datasets: Vec::new(), chunk_count: 0, is_legacy: true };
    let mut first_at: HashMap<String, u64> = HashMap::new();
    for i in 0..n_entries {
        let name_length_at = reader.pos;
        let name_len = reader.count(&format!("name length of entry {i}"), 1, MAX_NAME_BYTES)?;
        let name_place = reader.place(format!("name of entry {i}"));
        let name = reader.bytes(name_len, &name_place.field)?;
        let name = String::from_utf8(name)
            .map_err(|e| FormatError::BadText { place: name_place.clone(), found: preview(e.as_bytes()) })?;
        let entry = read_entry(&mut reader, name.clone())?;
        if let Some(first) = first_at.insert(name.clone(), name_length_at) {
            return Err(FormatError::Duplicate { place: name_place, name, first });
        }
        raw.entries.push(entry);
    }
    if reader.left() > 0 {
        raw.chunk_count = reader.count("chunk count", 0, i32::MAX as u64)? as u32;
    }
    if reader.left() > 0 {
        let len = reader.count("length of the data set name", 0, i32::MAX as u64)?;
        let name = reader.bytes(len, "data set name")?;
        if !name.is_empty() {
            raw.datasets.push(name);
        }
    }
    Ok(raw)
}

fn read_entry<S: ReadAt + ?Sized>(reader: &mut Reader<'_, S>, name: String) -> Result<RawEntry> {
    let shown = preview(name.as_bytes());
    let n_calls = reader.i32(&format!("calls of '{shown}'"))?;
    let n_values = reader.count(&format!("value count of '{shown}'"), 1, i32::MAX as u64)?;
    let place = reader.place(format!("values of '{shown}'"));
    reader.need(4 * n_values, &place.field)?;
    let sums = read_statistics(reader.source, &place, n_values)?;
    reader.pos += 4 * n_values;
    Ok(RawEntry { name, sums, counts: vec![n_calls.max(0) as f32], place })
}

/// A file of these sums: per column the mean square, times the chunks that it was seen in. Entries that saw nothing are left out.
pub(super) fn write(sums: &ImatrixSums) -> Vec<u8> {
    let seen: Vec<_> = sums.entries.iter().filter(|(_, entry)| entry.counts.iter().any(|n| *n > 0)).collect();
    let mut out = Vec::new();
    put(&mut out, seen.len() as u64);
    for (name, entry) in seen {
        put(&mut out, name.len() as u64);
        out.extend(name.as_bytes());
        let most = entry.counts.iter().copied().max().unwrap_or(0);
        let n_calls = most.div_ceil(u64::from(sums.chunk_size));
        put(&mut out, n_calls);
        put(&mut out, entry.sums.len() as u64);
        let per_count = entry.sums.len() / entry.counts.len();
        for (sums, count) in entry.sums.chunks_exact(per_count).zip(&entry.counts) {
            for sum in sums {
                let mean = if *count > 0 { *sum as f32 / *count as f32 } else { 1.0 };
                out.extend((mean * n_calls as f32).to_le_bytes());
            }
        }
    }
    put(&mut out, u64::from(sums.chunk_count()));
    let dataset = sums.datasets.last().map_or(&[][..], Vec::as_slice);
    put(&mut out, dataset.len() as u64);
    out.extend(dataset);
    out
}

/// A count, as the form has it; what no model reaches is cut to the largest.
fn put(out: &mut Vec<u8>, n: u64) {
    out.extend(i32::try_from(n).unwrap_or(i32::MAX).to_le_bytes());
}
