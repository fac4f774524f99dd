//! A tensor's bytes in its own type, wherever its rows lie and however they are stored.

use crate::ConvertError;
use crate::contained::Contained;
use crate::packed::{Grid, held_codes};
use crate::row_order::{kind_of, stored_row, transpose};
use crate::stored::Decoder;
use quantrs_blocks::{BlockError, BlockFormat, Chunk, Converter, Place, Scratch, by_id, by_name};
use quantrs_formats::{At, OpenSources, Packed, Part, RowOrder, Stored, TensorInfo, Values};
use quantrs_simd::Level;
use rayon::prelude::*;
use std::ops::Range;

/// Bytes that are read at a time where a whole tensor or part is wanted.
const READ_BYTES: usize = 1 << 20;

/// A tensor `[n_rows, n_cols]`, ready to be read by many threads.
#[derive(Debug)]
pub struct TensorReader<'a> {
    sources: &'a OpenSources,
    level: Level,
    info: &'a TensorInfo,
    format: &'static BlockFormat,
    n_rows: usize,
    n_cols: usize,
    row_bytes: usize,
    /// Empty for a tensor that lies as it is.
    parts: Vec<PartReader>,
}

#[derive(Debug)]
struct PartReader {
    part: Part,
    /// Rows of the tensor.
    rows: Range<usize>,
    /// Of a stored row, after it was transposed where that is asked for.
    row_bytes: usize,
    /// All of it row by row, where stored rows are columns.
    transposed: Option<Vec<u8>>,
    conversion: Conversion,
}

#[derive(Debug)]
enum Conversion {
    /// The bytes are the tensor's already.
    Same,
    /// Codes become blocks of the same values.
    Blocks(Grid, Contained),
    /// Stored values go through float32.
    Decoded(Decoder, Finish),
    /// Codes likewise.
    Unpacked(Grid, Finish),
}

/// What becomes of values in float32.
#[derive(Debug)]
struct Finish {
    add: f32,
    /// To the tensor's type; None where that is float32.
    encoder: Option<Converter<'static>>,
}

impl PartReader {
    /// Where in a stored row a column begins.
    fn byte_of(&self, col: usize) -> usize {
        match (&self.part.values, &self.conversion) {
            (Values::Stored(stored), _) => col / stored.block_len as usize * stored.block_bytes as usize,
            (_, Conversion::Blocks(grid, _) | Conversion::Unpacked(grid, _)) => grid.byte_of(col),
            _ => unreachable!("a packed part has a grid"),
        }
    }

    /// Which stored row becomes row `row` of the part.
    fn stored_row(&self, row: usize) -> usize {
        match self.part.order.n_heads() as usize {
            0 => row,
            n_heads => {
                let d = self.rows.len() / n_heads;
                row / d * d + stored_row(self.part.order, d, row % d)
            }
        }
    }
}

/// Buffers of one worker, reused from read to read.
#[derive(Debug, Default)]
pub struct ReadBuffers {
    rows: Vec<u8>,
    stored: Vec<u8>,
    codes: Vec<u8>,
    values: Vec<f32>,
    scratch: Scratch,
}

/// Some columns of some rows: several rows only where the columns are all.
struct Span {
    /// Within the part.
    rows: Range<usize>,
    cols: Range<usize>,
}

impl<'a> TensorReader<'a> {
    /// Check that the tensor can be read. Parts to be transposed are read now, on the threads of the current pool.
    ///
    /// # Errors
    /// [`ConvertError`]: a type that cannot be decoded or written, or a file that cannot be read.
    pub fn new(level: Level, sources: &'a OpenSources, info: &'a TensorInfo) -> Result<Self, ConvertError> {
        let named = |source: BlockError| ConvertError::Values { name: info.name.clone(), source };
        let format = by_id(info.type_id).ok_or_else(|| named(unknown_type()))?;
        let n_cols = info.dims[0] as usize;
        let n_rows = info.dims[1..].iter().product::<u64>() as usize;
        let row_bytes = format
            .row_bytes(n_cols)
            .ok_or_else(|| named(BlockError::RowLength { n_cols, block_len: format.block_len, format: format.name }))?;
        let mut reader = TensorReader { sources, level, info, format, n_rows, n_cols, row_bytes, parts: Vec::new() };
        if let Some(assembly) = &info.assembly {
            let mut first = 0;
            for part in &assembly.parts {
                let read = reader.part(part, first, assembly.add)?;
                first = read.rows.end;
                reader.parts.push(read);
            }
        }
        Ok(reader)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'a str {
        &self.info.name
    }

    /// The type of the bytes that are read.
    #[must_use]
    pub fn format(&self) -> &'static BlockFormat {
        self.format
    }

    /// Product of all dimensions but the first.
    #[must_use]
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// Values per row.
    #[must_use]
    pub fn n_cols(&self) -> usize {
        self.n_cols
    }

    /// Bytes of the tensor in its own type.
    #[must_use]
    pub fn nbytes(&self) -> usize {
        self.n_rows * self.row_bytes
    }

    fn part(&self, part: &Part, first: usize, add: f32) -> Result<PartReader, ConvertError> {
        let rows = first..first + part.n_rows as usize;
        match &part.values {
            Values::Stored(stored) => self.stored_part(part, *stored, rows, add),
            Values::Packed(packed) => self.packed_part(part, packed, rows, add),
        }
    }

    fn stored_part(
        &self,
        part: &Part,
        stored: Stored,
        rows: Range<usize>,
        add: f32,
    ) -> Result<PartReader, ConvertError> {
        let named = |source: BlockError| ConvertError::Values { name: self.info.name.clone(), source };
        let same = stored.type_id == Some(self.info.type_id) && add == 0.0;
        let conversion = if same {
            Conversion::Same
        } else {
            Conversion::Decoded(Decoder::of(stored).map_err(named)?, Finish { add, encoder: self.encoder()? })
        };
        let row_bytes = self.n_cols / stored.block_len as usize * stored.block_bytes as usize;
        let transposed = (part.order == RowOrder::Transposed)
            .then(|| self.read_transposed(part, stored.block_bytes as usize, row_bytes))
            .transpose()?;
        Ok(PartReader { part: *part, rows, row_bytes, transposed, conversion })
    }

    fn packed_part(
        &self,
        part: &Part,
        packed: &Packed,
        rows: Range<usize>,
        add: f32,
    ) -> Result<PartReader, ConvertError> {
        let (name, n_cols) = (&self.info.name, self.n_cols);
        let grid = Grid::read(name, self.sources, packed, rows.len(), n_cols)?;
        let row_bytes = grid.row_bytes();
        let conversion = match Contained::by_name(self.format.name) {
            Some(block) if block.holds(&grid, n_cols) => Conversion::Blocks(grid, block),
            Some(block) => {
                let (what, found) = ("codes and scales", "a grid of other values".to_owned());
                let expected = format!("one that {} contains; decode it to F32", block.name());
                return Err(ConvertError::Packed { name: name.clone(), what, found, expected });
            }
            None => Conversion::Unpacked(grid, Finish { add, encoder: self.encoder()? }),
        };
        let at = At { source: part.source, offset: part.offset };
        let transposed = held_codes(self.sources, packed, at, rows.len(), n_cols)?;
        Ok(PartReader { part: *part, rows, row_bytes, transposed, conversion })
    }

    /// From float32 to the tensor's type; None where that is the same.
    fn encoder(&self) -> Result<Option<Converter<'static>>, ConvertError> {
        let f32_format = by_name("F32").expect("the registry has it");
        (self.format.id != f32_format.id)
            .then(|| Converter::new(self.level, f32_format, self.format, self.n_rows, self.n_cols, None))
            .transpose()
            .map_err(|source| ConvertError::Values { name: self.info.name.clone(), source })
    }

    /// All values of a part, rows and columns exchanged.
    fn read_transposed(&self, part: &Part, nbytes: usize, row_bytes: usize) -> Result<Vec<u8>, ConvertError> {
        let n_rows = part.n_rows as usize;
        let mut stored = vec![0; n_rows * row_bytes];
        self.read_stretch(part.source, part.offset, &mut stored)?;
        let mut out = vec![0; stored.len()];
        let transpose = match nbytes {
            1 => transpose::<1>,
            2 => transpose::<2>,
            4 => transpose::<4>,
            _ => transpose::<8>,
        };
        transpose(&stored, n_rows, self.n_cols, &mut out);
        Ok(out)
    }

    fn read_stretch(&self, source: usize, offset: u64, out: &mut [u8]) -> Result<(), ConvertError> {
        out.par_chunks_mut(READ_BYTES)
            .enumerate()
            .try_for_each(|(i, out)| self.sources.read_at(source, offset + (i * READ_BYTES) as u64, out))?;
        Ok(())
    }

    /// The whole tensor, on the threads of the current pool. `out` has its size.
    ///
    /// # Errors
    /// [`ConvertError`].
    pub fn read_all(&self, out: &mut [u8]) -> Result<(), ConvertError> {
        // Whole rows, or pieces of one that are whole blocks of every type: 256 values and their bytes.
        let unit = 256 / self.format.block_len.min(256) * self.format.block_bytes;
        let piece = match self.row_bytes {
            0 => unit,
            n if n <= READ_BYTES => READ_BYTES / n * n,
            _ => READ_BYTES / unit * unit,
        };
        out.par_chunks_mut(piece)
            .enumerate()
            .try_for_each_init(ReadBuffers::default, |buffers, (i, out)| self.read_at(i * piece, out, buffers))
    }

    /// Bytes of the tensor in its own type, from byte `start` on. Both ends are multiples of 256 values, or ends of rows, or both.
    ///
    /// # Errors
    /// [`ConvertError`]: the file's reason, or values that the tensor's type cannot hold.
    pub fn read_at(&self, start: usize, out: &mut [u8], buffers: &mut ReadBuffers) -> Result<(), ConvertError> {
        if self.parts.is_empty() {
            return Ok(self.sources.read_at(self.info.file, self.info.offset + start as u64, out)?);
        }
        let mut done = 0;
        while done < out.len() {
            let (row, byte, left) =
                ((start + done) / self.row_bytes, (start + done) % self.row_bytes, out.len() - done);
            let part = &self.parts[self.parts.partition_point(|part| part.rows.end <= row)];
            let (rows, bytes) = if byte == 0 && left >= self.row_bytes {
                ((left / self.row_bytes).min(part.rows.end - row), 0..self.row_bytes)
            } else {
                (1, byte..self.row_bytes.min(byte + left))
            };
            let col = |byte: usize| byte / self.format.block_bytes * self.format.block_len;
            let first = row - part.rows.start;
            let span = Span { rows: first..first + rows, cols: col(bytes.start)..col(bytes.end) };
            let n = rows * bytes.len();
            self.read_span(part, &span, &mut out[done..done + n], buffers)?;
            done += n;
        }
        Ok(())
    }

    fn read_span(
        &self,
        part: &PartReader,
        span: &Span,
        out: &mut [u8],
        buffers: &mut ReadBuffers,
    ) -> Result<(), ConvertError> {
        let ReadBuffers { rows, stored, codes, values, scratch } = buffers;
        if let Conversion::Same = part.conversion {
            return self.gather(part, span, out, rows);
        }
        let row_bytes = part.byte_of(span.cols.end) - part.byte_of(span.cols.start);
        let stored = sized(stored, span.rows.len() * row_bytes);
        self.gather(part, span, stored, rows)?;
        let n_cols = span.cols.len();
        let n_bytes = out.len() / span.rows.len();
        match &part.conversion {
            Conversion::Same => {}
            Conversion::Blocks(grid, block) => {
                let codes = sized(codes, n_cols);
                for ((row, stored), out) in
                    span.rows.clone().zip(stored.chunks_exact(row_bytes)).zip(out.chunks_exact_mut(n_bytes))
                {
                    grid.unpack(self.level, stored, codes);
                    block.encode(grid, part.stored_row(row), span.cols.clone(), codes, out);
                }
            }
            Conversion::Decoded(decoder, finish) => {
                let values = sized(values, span.rows.len() * n_cols);
                decoder.decode(self.level, stored, values);
                let start = Place { row: part.rows.start + span.rows.start, col: span.cols.start };
                self.finish(finish, start, values, out, rows, scratch)?;
            }
            Conversion::Unpacked(grid, finish) => {
                let (codes, values) = (sized(codes, n_cols), sized(values, n_cols));
                // Row by row, so that values stay in the cache until they are written.
                for ((row, stored), out) in
                    span.rows.clone().zip(stored.chunks_exact(row_bytes)).zip(out.chunks_exact_mut(n_bytes))
                {
                    grid.unpack(self.level, stored, codes);
                    grid.decode(self.level, part.stored_row(row), span.cols.clone(), codes, values);
                    let start = Place { row: part.rows.start + row, col: span.cols.start };
                    self.finish(finish, start, values, out, rows, scratch)?;
                }
            }
        }
        Ok(())
    }

    /// From values to the tensor's type.
    fn finish(
        &self,
        finish: &Finish,
        start: Place,
        values: &mut [f32],
        out: &mut [u8],
        buffer: &mut Vec<u8>,
        scratch: &mut Scratch,
    ) -> Result<(), ConvertError> {
        if finish.add != 0.0 {
            values.iter_mut().for_each(|v| *v += finish.add);
        }
        let n_values = values.len();
        let packed: &mut [u8] = match finish.encoder {
            None => out,
            Some(_) => sized(buffer, 4 * n_values),
        };
        for (b, v) in packed.as_chunks_mut::<4>().0.iter_mut().zip(&*values) {
            *b = v.to_le_bytes();
        }
        if let Some(encoder) = &finish.encoder {
            let chunk = Chunk { start, n_values, src: 0..4 * n_values, dst: 0..out.len() };
            let named = |source: BlockError| ConvertError::Values { name: self.info.name.clone(), source };
            encoder.convert_chunk(&chunk, sized(buffer, 4 * n_values), out, scratch).map_err(named)?;
        }
        Ok(())
    }

    /// Stored bytes of a span, in the tensor's row order.
    fn gather(&self, part: &PartReader, span: &Span, out: &mut [u8], buffer: &mut Vec<u8>) -> Result<(), ConvertError> {
        let (first_byte, row_bytes) = (part.byte_of(span.cols.start), part.row_bytes);
        let read = |row: usize, out: &mut [u8]| {
            let from = row * row_bytes + first_byte;
            match &part.transposed {
                Some(all) => {
                    out.copy_from_slice(&all[from..from + out.len()]);
                    Ok(())
                }
                None => self.sources.read_at(part.part.source, part.part.offset + from as u64, out),
            }
        };
        let n_heads = part.part.order.n_heads() as usize;
        if n_heads == 0 {
            return Ok(read(span.rows.start, out)?);
        }
        let d = part.rows.len() / n_heads;
        let place = |row: usize| part.stored_row(row);
        if span.rows.len() == 1 {
            return Ok(read(place(span.rows.start), out)?);
        }
        let mut row = span.rows.start;
        let mut pick = |rows: &mut dyn Iterator<Item = usize>, stored: Range<usize>| -> Result<(), ConvertError> {
            let buffer = sized(buffer, stored.len() * row_bytes);
            read(stored.start, buffer)?;
            for row in rows {
                let (to, from) = ((row - span.rows.start) * row_bytes, (place(row) - stored.start) * row_bytes);
                out[to..to + row_bytes].copy_from_slice(&buffer[from..from + row_bytes]);
            }
            Ok(())
        };
        while row < span.rows.end {
            let whole_heads = (span.rows.end - row) / d;
            if row.is_multiple_of(d) && whole_heads > 0 {
                let end = row + whole_heads * d;
                pick(&mut (row..end), row..end)?;
                row = end;
                continue;
            }
            let end = span.rows.end.min((row / d + 1) * d);
            // Both kinds of stored rows come in ascending order: one stretch each.
            for kind in 0..2 {
                let mut rows = (row..end).filter(|row| kind_of(part.part.order, d, row % d) == kind);
                if let Some(first) = rows.next() {
                    let last = rows.clone().next_back().unwrap_or(first);
                    pick(&mut std::iter::once(first).chain(rows), place(first)..place(last) + 1)?;
                }
            }
            row = end;
        }
        Ok(())
    }
}

fn unknown_type() -> BlockError {
    BlockError::Unsupported { format: "a type that this build does not know", verb: "read" }
}

pub(crate) fn sized<T: Copy + Default>(buffer: &mut Vec<T>, n: usize) -> &mut [T] {
    if buffer.len() < n {
        buffer.resize(n, T::default());
    }
    &mut buffer[..n]
}

#[cfg(test)]
mod tests {
    use super::*;
    use quantrs_formats::{AssembledTensor, Assembly, GgmlType, Gguf, Header, Source};
    use std::sync::Arc;

    const N_COLS: usize = 256;
    const N_ROWS: usize = 48;

    /// Every value of a source of this many is another: f16 bits that count up.
    fn source(n_values: usize) -> Vec<u8> {
        (0..n_values as u16).flat_map(u16::to_le_bytes).collect()
    }

    fn part(offset: u64, stored: &str, n_rows: usize, order: RowOrder) -> Part {
        let values = Values::Stored(Stored::by_name(stored).unwrap());
        Part { source: 0, offset, values, n_rows: n_rows as u64, order }
    }

    fn model(bytes: Vec<u8>, type_name: &str, n_rows: usize, parts: Vec<Part>, add: f32) -> Gguf {
        let tensor = AssembledTensor {
            name: "t".into(),
            dims: vec![N_COLS as u64, n_rows as u64],
            ggml_type: GgmlType::by_name(type_name).unwrap(),
            assembly: Arc::new(Assembly { parts, add }),
        };
        let memory = Source::Memory { label: "memory".into(), bytes: Arc::new(bytes) };
        Gguf::assembled(&Header::new(3).unwrap(), vec![memory], vec![tensor]).unwrap()
    }

    /// All of a tensor, in one go.
    fn read_all(model: &Gguf) -> Result<Vec<u8>, ConvertError> {
        let sources = model.open_sources();
        let reader = TensorReader::new(Level::detect(), &sources, &model.tensors()[0])?;
        let mut all = vec![0; reader.nbytes()];
        reader.read_all(&mut all)?;
        Ok(all)
    }

    /// Any range of whole blocks gives the bytes that the whole has there.
    fn ranges_agree(model: &Gguf, all: &[u8], unit: usize) {
        let sources = model.open_sources();
        let reader = TensorReader::new(Level::detect(), &sources, &model.tensors()[0]).unwrap();
        let mut buffers = ReadBuffers::default();
        let n = all.len() / unit;
        for (start, end) in (0..n).step_by(5).flat_map(|a| (a + 1..=n).step_by(7).map(move |b| (a * unit, b * unit))) {
            let mut out = vec![0; end - start];
            reader.read_at(start, &mut out, &mut buffers).unwrap();
            assert!(out == all[start..end], "bytes {start} to {end}");
        }
    }

    /// The definition, row by row: for each head, stored row `j * d / 2 + i` is row `2 * i + j`.
    fn halves_to_pairs(stored: &[u8], n_heads: usize) -> Vec<u8> {
        let (row_bytes, d) = (2 * N_COLS, N_ROWS / n_heads);
        let mut out = vec![0; stored.len()];
        for (h, j, i) in (0..n_heads).flat_map(|h| (0..2).flat_map(move |j| (0..d / 2).map(move |i| (h, j, i)))) {
            let (from, to) = (h * d + j * (d / 2) + i, h * d + 2 * i + j);
            out[to * row_bytes..][..row_bytes].copy_from_slice(&stored[from * row_bytes..][..row_bytes]);
        }
        out
    }

    #[test]
    fn rows_of_heads_go_where_the_definition_says_and_back() {
        let stored = source(N_ROWS * N_COLS);
        for n_heads in [1, 2, 4, 12, 24] {
            let expected = halves_to_pairs(&stored, n_heads);
            let heads = n_heads as u64;
            let there = part(0, "F16", N_ROWS, RowOrder::HalvesToPairs { n_heads: heads });
            let there = model(stored.clone(), "F16", N_ROWS, vec![there], 0.0);
            assert!(read_all(&there).unwrap() == expected, "{n_heads} heads");
            ranges_agree(&there, &expected, 128);
            let back = part(0, "F16", N_ROWS, RowOrder::PairsToHalves { n_heads: heads });
            let back = model(expected, "F16", N_ROWS, vec![back], 0.0);
            assert!(read_all(&back).unwrap() == stored, "{n_heads} heads, back");
            ranges_agree(&back, &stored, 128);
        }
    }

    #[test]
    fn transposed_parts_exchange_rows_and_columns() {
        let stored = source(N_ROWS * N_COLS);
        let mut expected = vec![0; stored.len()];
        // 48 rows and 256 columns: squares that are whole, and squares that are not.
        for (row, col) in (0..N_ROWS).flat_map(|row| (0..N_COLS).map(move |col| (row, col))) {
            expected[2 * (row * N_COLS + col)..][..2].copy_from_slice(&stored[2 * (col * N_ROWS + row)..][..2]);
        }
        let m = model(stored, "F16", N_ROWS, vec![part(0, "F16", N_ROWS, RowOrder::Transposed)], 0.0);
        assert!(read_all(&m).unwrap() == expected);
        ranges_agree(&m, &expected, 128);
    }

    #[test]
    fn parts_follow_each_other_and_are_converted() {
        // 48 rows of f16, of which the middle ones are wanted first, then all as they are, one added.
        let stored = source(N_ROWS * N_COLS);
        let parts = vec![part(10 * 512, "F16", 7, RowOrder::AsStored), part(0, "F16", N_ROWS, RowOrder::AsStored)];
        let values: Vec<f32> = (0..(N_ROWS * N_COLS) as u16).map(quantrs_simd::f16_value).map(|v| v + 1.0).collect();
        let expected: Vec<u8> =
            values[10 * 256..17 * 256].iter().chain(&values).flat_map(|v| v.to_le_bytes()).collect();
        let m = model(stored, "F32", 7 + N_ROWS, parts, 1.0);
        assert!(read_all(&m).unwrap() == expected);
        ranges_agree(&m, &expected, 1024);
    }

    #[test]
    fn eight_bit_floats_become_bfloat16_without_loss() {
        // All 254 finite values, and two zeros for the NaNs.
        let stored: Vec<u8> = (0..=255u8).map(|b| if b & 0x7f == 0x7f { 0 } else { b }).collect();
        let all =
            read_all(&model(stored.clone(), "BF16", 1, vec![part(0, "F8_E4M3", 1, RowOrder::AsStored)], 0.0)).unwrap();
        let mut expected = vec![0.0; 256];
        Decoder::of(Stored::by_name("F8_E4M3").unwrap()).unwrap().decode(Level::detect(), &stored, &mut expected);
        let found: Vec<f32> =
            all.chunks(2).map(|b| f32::from_bits(u32::from(b[1]) << 24 | u32::from(b[0]) << 16)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn values_that_the_type_cannot_hold_are_named_with_their_row() {
        let mut stored: Vec<u8> = (0..N_ROWS * N_COLS).flat_map(|_| 0.5f32.to_le_bytes()).collect();
        stored[4 * (41 * N_COLS + 3)..][..4].copy_from_slice(&1e9f32.to_le_bytes());
        let message =
            read_all(&model(stored, "F16", N_ROWS, vec![part(0, "F32", N_ROWS, RowOrder::AsStored)], 0.0)).unwrap_err();
        assert!(message.to_string().starts_with("t: row 41, column 3: "), "{message}");
        let integers = model(source(N_COLS), "I16", 1, vec![part(0, "F16", 1, RowOrder::AsStored)], 0.0);
        assert!(read_all(&integers).unwrap_err().to_string().contains("I16 cannot be written"));
    }

    #[test]
    fn a_source_that_was_cut_since_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shard");
        std::fs::write(&path, source(N_ROWS * N_COLS)).unwrap();
        let tensor = AssembledTensor {
            name: "t".into(),
            dims: vec![N_COLS as u64, N_ROWS as u64],
            ggml_type: GgmlType::by_name("F16").unwrap(),
            assembly: Arc::new(Assembly { parts: vec![part(0, "F16", N_ROWS, RowOrder::Transposed)], add: 0.0 }),
        };
        let m = Gguf::assembled(&Header::new(3).unwrap(), vec![Source::File(path.clone())], vec![tensor]).unwrap();
        assert!(read_all(&m).is_ok());
        std::fs::write(&path, source(100)).unwrap();
        assert!(matches!(read_all(&m), Err(ConvertError::File(_))));
    }
}
