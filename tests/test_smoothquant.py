"""SmoothQuant's scales, and what follows from them, against Neural Compressor's."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

import quantrs as qr
from conftest import GOLDEN
from quantrs.calibration.channel_statistics import ChannelStatistics
from quantrs.calibration.folding import fold_into_norm, scale_columns
from quantrs.errors import InputError

ALPHAS = (0.0, 0.3, 0.5, 0.8, 1.0)
LAYERS = {"q": ("q", "k"), "k": ("q", "k"), "o": ("o",)}
"""Each with those that share its input."""


@cache
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "inc" / "smoothquant.npz") as arrays:
        return {name: arrays[name] for name in arrays.files}


def weight(name: str) -> np.ndarray:
    return golden()[f"w.{name}.weight"]


def scales(layer: str, alpha: float) -> np.ndarray:
    z = golden()
    x_max = np.maximum(np.abs(z[f"in_min.{layer}"]), np.abs(z[f"in_max.{layer}"]))
    return qr.smooth_scales(x_max, [weight(name) for name in LAYERS[layer]], alpha=alpha)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("layer", LAYERS)
def test_scales_and_the_ranges_after_them_are_those_of_neural_compressor(layer: str, alpha: float) -> None:
    z, s = golden(), scales(layer, alpha)
    for key in (f"a{alpha}.mul.s.{layer}", f"a{alpha}.fold.s.{layer}"):
        if key in z:
            np.testing.assert_allclose(s, z[key], rtol=1e-6)
    # Its activations: unsigned bytes over a range that holds 0. Its weights: a row's largest magnitude over 127.5.
    lo, hi = min(0.0, (z[f"in_min.{layer}"] / s).min()), max(0.0, (z[f"in_max.{layer}"] / s).max())
    np.testing.assert_allclose(z[f"a{alpha}.mul.x_scale.{layer}"], (hi - lo) / 255, rtol=1e-5)
    assert z[f"a{alpha}.mul.x_zp.{layer}"] == round(-lo / ((hi - lo) / 255))
    np.testing.assert_allclose(z[f"a{alpha}.mul.w_scale.{layer}"], np.abs(scale_columns(weight(layer), s)).max(axis=1) / 127.5, rtol=1e-5)


def test_folded_weights_are_those_of_neural_compressor_and_leave_the_output_as_it_was() -> None:
    z, s = golden(), scales("q", 0.5)
    norm, _ = fold_into_norm(weight("norm"), None, s)
    q, k = scale_columns(weight("q"), s), scale_columns(weight("k"), s)
    for name, found in {"norm": norm, "q": q, "k": k, "o": weight("o")}.items():
        np.testing.assert_allclose(found, z[f"a0.5.fold.w.{name}.weight"], rtol=1e-6)
    np.testing.assert_allclose(q, z["a0.5.mul.w.q"], rtol=1e-6)
    row_scale = z["a0.5.mul.w_scale.q"][:, np.newaxis]
    off = np.abs(np.clip(np.rint(q / row_scale), -128, 127) - z["a0.5.mul.w_qdq.q"] / row_scale)
    assert off.max() < 1.001
    halves = np.abs(np.abs(q / row_scale) - 127.5) < 1e-4  # a row's largest lies between two codes, and float noise decides
    assert off[~halves].max() < 1e-4

    def output(norm: np.ndarray, q: np.ndarray, k: np.ndarray) -> np.ndarray:
        x = z["x"]
        h = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-6) * norm
        return (h @ k.T) @ weight("o").T + (h @ q.T).sum()

    want = output(weight("norm"), weight("q"), weight("k"))
    assert np.abs(output(norm, q, k) - want).max() < 1e-5 * np.abs(want).max()
    np.testing.assert_allclose(want[:, :2], z["y"], atol=1e-6 * np.abs(want).max())


def test_statistics_of_the_input_are_all_that_is_needed() -> None:
    x = np.random.default_rng(0).standard_normal((100, 8), np.float32)
    seen = ChannelStatistics(8)
    seen.add(x)
    w = np.random.default_rng(1).standard_normal((1000, 8), np.float32)
    want = np.sqrt(np.abs(x).max(axis=0) / np.abs(w).max(axis=0))
    for threads in (1, 3):
        np.testing.assert_allclose(qr.smooth_scales(seen.max, [w[:900], w[900:]], threads=threads), want, rtol=1e-6)


@pytest.mark.parametrize(
    ("x_max", "weights", "alpha", "message"),
    [
        ([1.0, 2.0], [np.ones((2, 2))], 1.5, "alpha: found 1.5, expected 0 to 1"),
        ([1.0, -2.0], [np.ones((2, 2))], 0.5, "x_max: found -2 in channel 1"),
        ([1.0, np.nan], [np.ones((2, 2))], 0.5, "x_max: found NaN in channel 1"),
        ([1.0, 2.0], [], 0.5, "weights: found none"),
        ([1.0, 2.0], [np.ones((2, 3))], 0.5, r"weights: 0 has the shape \[2, 3\], expected 2 columns"),
        ([1.0, 2.0], [np.array([[1.0, np.inf]])], 0.5, "weights: found inf in row 0, column 1"),
    ],
)
def test_what_does_not_fit_is_refused(x_max: list[float], weights: list[np.ndarray], alpha: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        qr.smooth_scales(x_max, weights, alpha=alpha)


def test_the_best_alpha_depends_on_the_outliers_of_the_input() -> None:
    rng = np.random.default_rng(2)
    x, w = rng.standard_normal((200, 256), np.float32), rng.standard_normal((64, 256), np.float32)
    x[:, ::50] *= 40
    found = qr.smooth_search(x, [w[:40], w[40:]])
    s = found.scales
    assert np.array_equal(s, qr.smooth_scales(np.abs(x).max(axis=0), [w], alpha=found.alpha))
    assert 0 < found.alpha < 1
    assert found.losses.min() < 0.5 * found.losses[0]

    def rounded(rows: np.ndarray) -> np.ndarray:
        scale = np.abs(rows).max(axis=1, keepdims=True) / 127
        return np.rint(rows / scale) * scale

    want = np.square(rounded(x / s) @ rounded(w * s).T - x @ w.T).mean()
    assert found.losses.min() == pytest.approx(float(want), rel=1e-3)
    one, three = (qr.smooth_search(x, [w], threads=threads) for threads in (1, 3))
    assert np.array_equal(one.losses, three.losses)


def test_nothing_to_search_is_refused() -> None:
    x, w = np.ones((3, 2), np.float32), np.ones((2, 2), np.float32)
    with pytest.raises(InputError, match="alphas: found none"):
        qr.smooth_search(x, [w], alphas=())
    with pytest.raises(InputError, match=r"x: found the shape \(0, 2\)"):
        qr.smooth_search(x[:0], [w])
    found = qr.smooth_search(0 * x, [w])
    assert found.losses.tolist() == [0.0] * 11
