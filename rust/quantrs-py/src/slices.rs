//! Arrays as slices of their values in row-major order.

use crate::error::Error;
use numpy::ndarray::Dimension;
use numpy::{Element, PyReadonlyArray, PyReadwriteArray, PyUntypedArrayMethods};

fn not_contiguous(what: &str) -> Error {
    Error::Input(format!("{what}: the array is not C-contiguous and aligned; pass numpy.ascontiguousarray of it"))
}

/// The values of an array. Its own `as_slice` will not do: it takes arrays in column-major order for contiguous, too.
pub(crate) fn contiguous<'a, T: Element, D: Dimension>(
    what: &str,
    array: &'a PyReadonlyArray<'_, T, D>,
) -> Result<&'a [T], Error> {
    let slice = array.as_slice().ok().filter(|_| array.is_c_contiguous());
    slice.ok_or_else(|| not_contiguous(what))
}

/// Likewise, to be written to.
pub(crate) fn contiguous_mut<'a, T: Element, D: Dimension>(
    what: &str,
    array: &'a mut PyReadwriteArray<'_, T, D>,
) -> Result<&'a mut [T], Error> {
    if !array.is_c_contiguous() {
        return Err(not_contiguous(what));
    }
    array.as_slice_mut().map_err(|_| not_contiguous(what))
}
