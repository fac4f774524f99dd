"""Compare ``q @ x`` with exact products of what ggml packed; shared by the in-process test and the process that runs at one CPU level.

As a program, ``python matmul_golden.py FILE THREADS`` compares every type and prints one line per difference.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import quantrs as qr


def types(file: Path) -> list[str]:
    """Names of the types that have weights in the file."""
    with np.load(file) as golden:
        return sorted(key.removesuffix("/w") for key in golden.files if key.endswith("/w"))


def rms(error: np.ndarray) -> float:
    """Root of the mean of the squares."""
    return float(np.sqrt(np.mean(np.square(error))))


def differences(file: Path, name: str, threads: int | None = None) -> Iterator[str]:
    """Yield a text for every product that is off by more than 1.5 times what int8 activations cost ggml (1e-6 when exact)."""
    with np.load(file) as golden:
        packed, x = golden[f"{name}/w"], golden["x_f32"]
        theirs = golden[f"{name}/dot_f64"][:, : len(x)]
    q = qr.QuantizedArray.from_bytes(packed.tobytes(), name, (len(packed), x.shape[1]))
    w = q.dequantize().astype(np.float64)
    want = w @ x.T.astype(np.float64)
    size = np.abs(w) @ np.abs(x.T.astype(np.float64))
    allowed = 1.5 * rms((theirs - want) / size) + 1e-6
    many = np.tile(x, (5, 1))  # enough columns for the tiles of the matrix product
    for what, found, limit in (
        ("q @ x", q.matmul(x.T, threads=threads), allowed),
        ("q @ vector", np.stack([q.matmul(v, threads=threads) for v in x], 1), allowed),
        ("q @ many", q.matmul(many.T, threads=threads)[:, : len(x)], allowed),
        ("exact", q.matmul(x.T, exact=True, threads=threads), 1e-6),
        ("exact, vector", np.stack([q.matmul(v, exact=True, threads=threads) for v in x], 1), 1e-6),
        ("exact, many", q.matmul(many.T, exact=True, threads=threads)[:, -len(x) :], 1e-6),
    ):
        error = rms((found - want) / size)
        if not error <= limit:
            yield f"{name} {what}: {error:.1e}, allowed {limit:.1e}"


if __name__ == "__main__":
    for type_name in types(Path(sys.argv[1])):
        for text in differences(Path(sys.argv[1]), type_name, int(sys.argv[2])):
            print(text)
