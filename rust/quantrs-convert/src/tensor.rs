//! One tensor: read, convert, write, checksum.

use crate::chunks::for_each_chunk;
use crate::reader::{ReadBuffers, TensorReader, sized};
use crate::{ConvertError, Progress, Writeback};
use quantrs_blocks::{BlockError, BlockFormat, Converter, Place, RowErrors, Scratch};
use quantrs_formats::PartFile;
use quantrs_simd::Level;

/// Bytes that are checked at a time.
const CHECK_BYTES: usize = 1 << 20;

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
    read: ReadBuffers,
    scratch: Scratch,
}

/// Convert a tensor to `format` and write it at `offset` of `part`, on the threads of the current pool.
///
/// `importance` is `[n_slices, n_cols]`. With `measure` the written bytes are decoded again and compared.
#[allow(clippy::too_many_arguments, reason = "source, target and the four things that go along, each used once")]
pub fn write_tensor(
    level: Level,
    source: &TensorReader<'_>,
    format: &'static BlockFormat,
    importance: Option<&[f32]>,
    part: &PartFile,
    offset: u64,
    measure: bool,
    writeback: &Writeback,
    progress: &Progress,
) -> Result<Written, ConvertError> {
    let named = |error: BlockError| ConvertError::Values { name: source.name().to_owned(), source: error };
    let converter =
        Converter::new(level, source.format(), format, source.n_rows(), source.n_cols(), importance).map_err(named)?;
    let chunks = for_each_chunk(converter.n_chunks(), Buffers::default, |Buffers { src, dst, read, scratch }, i| {
        if progress.is_cancelled() {
            return Err(ConvertError::Cancelled);
        }
        let chunk = converter.chunk(i);
        let src = sized(src, chunk.src.len());
        source.read_at(chunk.src.start, src, read)?;
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
pub fn check_tensor(source: &TensorReader<'_>) -> Result<(), ConvertError> {
    let (format, n_cols) = (source.format(), source.n_cols());
    // Pieces are whole super-blocks, as readers ask for.
    let per_chunk = CHECK_BYTES / format.block_bytes / 256 * 256;
    let n_blocks = source.nbytes() / format.block_bytes;
    for_each_chunk(
        n_blocks.div_ceil(per_chunk),
        Default::default,
        |(buffer, read): &mut (Vec<u8>, ReadBuffers), i| {
            let first = i * per_chunk;
            let buffer = sized(buffer, per_chunk.min(n_blocks - first) * format.block_bytes);
            source.read_at(first * format.block_bytes, buffer, read)?;
            match format.first_bad_scale(buffer) {
                None => Ok(()),
                Some(block) => {
                    let value = (first + block) * format.block_len;
                    let place = Place { row: value / n_cols, col: value % n_cols };
                    let source_error = BlockError::StoredScale { place, format: format.name };
                    Err(ConvertError::Values { name: source.name().to_owned(), source: source_error })
                }
            }
        },
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use quantrs_blocks::{by_name, with_threads};
    use quantrs_formats::{OpenSources, Source, TensorInfo};
    use std::sync::Arc;

    /// A file of float32 values, `[n_rows, n_cols]`, and its description.
    fn f32_file(dir: &std::path::Path, x: &[f32], n_cols: usize) -> (OpenSources, TensorInfo) {
        let path = dir.join("source");
        std::fs::write(&path, x.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>()).unwrap();
        let dims = vec![n_cols as u64, (x.len() / n_cols) as u64];
        let nbytes = 4 * x.len() as u64;
        let info = TensorInfo { name: "blk.0.t".into(), dims, type_id: 0, offset: 0, nbytes, file: 0, assembly: None };
        (OpenSources::new(&[Source::File(path)]), info)
    }

    fn write(
        dir: &std::path::Path,
        x: &[f32],
        n_cols: usize,
        threads: usize,
        progress: &Progress,
    ) -> Result<(Vec<u8>, Written), ConvertError> {
        let (sources, info) = f32_file(dir, x, n_cols);
        let source = TensorReader::new(Level::detect(), &sources, &info)?;
        let format = by_name("F16").unwrap();
        let path = dir.join("result");
        let part = Arc::new(PartFile::create(&path, 2 * x.len() as u64 + 7).unwrap());
        let writeback = Writeback::start(part.clone());
        let written = with_threads(Some(threads), || {
            write_tensor(Level::detect(), &source, format, None, &part, 7, true, &writeback, progress)
        })?;
        assert_eq!(progress.done(), 4 * x.len() as u64);
        assert_eq!(written.crc32, part.checksum(7, 2 * x.len() as u64).unwrap());
        Ok((std::fs::read(path).unwrap(), written))
    }

    #[test]
    fn a_tensor_is_the_same_for_any_thread_count() {
        let dir = tempfile::tempdir().unwrap();
        let x: Vec<f32> = (0..3000 * 96).map(|i| (i as f32 * 0.37).sin()).collect();
        let one = write(dir.path(), &x, 96, 1, &Progress::default()).unwrap();
        assert_eq!(one.0[7..9], half_bits(x[0]));
        for threads in [2, 3] {
            assert_eq!(write(dir.path(), &x, 96, threads, &Progress::default()).unwrap(), one);
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
        let message = write(dir.path(), &x, 96, 2, &Progress::default()).unwrap_err().to_string();
        assert!(message.starts_with("blk.0.t: row 2500, column 11: "), "{message}");
    }

    #[test]
    fn a_cancelled_conversion_stops() {
        let dir = tempfile::tempdir().unwrap();
        let progress = Progress::default();
        progress.cancel();
        let stopped = write(dir.path(), &[1.0; 64], 32, 1, &progress);
        assert!(matches!(stopped, Err(ConvertError::Cancelled)));
    }

    #[test]
    fn a_stored_infinity_is_found_with_its_row() {
        let dir = tempfile::tempdir().unwrap();
        let mut x = vec![0.5; 4 * 32];
        x[2 * 32 + 5] = f32::INFINITY;
        let (sources, info) = f32_file(dir.path(), &x, 32);
        let source = TensorReader::new(Level::detect(), &sources, &info).unwrap();
        let message = check_tensor(&source).unwrap_err().to_string();
        assert!(message.contains("row 2, column 5"), "{message}");
    }
}
