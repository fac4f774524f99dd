//! Reads a header front to back: bytes are fetched as they are needed, never more than the file has.

use std::fmt::Arguments;
use std::ops::Range;
use std::path::Path;

use crate::error::{FormatError, Place, Result};
use crate::source::ReadAt;

/// The largest header accepted. Real ones have a few MB; a damaged length must not fill the memory.
pub(crate) const MAX_HEADER_BYTES: u64 = 1 << 30;

/// The first read: enough for a header without vocabulary.
const FIRST_READ_BYTES: u64 = 64 << 10;
/// Later reads: few enough calls, and small enough that a piece is still in the cache when it is filled and then walked.
const NEXT_READ_BYTES: u64 = 256 << 10;

pub(crate) struct Cursor<'s, S: ReadAt + ?Sized> {
    source: &'s S,
    path: &'s Path,
    source_bytes: u64,
    /// The file from its start; `buf.len() <= source_bytes`.
    buf: Vec<u8>,
    /// `pos <= buf.len()`.
    pos: usize,
}

impl<'s, S: ReadAt + ?Sized> Cursor<'s, S> {
    pub(crate) fn new(source: &'s S, path: &'s Path) -> Self {
        Self { source, path, source_bytes: source.size(), buf: Vec::new(), pos: 0 }
    }

    pub(crate) fn position(&self) -> u64 {
        self.pos as u64
    }

    pub(crate) fn bytes_left(&self) -> u64 {
        self.source_bytes - self.pos as u64
    }

    pub(crate) fn bytes(&self, range: Range<usize>) -> &[u8] {
        &self.buf[range]
    }

    pub(crate) fn place(&self, offset: u64, field: impl ToString) -> Place {
        Place { path: self.path.into(), offset, field: field.to_string() }
    }

    /// The bytes passed so far; what was read beyond them is dropped.
    pub(crate) fn into_bytes(mut self) -> Vec<u8> {
        self.buf.truncate(self.pos);
        self.buf.shrink_to_fit();
        self.buf
    }

    /// Passes `n` bytes.
    #[inline]
    pub(crate) fn take(&mut self, n: u64, field: Arguments<'_>) -> Result<Range<usize>> {
        if n > (self.buf.len() - self.pos) as u64 {
            self.fetch(n, field)?;
        }
        let start = self.pos;
        self.pos += n as usize;
        Ok(start..self.pos)
    }

    #[inline]
    pub(crate) fn u32(&mut self, field: Arguments<'_>) -> Result<u32> {
        let range = self.take(4, field)?;
        Ok(u32::from_le_bytes(self.buf[range].try_into().expect("four bytes were taken")))
    }

    #[inline]
    pub(crate) fn u64(&mut self, field: Arguments<'_>) -> Result<u64> {
        let range = self.take(8, field)?;
        Ok(u64::from_le_bytes(self.buf[range].try_into().expect("eight bytes were taken")))
    }

    /// Passes a string; the range is that of its bytes.
    #[inline]
    pub(crate) fn string(&mut self, field: Arguments<'_>) -> Result<Range<usize>> {
        let len = self.u64(format_args!("length of {field}"))?;
        self.take(len, field)
    }

    /// Passes `count` strings: what takes the time in a header with a vocabulary.
    pub(crate) fn strings(&mut self, count: u64, field: impl Fn(u64) -> String) -> Result<()> {
        for i in 0..count {
            let passed = self.buf[self.pos..].split_first_chunk().and_then(|(len, rest)| {
                let len = usize::try_from(u64::from_le_bytes(*len)).ok()?;
                Some(8 + rest.get(..len)?.len())
            });
            if let Some(n) = passed {
                self.pos += n;
            } else {
                // Not yet read, or damaged.
                self.string(format_args!("{}", field(i)))?;
            }
        }
        Ok(())
    }

    /// Fails unless `count` things of at least `min_bytes` each can still follow.
    pub(crate) fn check_count(&self, count: u64, min_bytes: u64, field: Arguments<'_>) -> Result<()> {
        let needed = count.saturating_mul(min_bytes);
        if needed > self.bytes_left() {
            return Err(self.truncated(needed, field));
        }
        Ok(())
    }

    fn truncated(&self, needed: u64, field: Arguments<'_>) -> FormatError {
        FormatError::Truncated { place: self.place(self.position(), field), needed, left: self.bytes_left() }
    }

    /// Extends the buffer so that `n` bytes follow `pos`.
    #[cold]
    fn fetch(&mut self, n: u64, field: Arguments<'_>) -> Result<()> {
        if n > self.bytes_left() {
            return Err(self.truncated(n, field));
        }
        let end = self.position() + n;
        if end > MAX_HEADER_BYTES {
            let place = self.place(self.position(), format_args!("header up to the end of {field}"));
            return Err(FormatError::Limit { place, found: end, limit: MAX_HEADER_BYTES });
        }
        let have = self.buf.len();
        let piece = if have == 0 { FIRST_READ_BYTES } else { NEXT_READ_BYTES };
        let ahead = (have as u64 + piece).min(self.source_bytes).min(MAX_HEADER_BYTES);
        self.buf.resize(end.max(ahead) as usize, 0);
        self.source.read_exact_at(have as u64, &mut self.buf[have..]).map_err(FormatError::io(self.path, "read"))
    }
}
