"""The NumPy interface: dtypes, shapes, slices, errors. The bytes themselves are compared in test_golden_ggml.py."""

from __future__ import annotations

import copy
import math
import pickle
import subprocess
import sys
import warnings

import ml_dtypes
import numpy as np
import pytest

import quantrs as qr


@pytest.fixture
def w() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((3, 5, 512), np.float32)


def test_every_type_has_consistent_sizes_and_round_trips_its_own_grid() -> None:
    rng = np.random.default_rng(0)
    for t in qr.types():
        assert t.name == t.name.lower()
        assert t.bits_per_weight == t.type_size * 8 / t.block_size
        if t.can_quantize and t.can_dequantize:
            x = rng.standard_normal((2, 2 * t.block_size), np.float32)
            importance = np.ones(x.shape[-1]) if t.importance == "required" else None
            q = qr.quantize(x, t.name, importance=importance)
            assert q.nbytes == 4 * t.type_size, t.name
            assert q.bits_per_weight == t.bits_per_weight
            assert q.dequantize().shape == x.shape


@pytest.mark.parametrize("name", ["q4_k", "Q4_K", "q4_K"])
def test_type_names_are_taken_in_any_letter_case_and_given_in_lower_case(name: str, w: np.ndarray) -> None:
    assert qr.quantize(w, name).type == "q4_k"


def test_leading_axes_stay_and_the_last_axis_becomes_row_bytes(w: np.ndarray) -> None:
    q = qr.quantize(w, "q4_k")
    assert q.shape == (3, 5, 512)
    assert q.data.shape == (3, 5, 288)
    assert q.data.dtype == np.uint8
    assert (q.ndim, q.size, q.nbytes, len(q)) == (3, 7680, 15 * 288, 3)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_narrow_floats_give_the_bytes_of_the_same_values_in_float32(dtype: type, w: np.ndarray) -> None:
    narrow = w.astype(dtype)
    assert np.array_equal(qr.quantize(narrow, "q8_0").data, qr.quantize(narrow.astype(np.float32), "q8_0").data)


def test_float64_is_rounded_to_float32_first(w: np.ndarray) -> None:
    wide = w.astype(np.float64) * (1 + 1e-12)
    assert np.array_equal(qr.quantize(wide, "q6_k").data, qr.quantize(wide.astype(np.float32), "q6_k").data)


def test_strides_and_byte_order_do_not_change_the_bytes(w: np.ndarray) -> None:
    want = qr.quantize(w, "q4_k").data
    for same in (np.asfortranarray(w), w[::-1][::-1], w.astype(">f4")):
        assert np.array_equal(qr.quantize(same, "q4_k").data, want)
    assert np.array_equal(qr.quantize(w[:, ::2], "q4_k").data, qr.quantize(w[:, ::2].copy(), "q4_k").data)


def test_the_bytes_do_not_depend_on_the_thread_count(w: np.ndarray) -> None:
    assert len({qr.quantize(w, "q3_k", threads=n).data.tobytes() for n in (1, 2, 3, 7)}) == 1


@pytest.mark.parametrize("threads", [0, -1])
def test_a_thread_count_below_one_is_refused(threads: int, w: np.ndarray) -> None:
    with pytest.raises(ValueError, match="threads"):
        qr.quantize(w, "q8_0", threads=threads)


@pytest.mark.parametrize(
    ("dtype", "out_dtype"),
    [(None, np.float32), (np.float16, np.float16), ("bfloat16", ml_dtypes.bfloat16), (np.float64, np.float64)],
)
def test_dequantize_gives_the_dtype_that_is_asked_for(dtype: object, out_dtype: type, w: np.ndarray) -> None:
    q = qr.quantize(w, "q8_0")
    values = q.dequantize(dtype)  # type: ignore[arg-type]
    assert values.dtype == out_dtype
    assert np.array_equal(values, q.dequantize().astype(out_dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.float64])
def test_dequantize_fills_out(dtype: type, w: np.ndarray) -> None:
    q = qr.quantize(w, "q5_0")
    out = np.zeros(w.shape, dtype)
    assert q.dequantize(out=out) is out
    assert np.array_equal(out, q.dequantize(dtype))


def test_dequantize_refuses_an_out_that_does_not_fit(w: np.ndarray) -> None:
    q = qr.quantize(w, "q5_0")
    frozen = np.zeros(w.shape, np.float32)
    frozen.setflags(write=False)
    for out in (np.zeros((3, 5, 511), np.float32), np.zeros(w.shape, np.float32, order="F"), frozen):
        with pytest.raises(ValueError, match="out"):
            q.dequantize(out=out)
    with pytest.raises(ValueError, match="float16"):
        q.dequantize(np.float16, out=np.zeros(w.shape, np.float32))
    with pytest.raises(TypeError, match="int32"):
        q.dequantize(out=np.zeros(w.shape, np.int32))


@pytest.mark.parametrize("bad", [np.int32, np.int8, np.bool_, np.complex64, object, "U4", ml_dtypes.float8_e4m3fn])
def test_values_that_are_not_plain_floats_are_a_type_error(bad: object) -> None:
    with pytest.raises(TypeError, match="expected float32"):
        qr.quantize(np.zeros((2, 256), bad), "q4_k")  # type: ignore[call-overload]


def test_a_row_that_is_no_multiple_of_the_block_names_both_numbers(w: np.ndarray) -> None:
    with pytest.raises(qr.InputError, match=r"100 values.*256"):
        qr.quantize(w[..., :100], "q4_k")


def test_a_single_number_is_refused() -> None:
    with pytest.raises(ValueError, match="single number"):
        qr.quantize(np.float32(1), "q4_k")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_non_finite_value_is_refused_with_row_and_column(value: float, w: np.ndarray) -> None:
    w[2, 3, 300] = value
    with pytest.raises(qr.InputError, match=r"13\b.*300|300.*\b13"):
        qr.quantize(w, "q4_k")


def test_an_unknown_type_is_answered_with_the_known_ones(w: np.ndarray) -> None:
    with pytest.raises(qr.InputError, match="q4_k"):
        qr.quantize(w, "q9_z")
    with pytest.raises(TypeError, match="int"):
        qr.quantize(w, 4)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(0, 256), (4, 0), (0,), (3, 0, 256)])
def test_empty_arrays_go_through(shape: tuple[int, ...]) -> None:
    q = qr.quantize(np.zeros(shape, np.float32), "q4_k")
    assert q.nbytes == 0
    assert q.dequantize().shape == shape
    assert q.error(np.zeros(shape, np.float32)).rmse == 0


def test_slices_share_memory_and_keep_the_last_axis_whole(w: np.ndarray) -> None:
    q = qr.quantize(w, "q4_k")
    values = q.dequantize()
    for key in (1, -1, slice(1, 3), (1, 2), (slice(None), slice(None, None, 2)), [0, 2], np.array([True, False, True]), (0, [1, 4])):
        assert np.array_equal(np.asarray(q[key]), values[key])  # type: ignore[index]
    assert np.shares_memory(q[1:].data, q.data)
    assert [np.array_equal(row, values[i]) for i, row in enumerate(map(np.asarray, q))] == [True] * 3


@pytest.mark.parametrize("key", [(0, 0, 0), Ellipsis, None, 5, (0, np.zeros((2, 2), int))])
def test_indices_into_the_packed_axis_or_out_of_range_are_refused(key: object, w: np.ndarray) -> None:
    with pytest.raises(IndexError):
        qr.quantize(w, "q4_k")[key]  # type: ignore[index]


def test_a_single_row_is_not_iterable(w: np.ndarray) -> None:
    with pytest.raises(TypeError, match="single packed row"):
        iter(qr.quantize(w, "q4_k")[0, 0])


def test_from_bytes_shares_the_buffer_and_gives_the_same_values(w: np.ndarray) -> None:
    q = qr.quantize(w, "q6_k")
    buffer = bytearray(q.data.tobytes())
    back = qr.QuantizedArray.from_bytes(buffer, "Q6_K", w.shape)
    assert np.array_equal(back.dequantize(), q.dequantize())
    assert np.shares_memory(back.data, np.frombuffer(buffer, np.uint8))


@pytest.mark.parametrize(
    ("n_cut", "type_name", "shape"),
    [(1, "q4_k", (3, 5, 512)), (0, "q4_k", (3, 5, 500)), (0, "q9_z", (3, 5, 512)), (0, "q4_k", ()), (0, "q4_k", (-3, -5, 512))],
)
def test_from_bytes_refuses_sizes_that_do_not_fit(n_cut: int, type_name: str, shape: tuple[int, ...], w: np.ndarray) -> None:
    data = qr.quantize(w, "q4_k").data.tobytes()
    with pytest.raises(qr.InputError):
        qr.QuantizedArray.from_bytes(data[: len(data) - n_cut], type_name, shape)


def test_asarray_follows_the_array_protocol(w: np.ndarray) -> None:
    q = qr.quantize(w, "q8_0")
    assert np.asarray(q).dtype == np.float32
    assert np.asarray(q, np.float64).dtype == np.float64
    with pytest.raises(ValueError, match="copy"):
        q.__array__(copy=False)


def test_copies_and_pickles_are_equal_and_deep_copies_are_apart(w: np.ndarray) -> None:
    q = qr.quantize(w, "q4_0")
    deep = copy.deepcopy(q)
    for other in (copy.copy(q), deep, pickle.loads(pickle.dumps(q))):
        assert (other.type, other.shape) == (q.type, q.shape)
        assert np.array_equal(other.data, q.data)
    assert not np.shares_memory(deep.data, q.data)


def test_error_agrees_with_the_definition_in_float64(w: np.ndarray) -> None:
    q = qr.quantize(w, "q4_k")
    error = q.error(w)
    difference = q.dequantize().astype(np.float64) - w
    assert error.rmse == pytest.approx(math.sqrt((difference**2).mean()), rel=1e-9)
    assert error.relative == pytest.approx(math.sqrt((difference**2).sum() / (w.astype(np.float64) ** 2).sum()), rel=1e-9)
    assert error.max == pytest.approx(abs(difference).max(), rel=1e-6)
    assert error.sqnr_db == pytest.approx(-20 * math.log10(error.relative))
    assert q.error(w, threads=1) == q.error(w, threads=3)


def test_error_of_nothing_is_zero_and_infinitely_quiet() -> None:
    zeros = np.zeros((2, 32), np.float32)
    assert qr.quantize(zeros, "q8_0").error(zeros) == qr.ArrayError(rmse=0, relative=0, max=0, sqnr_db=math.inf)


def test_error_refuses_another_shape(w: np.ndarray) -> None:
    with pytest.raises(qr.InputError, match="shape"):
        qr.quantize(w, "q4_k").error(w[0])


def test_importance_changes_the_bytes_of_types_that_use_it_and_only_those(w: np.ndarray) -> None:
    importance = np.linspace(0.01, 100, 512)
    assert not np.array_equal(qr.quantize(w, "q4_k", importance=importance).data, qr.quantize(w, "q4_k").data)
    assert np.array_equal(qr.quantize(w, "q8_0", importance=importance).data, qr.quantize(w, "q8_0").data)


def test_importance_per_slice_equals_quantizing_each_slice_alone(w: np.ndarray) -> None:
    importance = np.random.default_rng(2).random((3, 512), np.float32)
    q = qr.quantize(w, "q4_k", importance=importance)
    for i in range(3):
        assert np.array_equal(q[i].data, qr.quantize(w[i], "q4_k", importance=importance[i]).data)


def test_importance_of_another_shape_or_sign_is_refused(w: np.ndarray) -> None:
    for bad in (np.ones(511), np.ones((5, 512)), np.ones((3, 4, 512)), -np.ones(512), np.full(512, np.nan)):
        with pytest.raises(qr.InputError, match="importance"):
            qr.quantize(w, "q4_k", importance=bad)
    with pytest.raises(TypeError, match="importance"):
        qr.quantize(w, "q4_k", importance=np.ones(512, complex))


def test_clipped_nvfp4_blocks_are_counted_in_a_warning() -> None:
    x = np.ones((2, 64), np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        qr.quantize(x, "nvfp4")
    x[1, 3] = 1e6
    with pytest.warns(qr.QuantrsWarning, match="1 nvfp4 block"):
        qr.quantize(x, "nvfp4")


def test_the_package_is_imported_without_numpy_and_without_the_command_line() -> None:
    code = "import sys, quantrs; print(*{'numpy', 'argparse', 'rich', 'ml_dtypes'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""


def test_every_public_name_is_there_and_documented() -> None:
    for name in qr.__all__:
        assert getattr(qr, name).__doc__, name
    with pytest.raises(AttributeError, match="nonesuch"):
        qr.nonesuch  # noqa: B018
