//! Writing to different places of one slice from several threads.

use std::marker::PhantomData;

/// A slice of which several tasks write different ranges at the same time.
#[derive(Debug)]
pub struct Disjoint<'a, T> {
    start: *mut T,
    len: usize,
    life: PhantomData<&'a mut [T]>,
}

// SAFETY: it stands for `&mut [T]`, handed out in ranges that `range`'s caller keeps apart.
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}
// SAFETY: as `&mut [T]`.
unsafe impl<T: Send> Send for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    /// Take the slice for as long as the tasks run.
    pub fn new(slice: &'a mut [T]) -> Self {
        Disjoint { start: slice.as_mut_ptr(), len: slice.len(), life: PhantomData }
    }

    /// Values in the slice.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The first value. Writing through it is under the conditions of [`range`](Self::range).
    pub(crate) fn as_mut_ptr(&self) -> *mut T {
        self.start
    }

    /// `slice[start..start + len]`. Panics when it lies outside.
    ///
    /// # Safety
    ///
    /// No two ranges that live at the same time overlap.
    #[expect(clippy::mut_from_ref, reason = "the point of the type; the caller keeps ranges apart")]
    #[inline]
    pub unsafe fn range(&self, start: usize, len: usize) -> &mut [T] {
        assert!(start <= self.len && len <= self.len - start, "{start}..+{len} of {}", self.len);
        // SAFETY: inside the slice by the assertion; unshared by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }
}
