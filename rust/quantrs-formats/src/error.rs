//! The one error type of this crate.

use std::fmt;
use std::path::PathBuf;

/// Where in which file something was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file; `<bytes>` when it was parsed from memory.
    pub path: PathBuf,
    /// Bytes from the start of the file.
    pub offset: u64,
    /// The field that starts there, in words.
    pub field: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: byte {}, {}", self.path.display(), self.offset, self.field)
    }
}

/// What went wrong with a file, or with an edit of a header.
///
/// Every message says where, what was found, what was expected and what to do.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// The operating system refused an operation.
    #[error("{path}: cannot {action}: {source}", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried, as a verb.
        action: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The disk has no room for the output.
    #[error("{path}: the disk has no room for the {needed} bytes of this file; free some or write elsewhere", path = .path.display())]
    NoSpace {
        /// The file that was to be written.
        path: PathBuf,
        /// Its whole size.
        needed: u64,
    },
    /// Another kind of file, or a variant of this kind that is not read.
    #[error("{place}: found {found}, expected {expected}; {advice}")]
    Unsupported {
        /// Where.
        place: Place,
        /// What is there.
        found: String,
        /// What can be read.
        expected: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// The file ends inside a field.
    #[error(
        "{place}: needs {needed} bytes, but the file has only {left} more; it is truncated or damaged: get it again"
    )]
    Truncated {
        /// Where the field starts.
        place: Place,
        /// Bytes that the field needs (`u64::MAX` when even that overflows).
        needed: u64,
        /// Bytes left in the file.
        left: u64,
    },
    /// Larger than anything this reader is willing to hold.
    #[error("{place}: {found} is above the limit of {limit}; no sound file is like this: get it again")]
    Limit {
        /// Where.
        place: Place,
        /// The value in the file.
        found: u64,
        /// The largest value accepted.
        limit: u64,
    },
    /// A key or a name that is not UTF-8.
    #[error(
        "{place}: found the bytes \"{found}\", expected UTF-8; the file is damaged or was written by a faulty tool: get it again"
    )]
    BadText {
        /// Where.
        place: Place,
        /// The bytes, escaped.
        found: String,
    },
    /// A key or a tensor name that occurs twice.
    #[error(
        "{place}: found '{name}' a second time (first at byte {first}), expected unique names; write the file anew without the double"
    )]
    Duplicate {
        /// Where the second one is.
        place: Place,
        /// The key or name.
        name: String,
        /// Offset of the first one.
        first: u64,
    },
    /// A value that the format does not allow.
    #[error(
        "{place}: found {found}, expected {expected}; the file is damaged or was written by a faulty tool: get it again"
    )]
    Invalid {
        /// Where.
        place: Place,
        /// What is there.
        found: String,
        /// What is allowed.
        expected: String,
    },
    /// Tensor data that would end after the file does.
    #[error(
        "{place}: its data ends at byte {end}, but the file has {file_size} bytes; it is truncated or damaged: get it again"
    )]
    OutOfFile {
        /// The tensor's entry.
        place: Place,
        /// Where its data would end (`u64::MAX` when that overflows).
        end: u64,
        /// Bytes in the file.
        file_size: u64,
    },
    /// Two tensors that share bytes.
    #[error(
        "{place}: its data overlaps that of '{other}', expected separate ranges; the file is damaged: get it again"
    )]
    Overlap {
        /// The tensor's entry.
        place: Place,
        /// Name of the other tensor.
        other: String,
    },
    /// Files that do not make up one split model.
    #[error("{path}: found {found}, expected {expected}; {advice}", path = .path.display())]
    Split {
        /// The file at fault.
        path: PathBuf,
        /// What is wrong with it.
        found: String,
        /// What a split model has there.
        expected: String,
        /// What to do.
        advice: String,
    },
    /// A statistic that is not a finite number of at least 0.
    #[error("{place}: value {index} is {found}, expected a finite number >= 0; make the imatrix again")]
    BadStatistic {
        /// Where the values start.
        place: Place,
        /// Position among them.
        index: u64,
        /// The value.
        found: f32,
    },
    /// An edit that would make a header no reader accepts. Nothing was changed.
    #[error("{what}: found {found}, expected {expected}")]
    Edit {
        /// Key or tensor.
        what: String,
        /// What was handed in.
        found: String,
        /// What is allowed.
        expected: String,
    },
}

/// The result of every fallible function here.
pub type Result<T> = std::result::Result<T, FormatError>;

impl FormatError {
    /// For `map_err`: wraps the system's reason with the file and the action.
    pub(crate) fn io(path: impl Into<PathBuf>, action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, action, source }
    }
}

/// Bytes made printable: invalid sequences escaped, at most 64 bytes.
pub(crate) fn preview(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(64)];
    let dots = if shown.len() < bytes.len() { "..." } else { "" };
    format!("{}{dots}", shown.escape_ascii())
}
