//! One tensor: read, convert, write, checksum.

use crate::chunks::for_each_chunk;
use crate::{ConvertError, Progress, Writeback};
use quantrs_blocks::{BlockError, BlockFormat, Converter, Place, RowErrors, Scratch};
use quantrs_formats::{PartFile, SourceFile};
use quantrs_simd::Level;

/// Bytes that are copied or checked at a time.
const COPY_BYTES: usize = 1 << 20;

/// A tensor in a source file: `[n_rows, n_cols]`, rows one after the other.
#[derive(Clone, Copy, Debug)]
pub struct TensorSource<'a> {
    /// Its name, for messages.
    pub name: &'a str,
    /// The file.
    pub file: &'a SourceFile,
    /// Where its data begins.
    pub offset: u64,
    /// How its values are stored.
    pub format: &'static BlockFormat,
    /// Product of all dimensions but the first of the file's order.
    pub n_rows: usize,
    /// Values per row.
    pub n_cols: usize,
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Written {
    /// CRC-32 of the bytes.
    pub crc32: u32,
    /// Blocks whose values the scale range of the format clips.
    pub clipped_blocks: usize,
    /// Differences from the source, where they were asked for.
    pub errors: Option<RowErrors>,
}

#[derive(Default)]
struct Buffers {
    src: Vec<u8>,
    dst: Vec<u8>,
    scratch: Scratch,
}

fn sized(buffer: &mut Vec<u8>, n: usize) -> &mut [u8] {
    if buffer.len() < n {
        buffer.resize(n, 0);
    }
    &mut buffer[..n]
}

/// Convert a tensor to `format` and write it at `offset` of `part`, on the threads of the current pool.
///
/// `importance` is `[n_slices, n_cols]`. With `measure` the written bytes are decoded again and compared.
#[allow(clippy::too_many_arguments, reason = "source, target and the four things that go along, each used once")]
pub fn write_tensor(
    level: Level,
    source: &TensorSource<'_>,
    format: &'static BlockFormat,
    importance: Option<&[f32]>,
    part: &PartFile,
    offset: u64,
    measure: bool,
    writeback: &Writeback,
    progress: &Progress,
) -> Result<Written, ConvertError> {
    let named = |error: BlockError| ConvertError::Values { name: source.name.to_owned(), source: error };
    let converter =
        Converter::new(level, source.format, format, source.n_rows, source.n_cols, importance).map_err(named)?;
    let chunks = for_each_chunk(converter.n_chunks(), Buffers::default, |Buffers { src, dst, scratch }, i| {
        if progress.is_cancelled() {
            return Err(ConvertError::Cancelled);
        }
        let chunk = converter.chunk(i);
        let src = sized(src, chunk.src.len());
        source.file.read_at(source.offset + chunk.src.start as u64, src)?;
        let dst = sized(dst, chunk.dst.len());
        let clipped_blocks = converter.convert_chunk(&chunk, src, dst, scratch).map_err(named)?;
        let errors = measure.then(|| converter.chunk_errors(&chunk, src, dst, scratch));
        let at = offset + chunk.dst.start as u64;
        part.write_at(at, dst)?;
        writeback.finished(at, dst.len() as u64);
        progress.add(src.len());
        let mut crc = crc32fast::Hasher::new();
        crc.update(dst);
        Ok((crc, clipped_blocks, errors))
    })?;
    Ok(summed(chunks))
}

/// Copy `n_bytes` of a source unchanged, on the threads of the current pool.
pub fn copy_bytes(
    file: &SourceFile,
    src_offset: u64,
    n_bytes: u64,
    part: &PartFile,
    offset: u64,
    writeback: &Writeback,
    progress: &Progress,
) -> Result<Written, ConvertError> {
    let n_chunks = n_bytes.div_ceil(COPY_BYTES as u64) as usize;
    let chunks = for_each_chunk(n_chunks, Vec::new, |buffer, i| {
        if progress.is_cancelled() {
            return Err(ConvertError::Cancelled);
        }
        let at = (i * COPY_BYTES) as u64;
        let buffer = sized(buffer, (n_bytes - at).min(COPY_BYTES as u64) as usize);
        file.read_at(src_offset + at, buffer)?;
        part.write_at(offset + at, buffer)?;
        writeback.finished(offset + at, buffer.len() as u64);
        progress.add(buffer.len());
        let mut crc = crc32fast::Hasher::new();
        crc.update(buffer);
        Ok((crc, 0, None))
    })?;
    Ok(summed(chunks))
}

fn summed(chunks: Vec<(crc32fast::Hasher, usize, Option<RowErrors>)>) -> Written {
    let mut all = crc32fast::Hasher::new();
    let mut written = Written::default();
    for (crc, clipped_blocks, errors) in chunks {
        all.combine(&crc);
        written.clipped_blocks += clipped_blocks;
        written.errors = match (written.errors, errors) {
            (Some(sum), Some(errors)) => Some(sum.merge(errors)),
            (sum, errors) => sum.or(errors),
        };
    }
    written.crc32 = all.finalize();
    written
}

/// Look for stored scales and values that are infinite or NaN; the error is the first of them.
pub fn check_tensor(source: &TensorSource<'_>) -> Result<(), ConvertError> {
    let TensorSource { name, file, offset, format, n_rows, n_cols } = *source;
    let named = |source| ConvertError::Values { name: name.to_owned(), source };
    let row_bytes = format.row_bytes(n_cols);
    let row_bytes = row_bytes
        .ok_or_else(|| named(BlockError::RowLength { n_cols, block_len: format.block_len, format: format.name }))?;
    let n_blocks = n_rows * row_bytes / format.block_bytes;
    let per_chunk = COPY_BYTES / format.block_bytes;
    for_each_chunk(n_blocks.div_ceil(per_chunk), Vec::new, |buffer, i| {
        let first = i * per_chunk;
        let buffer = sized(buffer, per_chunk.min(n_blocks - first) * format.block_bytes);
        file.read_at(offset + (first * format.block_bytes) as u64, buffer)?;
        match format.first_bad_scale(buffer) {
            None => Ok(()),
            Some(block) => {
                let value = (first + block) * format.block_len;
                let place = Place { row: value / n_cols, col: value % n_cols };
                Err(named(BlockError::StoredScale { place, format: format.name }))
            }
        }
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use quantrs_blocks::{by_name, with_threads};
    use std::sync::Arc;

    fn f32_file(dir: &std::path::Path, x: &[f32]) -> SourceFile {
        let path = dir.join("source");
        std::fs::write(&path, x.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>()).unwrap();
        SourceFile::open(path).unwrap()
    }

    fn write(
        dir: &std::path::Path,
        x: &[f32],
        n_cols: usize,
        threads: usize,
    ) -> Result<(Vec<u8>, Written), ConvertError> {
        let file = f32_file(dir, x);
        let (n_rows, format) = (x.len() / n_cols, by_name("F16").unwrap());
        let source =
            TensorSource { name: "blk.0.t", file: &file, offset: 0, format: by_name("F32").unwrap(), n_rows, n_cols };
        let path = dir.join("result");
        let part = Arc::new(PartFile::create(&path, 2 * x.len() as u64 + 7).unwrap());
        let writeback = Writeback::start(part.clone());
        let progress = Progress::default();
        let written = with_threads(Some(threads), || {
            write_tensor(Level::detect(), &source, format, None, &part, 7, true, &writeback, &progress)
        })?;
        assert_eq!(progress.done(), 4 * x.len() as u64);
        assert_eq!(written.crc32, part.checksum(7, 2 * x.len() as u64).unwrap());
        Ok((std::fs::read(path).unwrap(), written))
    }

    #[test]
    fn a_tensor_is_the_same_for_any_thread_count() {
        let dir = tempfile::tempdir().unwrap();
        let x: Vec<f32> = (0..3000 * 96).map(|i| (i as f32 * 0.37).sin()).collect();
        let one = write(dir.path(), &x, 96, 1).unwrap();
        assert_eq!(one.0[7..9], half_bits(x[0]));
        for threads in [2, 3] {
            assert_eq!(write(dir.path(), &x, 96, threads).unwrap(), one);
        }
    }

    fn half_bits(v: f32) -> [u8; 2] {
        assert_eq!(v, 0.0);
        [0, 0]
    }

    #[test]
    fn a_bad_value_is_named_with_tensor_row_and_column() {
        let dir = tempfile::tempdir().unwrap();
        let mut x = vec![0.5; 3000 * 96];
        x[2500 * 96 + 11] = f32::NAN;
        let message = write(dir.path(), &x, 96, 2).unwrap_err().to_string();
        assert!(message.starts_with("blk.0.t: row 2500, column 11: "), "{message}");
    }

    #[test]
    fn a_cancelled_conversion_stops() {
        let dir = tempfile::tempdir().unwrap();
        let file = f32_file(dir.path(), &[1.0; 64]);
        let part = Arc::new(PartFile::create(dir.path().join("result"), 256).unwrap());
        let (writeback, progress) = (Writeback::start(part.clone()), Progress::default());
        progress.cancel();
        let stopped = copy_bytes(&file, 0, 256, &part, 0, &writeback, &progress);
        assert!(matches!(stopped, Err(ConvertError::Cancelled)));
    }

    #[test]
    fn a_stored_infinity_is_found_with_its_row() {
        let dir = tempfile::tempdir().unwrap();
        let mut x = vec![0.5; 4 * 32];
        x[2 * 32 + 5] = f32::INFINITY;
        let file = f32_file(dir.path(), &x);
        let format = by_name("F32").unwrap();
        let source = TensorSource { name: "t", file: &file, offset: 0, format, n_rows: 4, n_cols: 32 };
        let message = check_tensor(&source).unwrap_err().to_string();
        assert!(message.contains("row 2, column 5"), "{message}");
    }
}
