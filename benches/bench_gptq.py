"""GPTQ and the Hessian, against the plain algorithm in torch: its matrix product, and its loop over columns.

The reference code computes the whole product ``X^T X`` and factors, inverts and factors the Hessian. Our factor is made anew in every
round (a damping that differs in the last digits), as for a layer that shares its input with no other.
"""

import itertools
from typing import Any

import numpy as np
import pytest

import quantrs as qr

torch = pytest.importorskip("torch", reason="the peer of these comparisons")
GROUP = 128


@pytest.fixture(autouse=True, scope="module")
def all_threads() -> None:
    from quantrs import _native

    torch.set_num_threads(_native.default_threads())


def inputs(n: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.standard_normal((8192, n), np.float32) * (1 + 4 * rng.random(n, np.float32))


def plain_gptq(w: np.ndarray, matrix: np.ndarray) -> Any:
    """The algorithm as published, symmetric, 4 bits, blocks of a group."""
    weights, h = torch.from_numpy(w.copy()), torch.from_numpy(matrix.copy())
    h.diagonal().add_(0.01 * h.diagonal().mean())
    u = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(h)), upper=True)
    for first in range(0, w.shape[1], GROUP):
        block, errors = weights[:, first : first + GROUP].clone(), torch.zeros(len(w), GROUP)
        u_block = u[first : first + GROUP, first : first + GROUP]
        scale = block.abs().amax(1).clamp_min(1e-8) * (2 / 15)
        for j in range(GROUP):
            value = scale * torch.clamp(torch.round(block[:, j] / scale), -8, 7)
            errors[:, j] = (block[:, j] - value) / u_block[j, j]
            block[:, j:] -= errors[:, j, None] * u_block[j, j:][None]
        weights[:, first + GROUP :] -= errors @ u[first : first + GROUP, first + GROUP :]
    return weights


@pytest.mark.parametrize("shape", [(2048, 2048), (4096, 1024)], ids=str)
def bench_gptq(versus, shape: tuple[int, int]) -> None:
    w = np.random.default_rng(1).standard_normal(shape, np.float32) * 0.02
    h = qr.Hessian(shape[1])
    h.add(inputs(shape[1]))
    matrix, damping = h.matrix, (0.01 + 1e-5 * i for i in itertools.count())
    note = f"{shape[0]} x {shape[1]}, 4 bits, groups of {GROUP}"
    versus("gptq", lambda: qr.gptq(w, h, damp_percent=next(damping)), "torch", lambda: plain_gptq(w, matrix), wanted=5, rounds=3, note=note)


def bench_hessian(versus) -> None:
    x = inputs(2048)
    of_torch = torch.from_numpy(x)

    def ours() -> object:
        h = qr.Hessian(2048)
        h.add(x)
        return h.matrix

    theirs = lambda: (of_torch.T @ of_torch) * (2 / len(x))  # noqa: E731
    versus("Hessian", ours, "torch", theirs, wanted=1.5, note="8192 tokens of 2048 inputs, float32")
