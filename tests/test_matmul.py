"""Products of packed arrays, and of int8 matrices."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import matmul_golden
import quantrs as qr
from conftest import GOLDEN, Ran

FILE = GOLDEN / "ggml" / "dot.npz"


@pytest.fixture(scope="module")
def q() -> qr.QuantizedArray:
    return qr.quantize(np.random.default_rng(1).standard_normal((3, 5, 64), np.float32), "q8_0")


@pytest.mark.parametrize("name", matmul_golden.types(FILE))
def test_products_are_as_close_as_those_of_ggml(name: str) -> None:
    assert not list(matmul_golden.differences(FILE, name))


def test_products_are_as_close_as_those_of_ggml_at_level(level: str, python: Callable[..., Ran]) -> None:
    done = python(Path(matmul_golden.__file__), FILE, "2", env={"QUANTRS_LEVEL": level})
    assert done.code == 0, done.err
    assert not done.out, done.out


def test_leading_axes_stay_and_vectors_lose_their_column(q: qr.QuantizedArray) -> None:
    x = np.linspace(-1, 1, 64 * 7, dtype=np.float32).reshape(64, 7)
    want = q.dequantize() @ x
    assert np.allclose(q.matmul(x, exact=True), want, atol=1e-4)
    assert np.allclose(q @ x, want, atol=0.1)
    assert (q @ x[:, 0]).shape == (3, 5)
    assert (q[0, 0] @ x).shape == (7,)
    assert (q[0, 0] @ x[:, 0]).shape == ()
    assert (q[:0] @ x).shape == (0, 5, 7)
    assert (q @ x[:, :0]).shape == (3, 5, 0)


def test_any_strides_and_float_types_are_taken(q: qr.QuantizedArray) -> None:
    x = np.random.default_rng(2).standard_normal((64, 6), np.float32).astype(np.float16)
    want = q.matmul(x.astype(np.float32))
    assert np.array_equal(q @ x, want)
    assert np.array_equal(q @ x.astype(np.float64), want)
    assert np.array_equal(q @ np.asfortranarray(x), want)
    assert np.allclose(q[:, ::2] @ x[:, ::2], want[:, ::2, ::2], atol=1e-4)


def test_the_number_of_threads_changes_no_bit(q: qr.QuantizedArray) -> None:
    w = qr.quantize(np.random.default_rng(3).standard_normal((130, 512), np.float32), "q4_k")
    for columns in (1, 3, 40):
        x = np.random.default_rng(4).standard_normal((512, columns), np.float32)
        for exact in (False, True):
            assert len({w.matmul(x, exact=exact, threads=n).tobytes() for n in (1, 2, 3, 7)}) == 1


def test_values_that_are_not_finite_spoil_their_column_alone(q: qr.QuantizedArray) -> None:
    x = np.ones((64, 6), np.float32)
    x[3, 2] = np.nan
    x[9, 4] = np.inf
    bad = ~np.isfinite(q @ x)
    assert bad[..., [2, 4]].all()
    assert not bad[..., [0, 1, 3, 5]].any()


@pytest.mark.parametrize("shape", [(), (63,), (63, 2), (64, 2, 2)])
def test_shapes_that_do_not_fit_are_refused(q: qr.QuantizedArray, shape: tuple[int, ...]) -> None:
    with pytest.raises(qr.InputError, match=r"expected \(64,\) or \(64, n\)"):
        q.matmul(np.zeros(shape, np.float32))


def test_integers_and_types_without_values_are_refused(q: qr.QuantizedArray) -> None:
    with pytest.raises(TypeError, match="int64"):
        q @ np.ones(64, np.int64)
    with pytest.raises(qr.InputError, match="threads"):
        q.matmul(np.ones(64, np.float32), threads=0)


@pytest.mark.parametrize(("m", "k", "n"), [(1, 1, 1), (3, 33, 5), (17, 1024, 9), (64, 4097, 31), (2, 0, 3), (0, 4, 3)])
def test_int8_products_are_exact(m: int, k: int, n: int) -> None:
    rng = np.random.default_rng(5)
    a, b = rng.integers(-128, 128, (m, k), np.int8), rng.integers(-128, 128, (n, k), np.int8)
    a[:1], b[:1] = -128, -128
    assert np.array_equal(qr.matmul_i8(a, b), a.astype(np.int32) @ b.T.astype(np.int32))
    assert np.array_equal(qr.matmul_i8(np.asfortranarray(a), b, threads=2), a.astype(np.int32) @ b.T.astype(np.int32))


def test_int8_products_refuse_other_types_and_shapes() -> None:
    a = np.zeros((2, 3), np.int8)
    with pytest.raises(TypeError, match="uint8"):
        qr.matmul_i8(a, a.astype(np.uint8))
    for b in (np.zeros((2, 4), np.int8), np.zeros(3, np.int8)):
        with pytest.raises(qr.InputError, match="shapes"):
            qr.matmul_i8(a, b)


@pytest.mark.slow
def test_a_busy_process_on_every_cpu_leaves_products_a_quarter_of_their_speed() -> None:
    q = qr.quantize(np.random.default_rng(6).standard_normal((512, 512), np.float32), "q4_0")
    x = np.random.default_rng(7).standard_normal(512).astype(np.float32)

    def products_per_second() -> float:
        count, start = 0, time.perf_counter()
        while time.perf_counter() < start + 1.5:
            q @ x
            count += 1
        return count / 1.5

    quiet = products_per_second()
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        busy = max(products_per_second() for _ in range(2))
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()
    assert busy >= 0.25 * quiet, f"{busy:.0f} of {quiet:.0f} products a second"
