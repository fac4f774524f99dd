//! Positioned reading and writing: many threads on one file, no shared cursor.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{FormatError, Result};
use crate::source::ReadAt;

/// Bytes that [`PartFile::checksum`] holds at a time.
const CHECKSUM_CHUNK_BYTES: u64 = 1 << 20;

/// A regular file, opened for positioned reads.
#[derive(Debug)]
pub struct SourceFile {
    file: File,
    path: PathBuf,
    size: u64,
}

impl SourceFile {
    /// Opens a file. Anything but a regular file is refused before it is opened (a pipe would block).
    ///
    /// # Errors
    /// [`FormatError::Io`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let meta = std::fs::metadata(path).map_err(FormatError::io(path, "open"))?;
        if !meta.is_file() {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
            return Err(FormatError::Io { path: path.into(), action: "open", source });
        }
        let file = File::open(path).map_err(FormatError::io(path, "open"))?;
        let size = file.metadata().map_err(FormatError::io(path, "open"))?.len();
        Ok(Self { file, path: path.into(), size })
    }

    /// The path it was opened with.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Fills `out` from `offset` on.
    ///
    /// # Errors
    /// [`FormatError::Io`], also when the file ends before `out` is full.
    pub fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        self.read_exact_at(offset, out).map_err(FormatError::io(&self.path, "read"))
    }
}

impl ReadAt for SourceFile {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_exact_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        read_exact_at(&self.file, offset, out)
    }
}

/// An output while it is being written: positioned writes into a file of known size.
#[derive(Debug)]
pub struct PartFile {
    file: File,
    path: PathBuf,
    size: u64,
}

impl PartFile {
    /// Creates or empties a file and reserves `size` bytes of disk for it.
    ///
    /// # Errors
    /// [`FormatError::NoSpace`] when the disk has no room (the file is then left empty), [`FormatError::Io`].
    pub fn create(path: impl AsRef<Path>, size: u64) -> Result<Self> {
        let path = path.as_ref();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)
            .map_err(FormatError::io(path, "create"))?;
        let part = Self { file, path: path.into(), size };
        if let Err(e) = reserve(&part.file, size) {
            // Half of a reservation would keep the disk full for everybody.
            part.file.set_len(0).map_err(FormatError::io(path, "empty"))?;
            return Err(part.write_error("reserve space in", e));
        }
        Ok(part)
    }

    /// Opens an existing file of exactly `size` bytes and keeps its content.
    ///
    /// # Errors
    /// [`FormatError::Io`], also when the size differs.
    pub fn reopen(path: impl AsRef<Path>, size: u64) -> Result<Self> {
        let path = path.as_ref();
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(FormatError::io(path, "reopen"))?;
        let found = file.metadata().map_err(FormatError::io(path, "reopen"))?.len();
        if found != size {
            let source = io::Error::new(
                io::ErrorKind::InvalidData,
                format!("found {found} bytes, expected {size}: it belongs to another job; remove it and start afresh"),
            );
            return Err(FormatError::Io { path: path.into(), action: "reopen", source });
        }
        Ok(Self { file, path: path.into(), size })
    }

    /// The path it was opened with.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes reserved.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Writes `data` at `offset`.
    ///
    /// # Errors
    /// [`FormatError::NoSpace`] or [`FormatError::Io`]; a range beyond the reserved size is refused.
    pub fn write_at(&self, offset: u64, data: &[u8]) -> Result<()> {
        if offset.checked_add(data.len() as u64).is_none_or(|end| end > self.size) {
            let source = io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{} bytes at {offset} would pass the planned end at {}", data.len(), self.size),
            );
            return Err(FormatError::Io { path: self.path.clone(), action: "write", source });
        }
        write_all_at(&self.file, offset, data).map_err(|e| self.write_error("write", e))
    }

    /// CRC-32 of a range, read back from the file.
    ///
    /// # Errors
    /// [`FormatError::Io`].
    pub fn checksum(&self, offset: u64, nbytes: u64) -> Result<u32> {
        let mut crc = crc32fast::Hasher::new();
        let mut buf = vec![0; nbytes.min(CHECKSUM_CHUNK_BYTES) as usize];
        let mut done = 0;
        while done < nbytes {
            let chunk = &mut buf[..(nbytes - done).min(CHECKSUM_CHUNK_BYTES) as usize];
            // An offset past u64 cannot be within any file: the largest one gives the same end-of-file error.
            read_exact_at(&self.file, offset.saturating_add(done), chunk)
                .map_err(FormatError::io(&self.path, "read"))?;
            crc.update(chunk);
            done += chunk.len() as u64;
        }
        Ok(crc.finalize())
    }

    /// Asks the system to begin writing a finished range to disk, without waiting. A hint: failures do not matter.
    pub fn start_writeback(&self, offset: u64, nbytes: u64) {
        start_writeback(&self.file, offset, nbytes);
    }

    /// Waits until everything is on disk.
    ///
    /// # Errors
    /// [`FormatError::NoSpace`] (some file systems find out only now) or [`FormatError::Io`].
    pub fn sync(&self) -> Result<()> {
        self.file.sync_all().map_err(|e| self.write_error("sync", e))
    }

    fn write_error(&self, action: &'static str, source: io::Error) -> FormatError {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                FormatError::NoSpace { path: self.path.clone(), needed: self.size }
            }
            _ => FormatError::Io { path: self.path.clone(), action, source },
        }
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, offset: u64, out: &mut [u8]) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, out, offset)
}

#[cfg(unix)]
fn write_all_at(file: &File, offset: u64, data: &[u8]) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, data, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut offset: u64, mut out: &mut [u8]) -> io::Result<()> {
    while !out.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, out, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                out = &mut out[n..];
                offset += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(windows)]
fn write_all_at(file: &File, mut offset: u64, mut data: &[u8]) -> io::Result<()> {
    while !data.is_empty() {
        match std::os::windows::fs::FileExt::seek_write(file, data, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                data = &data[n..];
                offset += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Gives the file its size and, where the system can, the disk blocks for it.
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "fallocate has no safe face in the standard library")]
fn reserve(file: &File, size: u64) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    let length = libc::off64_t::try_from(size).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    if length == 0 {
        return Ok(());
    }
    loop {
        // SAFETY: the descriptor belongs to `file`, which outlives the call; no memory is passed.
        if unsafe { libc::fallocate64(file.as_raw_fd(), 0, 0, length) } == 0 {
            return Ok(());
        }
        let e = io::Error::last_os_error();
        match e.raw_os_error() {
            Some(libc::EINTR) => {}
            // A file system without reservations (NFS, FUSE, ZFS): the size alone must do.
            Some(libc::EOPNOTSUPP | libc::ENOSYS) => return file.set_len(size),
            _ => return Err(e),
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn reserve(file: &File, size: u64) -> io::Result<()> {
    file.set_len(size)
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "sync_file_range has no safe face in the standard library")]
fn start_writeback(file: &File, offset: u64, nbytes: u64) {
    use std::os::fd::AsRawFd;

    let (Ok(offset), Ok(nbytes)) = (libc::off64_t::try_from(offset), libc::off64_t::try_from(nbytes)) else {
        return;
    };
    // SAFETY: the descriptor belongs to `file`, which outlives the call; no memory is passed.
    unsafe { libc::sync_file_range(file.as_raw_fd(), offset, nbytes, libc::SYNC_FILE_RANGE_WRITE) };
}

#[cfg(not(target_os = "linux"))]
fn start_writeback(_file: &File, _offset: u64, _nbytes: u64) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_file_holds_what_was_written_out_of_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let part = PartFile::create(&path, 6).unwrap();
        part.write_at(3, b"def").unwrap();
        part.write_at(0, b"abc").unwrap();
        part.start_writeback(0, 6);
        part.sync().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"abcdef");
        assert_eq!(part.checksum(0, 6).unwrap(), crc32fast::hash(b"abcdef"));
        assert_eq!(part.checksum(2, 2).unwrap(), crc32fast::hash(b"cd"));
        assert!(matches!(part.checksum(2, 5), Err(FormatError::Io { action: "read", .. })));
        assert!(matches!(part.checksum(u64::MAX - 1, 5), Err(FormatError::Io { .. })));
    }

    #[test]
    fn part_file_refuses_a_write_past_its_planned_end() {
        let dir = tempfile::tempdir().unwrap();
        let part = PartFile::create(dir.path().join("out"), 6).unwrap();
        for offset in [4, u64::MAX] {
            let message = part.write_at(offset, b"abc").unwrap_err().to_string();
            assert!(message.contains("would pass the planned end at 6"), "{message}");
        }
        assert_eq!(std::fs::metadata(part.path()).unwrap().len(), part.size());
    }

    #[test]
    fn reopening_keeps_the_content_and_refuses_another_size() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        PartFile::create(&path, 3).unwrap().write_at(0, b"abc").unwrap();
        PartFile::reopen(&path, 3).unwrap().write_at(1, b"x").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"axc");
        let message = PartFile::reopen(&path, 4).unwrap_err().to_string();
        assert!(message.contains("found 3 bytes, expected 4"), "{message}");
        assert!(matches!(PartFile::reopen(dir.path().join("none"), 3), Err(FormatError::Io { action: "reopen", .. })));
    }

    #[test]
    fn reserving_more_than_the_disk_has_is_an_error_that_leaves_the_file_empty() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        // Larger than any disk; file systems say either "no space" or "file too large".
        let message = PartFile::create(&path, i64::MAX as u64).unwrap_err().to_string();
        assert!(message.contains("out: "), "{message}");
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
    }

    #[test]
    fn full_disk_error_says_how_much_is_needed() {
        let dir = tempfile::tempdir().unwrap();
        let part = PartFile::create(dir.path().join("out"), 77).unwrap();
        let message = part.write_error("write", io::ErrorKind::StorageFull.into()).to_string();
        assert!(message.contains("no room for the 77 bytes"), "{message}");
    }

    #[test]
    fn source_file_reads_ranges_and_refuses_the_end_and_folders() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("in");
        std::fs::write(&path, b"abcdef").unwrap();
        let source = SourceFile::open(&path).unwrap();
        let mut out = [0; 3];
        source.read_at(2, &mut out).unwrap();
        assert_eq!((&out, source.size(), source.path()), (b"cde", 6, path.as_path()));
        assert!(matches!(source.read_at(4, &mut out), Err(FormatError::Io { action: "read", .. })));
        let message = SourceFile::open(dir.path()).unwrap_err().to_string();
        assert!(message.contains("not a regular file"), "{message}");
    }
}
