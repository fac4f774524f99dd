"""Codes of a few bits in 32-bit words."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantrs import _native
from quantrs.errors import InputError


def words_bit_by_bit(codes, bits):
    """The stream as described: bit k of code i is bit ``i * bits + k`` of its row."""
    n_rows, n_cols = codes.shape
    stream = (codes[:, :, None] >> np.arange(bits, dtype=np.uint8) & 1).reshape(n_rows, n_cols * bits)
    padded = np.pad(stream, ((0, 0), (0, -stream.shape[1] % 32)))
    return np.packbits(padded, axis=1, bitorder="little").view("<i4")


@settings(deadline=None)
@given(st.integers(2, 8), st.integers(1, 5), st.integers(1, 150), st.integers(0, 2**32 - 1), st.integers(1, 3))
def test_words_are_a_little_endian_stream_and_come_back(bits, n_rows, n_cols, seed, threads):
    codes = np.random.default_rng(seed).integers(0, 1 << bits, (n_rows, n_cols), dtype=np.uint8)
    words = _native.pack_codes(codes, bits, threads=threads)
    assert words.dtype == np.int32
    assert np.array_equal(words, words_bit_by_bit(codes, bits))
    assert np.array_equal(_native.unpack_codes(words, bits, n_cols, threads=threads), codes)


def test_no_rows_and_no_columns_are_nothing_to_pack():
    assert _native.pack_codes(np.zeros((0, 64), np.uint8), 4).shape == (0, 8)
    assert _native.pack_codes(np.zeros((3, 0), np.uint8), 4).shape == (3, 0)
    assert _native.unpack_codes(np.zeros((3, 0), np.int32), 4, 0).shape == (3, 0)


@pytest.mark.parametrize("bits", [0, 1, 9, 64])
def test_other_widths_are_refused(bits):
    with pytest.raises(InputError, match=f"bits is {bits}; expected 2 to 8"):
        _native.pack_codes(np.zeros((1, 32), np.uint8), bits)
    with pytest.raises(InputError, match=f"bits is {bits}; expected 2 to 8"):
        _native.unpack_codes(np.zeros((1, 32), np.int32), bits, 32)


def test_a_code_that_does_not_fit_is_named():
    codes = np.zeros((3, 40), np.uint8)
    codes[1, 33] = 16
    with pytest.raises(InputError, match=r"codes: row 1, column 33 is 16, expected at most 15 \(4 bits\)"):
        _native.pack_codes(codes, 4)


@pytest.mark.parametrize("n_cols", [24, 33, 2**60, 2**63])
def test_columns_that_do_not_take_the_words_are_refused(n_cols):
    with pytest.raises(InputError):
        _native.unpack_codes(np.zeros((2, 4), np.int32), 4, n_cols)


def test_transposed_arrays_are_refused_not_copied():
    with pytest.raises(InputError, match="not C-contiguous"):
        _native.pack_codes(np.zeros((64, 32), np.uint8).T, 4)
