"""AWQ's searches against the same written in NumPy with tokens, as AutoAWQ does them."""

import numpy as np
import pytest

import quantrs as qr
from quantrs.calibration.channel_statistics import ChannelStatistics

N_ROWS, N_COLS, N_TOKENS, GROUP = 1024, 1024, 4096, 128


@pytest.fixture(scope="module")
def w() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((N_ROWS, N_COLS), np.float32)


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    rng = np.random.default_rng(1)
    return rng.standard_normal((N_TOKENS, N_COLS), np.float32) * rng.lognormal(0, 1, N_COLS).astype(np.float32)


def fake_quantized(w: np.ndarray) -> np.ndarray:
    groups = w.reshape(-1, GROUP)
    lo, hi = groups.min(axis=1, keepdims=True), groups.max(axis=1, keepdims=True)
    scale = np.maximum(hi - lo, 1e-5) / 15
    zero = np.clip(-np.rint(lo / scale), 0, 15)
    return ((np.clip(np.rint(groups / scale) + zero, 0, 15) - zero) * scale).reshape(w.shape)


def plain_search(w: np.ndarray, x: np.ndarray) -> int:
    x_mean = np.abs(x).mean(axis=0)
    groups = np.abs(w).reshape(-1, GROUP)
    w_mean = (groups / (groups.max(axis=1, keepdims=True) + 1e-6)).reshape(w.shape).mean(axis=0)
    want, losses = x @ w.T, []
    for k in range(20):
        s = np.maximum(x_mean ** (k / 20) / (w_mean ** (1 - k / 20) + 1e-4), 1e-4)
        s /= np.sqrt(s.max() * s.min())
        losses.append(float(np.square(x @ (fake_quantized(w * s) / s).T - want).mean()))
    return int(np.argmin(losses))


def bench_awq_search(versus, w: np.ndarray, x: np.ndarray) -> None:
    assert qr.awq_search([w], x).best_index == plain_search(w, x)
    note = f"{N_ROWS} x {N_COLS}, {N_TOKENS} tokens, 20 ratios"
    versus("awq_search on tokens", lambda: qr.awq_search([w], x), "NumPy", lambda: plain_search(w, x), wanted=5, note=note)


def bench_awq_search_by_hessian(versus, w: np.ndarray, x: np.ndarray) -> None:
    seen, hessian = ChannelStatistics(N_COLS), qr.Hessian(N_COLS)
    seen.add(x)
    hessian.add(x)
    note = f"{N_ROWS} x {N_COLS}, 20 ratios; NumPy with {N_TOKENS} tokens"
    ours = lambda: qr.awq_search([w], hessian, x_mean=seen.mean)  # noqa: E731
    versus("awq_search by Hessian", ours, "NumPy", lambda: plain_search(w, x), wanted=6, note=note)
