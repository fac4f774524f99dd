"""AWQ's searches against AutoAWQ's, and against themselves in other forms."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest

import quantrs as qr
from conftest import GOLDEN, run_python
from quantrs.calibration.channel_statistics import ChannelStatistics
from quantrs.errors import InputError


@dataclass
class Gram:
    """What a Hessian offers."""

    x: np.ndarray

    @property
    def matrix(self) -> np.ndarray:
        x = self.x.astype(np.float64)
        return 2 / len(x) * (x.T @ x)


@cache
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "awq" / "algorithm.npz") as arrays:
        return {name: arrays[name] for name in arrays.files}


CASES = {case["key"]: case for case in json.loads((GOLDEN / "awq" / "index.json").read_text())["algorithm"]}


def names(case: dict[str, object]) -> tuple[str, ...]:
    return ("W",) if case["kind"] == "lin" else ("gate", "up")


def grid_of(case: dict[str, object]) -> dict[str, object]:
    return {name: case[name] for name in ("bits", "group_size", "zero_point")}


def search(key: str, *, gram: bool = False) -> qr.AwqScales:
    case, z = CASES[key], golden()
    x = z["X"].astype(np.float32)
    return qr.awq_search(
        [z[f"{key}.{name}"] for name in names(case)],
        Gram(x) if gram else x,
        duo_scaling=case["duo_scaling"],
        n_grid=case["n_grid"],
        inspect="linear" if case["kind"] == "lin" else "gated",
        x_mean=z[f"{key}.x_mean"] if gram else None,
        **grid_of(case),
    )


@pytest.mark.parametrize(("key", "gram"), [(key, gram) for key in CASES for gram in (False, True) if not (gram and key == "mlp_g128")])
def test_the_same_ratio_wins_as_in_autoawq(key: str, gram: bool) -> None:
    found, z = search(key, gram=gram), golden()
    assert found.best_index == CASES[key]["best_index"]
    assert np.abs(found.losses / z[f"{key}.losses"] - 1).max() < 1e-5  # allowed: 1e-3
    assert np.abs(found.scales / z[f"{key}.scales"] - 1).max() < 1e-5
    assert found.loss == found.losses.min()


@pytest.mark.parametrize("key", CASES)
@pytest.mark.parametrize("gram", [False, True])
def test_weights_are_clipped_where_autoawq_clips_them(key: str, gram: bool) -> None:
    case, z = CASES[key], golden()
    x, s = z["X"].astype(np.float32), z[f"{key}.scales"]
    for name in names(case):
        found = qr.awq_clip(z[f"{key}.{name}"] * s, Gram(x) if gram else x, scales=s, **grid_of(case))
        want = z[f"{key}.{name}.clip_max"]
        assert (np.abs(found - want) <= 1e-5 * want).mean() > 0.999, name


def test_scaled_and_clipped_weights_err_as_little_as_autoawqs() -> None:
    case, z = CASES["lin_g128"], golden()
    w, x = z["lin_g128.W"], z["X"].astype(np.float32)

    def error(w_scaled: np.ndarray, s: np.ndarray) -> float:
        q = qr.quantize_groups(w_scaled, group_size=128, symmetric=False, rule="awq").dequantize()
        want, got = x.astype(np.float64) @ w.T, (x / s).astype(np.float64) @ q.T
        return float(((got - want) ** 2).sum() / (want**2).sum())

    assert error(w, np.ones(512)) == pytest.approx(case["W_rel_err_rtn"], rel=1e-5)
    s = search("lin_g128").scales
    assert error(w * s, s) == pytest.approx(case["W_rel_err_scale"], rel=1e-3)
    s = z["lin_g128.scales"]  # scales that differ by float noise move the threshold of some group, and the error with it
    assert error(qr.clamp_groups(w * s, qr.awq_clip(w * s, x / s)), s) == pytest.approx(case["W_rel_err_scale_clip"], rel=1e-5)


@pytest.mark.parametrize("group_size", [16, 64, -1])
@pytest.mark.parametrize("rule", ["gptq", "minmax", "awq"])
@pytest.mark.parametrize("symmetric", [False, True])
def test_losses_are_those_of_quantize_groups(group_size: int, rule: str, symmetric: bool) -> None:
    rng = np.random.default_rng(1)
    weights = [rng.standard_normal((n, 192), np.float32) for n in (37, 5)]
    x = rng.standard_normal((50, 192), np.float32) * rng.uniform(0.1, 4, 192).astype(np.float32)
    options = {"bits": 3, "group_size": group_size, "rule": rule}
    x_mean = np.abs(x).mean(axis=0)
    found = qr.awq_search(weights, x, zero_point=not symmetric, n_grid=4, x_mean=x_mean, **options)
    s = found.scales
    want = 0.0
    for w in weights:
        d = w - qr.quantize_groups(w * s, symmetric=symmetric, **options).dequantize() / s
        want += float(((x @ d.T).astype(np.float64) ** 2).sum())
    assert found.loss == pytest.approx(want / (50 * 42), rel=1e-4)
    of_gram = qr.awq_search(weights, Gram(x), zero_point=not symmetric, n_grid=4, x_mean=x_mean, **options)
    np.testing.assert_allclose(of_gram.losses, found.losses, rtol=1e-4)


def test_gated_outputs_are_those_of_an_mlp() -> None:
    rng = np.random.default_rng(2)
    gate, up = (rng.standard_normal((20, 64), np.float32) for _ in range(2))
    x = rng.standard_normal((300, 64), np.float32)
    found = qr.awq_search([gate, up], x, bits=4, group_size=32, n_grid=3, inspect="gated", activation="relu")
    s = found.scales

    def inner(gate: np.ndarray, up: np.ndarray) -> np.ndarray:
        return np.maximum(x @ gate.T, 0) * (x @ up.T)

    q = [qr.quantize_groups(w * s, group_size=32, symmetric=False, rule="awq").dequantize() / s for w in (gate, up)]
    assert found.loss == pytest.approx(float(np.square(inner(gate, up) - inner(*q)).mean()), rel=1e-4)


def test_channels_that_share_a_scale_get_the_same_one() -> None:
    rng = np.random.default_rng(3)
    w, x = rng.standard_normal((16, 64), np.float32), rng.standard_normal((80, 64), np.float32) * np.linspace(0.1, 5, 64, dtype=np.float32)
    shared = np.arange(64) % 16
    scales = qr.awq_search([w], x, group_size=32, scale_of=shared).scales
    assert np.array_equal(scales, np.tile(scales[:16], 4))
    assert len(np.unique(scales)) == 16
    alone = qr.awq_search([w], x, group_size=32, scale_of=np.arange(64))
    assert np.array_equal(alone.scales, qr.awq_search([w], x, group_size=32).scales)


def test_channels_without_input_do_no_harm() -> None:
    rng = np.random.default_rng(4)
    w, x = rng.standard_normal((16, 64), np.float32), rng.standard_normal((80, 64), np.float32)
    x[:, 7] = 0
    w[:, 9] = 0
    found = qr.awq_search([w], x, group_size=32)
    assert np.isfinite(found.scales).all()
    assert (found.scales > 0).all()
    nothing = qr.awq_search([np.zeros_like(w)], np.zeros_like(x), group_size=32)
    assert nothing.losses.tolist() == [0.0] * 20
    assert qr.awq_clip(np.zeros_like(w), x, group_size=32).tolist() == [[0.0, 0.0]] * 16


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    rng = np.random.default_rng(5)
    w, x = rng.standard_normal((150, 256), np.float32), rng.standard_normal((700, 256), np.float32)
    for inspect in ("linear", "gated"):
        found = [qr.awq_search([w, w], x, inspect=inspect, threads=threads) for threads in (1, 2, 3)]
        for other in found[1:]:
            assert np.array_equal(other.losses, found[0].losses)
            assert np.array_equal(other.scales, found[0].scales)
    thresholds = [qr.awq_clip(w, x, threads=threads) for threads in (1, 2, 3)]
    assert np.array_equal(thresholds[0], thresholds[1])
    assert np.array_equal(thresholds[0], thresholds[2])


def test_levels_agree(level: str) -> None:
    code = """if True:
        import numpy as np, quantrs as qr
        rng = np.random.default_rng(6)
        w, x = rng.standard_normal((40, 64), np.float32), rng.standard_normal((90, 64), np.float32)
        found = qr.awq_search([w, w + 1], x, group_size=32, n_grid=5, inspect="gated")
        print(found.best_index, *found.losses, *found.scales[:4], *qr.awq_clip(w, x, group_size=32)[:4, 0])
    """
    runs = [run_python("-c", code, env={"QUANTRS_LEVEL": name}) for name in ("scalar", level)]
    assert [run.code for run in runs] == [0, 0], runs[1].err
    first, second = ([float(number) for number in run.out.split()] for run in runs)
    assert second == pytest.approx(first, rel=1e-5)


def test_what_does_not_fit_is_refused() -> None:
    w, x = np.ones((4, 64), np.float32), np.ones((3, 64), np.float32)
    bad = x.copy()
    bad[1, 2] = np.nan
    for message, call in {
        "weights: found none": lambda: qr.awq_search([], x, group_size=32),
        "group_size: found 48, expected a divisor of in_features 64": lambda: qr.awq_search([w], x, group_size=48),
        "bits: found 9": lambda: qr.awq_search([w], x, group_size=32, bits=9),
        "max_shrink: found 2.0": lambda: qr.awq_clip(w, x, group_size=32, max_shrink=2.0),
        "n_grid: found 0": lambda: qr.awq_search([w], x, group_size=32, n_grid=0),
        "rule: found": lambda: qr.awq_search([w], x, group_size=32, rule="best"),
        r"weights: 1 has the shape \[4, 32\], expected 64 columns": lambda: qr.awq_search([w, w[:, :32]], x, group_size=32),
        "x: found nan in row 1, column 2": lambda: qr.awq_search([w], bad, group_size=32),
        "x_mean: expected the mean magnitudes": lambda: qr.awq_search([w], Gram(x), group_size=32),
        "gated outputs need the input itself": lambda: qr.awq_search([w, w], Gram(x), group_size=32, inspect="gated"),
        "a gate and an up of the same shape": lambda: qr.awq_search([w], x, group_size=32, inspect="gated"),
        r"x: found the shape \(3,\)": lambda: qr.awq_clip(w, x[:, 0], group_size=32),
        "max_shrink: found 0.0 in steps of 1/20": lambda: qr.awq_clip(w, x, group_size=32, max_shrink=0.0),
        "max_tokens: found 0": lambda: qr.awq_clip(w, x, group_size=32, max_tokens=0),
        "scale_of: found 64 numbers up to 64": lambda: qr.awq_search([w], x, group_size=32, scale_of=np.arange(1, 65)),
        "thresholds: found the shape": lambda: qr.clamp_groups(w, np.ones((3, 2), np.float32)),
    }.items():
        with pytest.raises(InputError, match=message):
            call()


def test_statistics_of_channels_do_not_depend_on_how_tokens_come() -> None:
    x = np.random.default_rng(7).standard_normal((5000, 8), np.float32)
    whole, parts, rest = (ChannelStatistics(8) for _ in range(3))
    whole.add(x)
    for part in np.array_split(x[:3000], 7):
        parts.add(part)
    rest.add(x[3000:])
    parts.merge(rest)
    assert parts.n_tokens == whole.n_tokens == 5000
    np.testing.assert_allclose(parts.mean, np.abs(x).mean(axis=0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(parts.mean, whole.mean, rtol=1e-6)
    assert np.array_equal(parts.max, np.abs(x).max(axis=0))
    with pytest.raises(InputError, match=r"x: found the shape \(2, 3\), expected \(tokens, 8\)"):
        whole.add(np.ones((2, 3), np.float32))
    x[4, 5] = np.inf
    with pytest.raises(InputError, match="x: found inf in row 4, column 5"):
        whole.add(x)
    assert whole.n_tokens == 5000
