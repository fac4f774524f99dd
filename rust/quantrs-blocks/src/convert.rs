//! Rows of bytes from one format to another, through float32, in parallel.

use crate::error::BlockError;
use crate::format::BlockFormat;

/// placeholder
pub struct Converter { pub(crate) f: &'static BlockFormat }
/// placeholder
pub struct RowErrors { pub(crate) e: BlockError }
