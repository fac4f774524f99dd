"""Products of a packed 5632 x 2048 matrix: the columns of a prompt and a single one, against NumPy's float32 product.

NumPy's BLAS has the weights in float32 already; the packed product reads an eighth of the bytes and multiplies in int8.
"""

import numpy as np
import pytest

import quantrs as qr

ROWS, COLS = 5632, 2048


@pytest.fixture(scope="module")
def w() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((ROWS, COLS), np.float32)


@pytest.mark.parametrize("name", ["q4_0", "q4_1", "q8_0", "q4_k", "q6_k", "q2_k", "iq4_xs", "f16"])
@pytest.mark.parametrize("n", [512, 1])
def bench_matmul(versus, w: np.ndarray, name: str, n: int) -> None:
    q, x = qr.quantize(w, name), np.random.default_rng(1).standard_normal((n, COLS), np.float32)
    wanted = 0.8 if name == "f16" else 1.5 if n > 1 else 1.2
    note = f"{ROWS} x {COLS}, {n} columns, float32"
    versus(f"{name} @ x, {n} columns", lambda: q @ x.T, "NumPy", lambda: w @ x.T, wanted=wanted, rounds=9, note=note)


def bench_matmul_i8(versus) -> None:
    rng = np.random.default_rng(2)
    a, b = rng.integers(-128, 128, (512, COLS), np.int8), rng.integers(-128, 128, (ROWS, COLS), np.int8)
    fa, fb = a.astype(np.float32), b.astype(np.float32)
    versus("matmul_i8", lambda: qr.matmul_i8(a, b), "NumPy", lambda: fa @ fb.T, wanted=1.5, note=f"512 x {COLS} x {ROWS}, float32")
