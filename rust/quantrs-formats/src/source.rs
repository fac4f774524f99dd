//! Where parsers read from: a file, or bytes in memory.

use std::io;

/// Bytes that can be read at any position, by any number of threads.
pub trait ReadAt {
    /// How many bytes there are.
    fn size(&self) -> u64;

    /// Fills `out` from `offset` on.
    ///
    /// # Errors
    /// The system's reason; `UnexpectedEof` when the range is not within the source.
    fn read_exact_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;
}

impl ReadAt for [u8] {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_exact_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let range = usize::try_from(offset).ok().and_then(|start| self.get(start..)?.get(..out.len()));
        out.copy_from_slice(range.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_refuse_a_range_that_is_not_within_them() {
        let bytes: &[u8] = b"abcdef";
        let mut out = [0; 2];
        bytes.read_exact_at(4, &mut out).unwrap();
        assert_eq!(&out, b"ef");
        for offset in [5, 6, 7, u64::MAX] {
            assert_eq!(bytes.read_exact_at(offset, &mut out).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        }
    }
}
