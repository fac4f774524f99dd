"""Rounding to grids, against the rules written down in NumPy."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

import quantrs as qr
from conftest import Ran
from quantrs.group_quantized import Rule, ScaleType

Floats = NDArray[np.floating]


def round_to(scale_type: ScaleType) -> Callable[[Floats], Floats]:
    import ml_dtypes

    dtype = {"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}[scale_type]
    return lambda v: v.astype(dtype).astype(np.float32)


def gptq(w: Floats, bits: int, symmetric: bool, wide: bool, r: Callable[[Floats], Floats]) -> tuple[Floats, Floats, Floats]:
    top, half = np.float32(2**bits - 1), np.float32(2 ** (bits - 1))
    lo, hi = np.minimum(w.min(-1), 0), np.maximum(w.max(-1), 0)
    m = np.maximum(-lo, hi)
    if symmetric:
        lo, hi = np.where((lo < 0) | wide, -m, 0), m
    lo, hi = np.where(m == 0, -1, lo).astype(np.float32), np.where(m == 0, 1, hi).astype(np.float32)
    scale = r((hi - lo) / top)
    zero = np.full_like(scale, half) if symmetric else np.clip(np.rint(-lo / scale), 0, top)
    codes = np.clip(np.rint(w / scale[..., None]) + zero[..., None], 0, top)
    return codes, scale, zero


def minmax(w: Floats, bits: int, symmetric: bool, r: Callable[[Floats], Floats], epsilon: float) -> tuple[Floats, Floats, Floats]:
    top, half = np.float32(2**bits - 1), np.float32(2 ** (bits - 1))
    w = r(w)
    lo, hi = np.minimum(w.min(-1), 0), np.maximum(w.max(-1), 0)
    scale = r(np.maximum(-lo, hi) / (top / 2)) if symmetric else r(r(hi - lo) / top)
    scale[scale == 0] = epsilon
    zero = np.zeros_like(scale) if symmetric else np.clip(np.rint(r(-half - r(lo / scale))), -half, half - 1)
    codes = np.clip(np.rint(r(r(w / scale[..., None]) + zero[..., None])), -half, half - 1)
    return codes + half, scale, zero + half


def awq(w: Floats, bits: int, symmetric: bool, r: Callable[[Floats], Floats]) -> tuple[Floats, Floats, Floats]:
    top, half = np.float32(2**bits - 1), np.float32(2 ** (bits - 1))
    w = r(w)
    lo, hi, least = w.min(-1), w.max(-1), np.float32(1e-5)
    if symmetric:
        scale = r(np.maximum(np.maximum(-lo, hi), least) / (half - 1))
        return np.clip(np.rint(r(w / scale[..., None])) + half, 0, top), scale, np.full_like(scale, half)
    scale = r(r(np.maximum(r(hi - lo), least)) / top)
    zero = np.clip(-np.rint(r(lo / scale)), 0, top)
    return np.clip(np.rint(r(w / scale[..., None])) + zero[..., None], 0, top), scale, zero


def hard_weights() -> Floats:
    w = (np.random.default_rng(0).standard_normal((37, 256)) * 0.02).astype(np.float32)
    w[3] = 0
    w[5] = abs(w[5])
    w[7] = 0.02
    w[9] = -abs(w[9])
    w[11] *= 1e-3
    w[13, 17] = 3
    w[15] = np.arange(-128, 128) / 64
    w[20, ::2] = -0.0
    return w


@pytest.mark.parametrize("scale_type", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("rule", ["gptq", "gptq-wide", "minmax", "awq"])
@pytest.mark.parametrize("symmetric", [True, False])
def test_codes_are_those_of_the_rule_in_numpy(rule: Rule, symmetric: bool, scale_type: ScaleType) -> None:
    w, r = hard_weights(), round_to(scale_type)
    for bits in range(2, 9):
        for group_size in (16, 128, -1):
            q = qr.quantize_groups(w, bits=bits, group_size=group_size, symmetric=symmetric, rule=rule, scale_type=scale_type)
            groups = w.reshape(len(w), -1, q.group_size)
            if rule == "minmax":
                epsilon = {"f32": 2.0**-23, "f16": 2.0**-10, "bf16": 2.0**-7}[scale_type]
                want = minmax(groups, bits, symmetric, r, epsilon)
            elif rule == "awq":
                with np.errstate(over="ignore"):  # quotients by the least scale of all, of float16
                    want = awq(groups, bits, symmetric, r)
            else:
                want = gptq(groups, bits, symmetric, rule == "gptq-wide", r)
            where = f"{bits} bits, groups of {group_size}"
            assert np.array_equal(q.scales, want[1]), where
            assert np.array_equal(q.zeros, want[2]), where
            assert np.array_equal(q.codes.reshape(groups.shape), want[0]), where
            assert np.array_equal(q.dequantize().reshape(groups.shape), (want[0] - want[2][..., None]) * want[1][..., None]), where


def test_the_least_zero_point_costs_no_clipping() -> None:
    w = abs(hard_weights())
    for rule in ("gptq", "minmax", "awq"):
        q = qr.quantize_groups(w, symmetric=False, min_zero=1, rule=rule, group_size=64)
        assert (q.zeros >= 1).all(), rule
        assert (abs(q.dequantize() - w) <= 0.5001 * q.scales[:, q.g_idx] + 1e-6).all(), rule


@pytest.mark.parametrize("rule", ["gptq-wide", "minmax", "awq"])
@pytest.mark.parametrize("exponent", [2.0, 2.4])
def test_a_searched_range_has_the_least_error_of_all_candidates(rule: Rule, exponent: float) -> None:
    w = hard_weights()
    for bits, symmetric in ((4, True), (3, False)):
        q = qr.quantize_groups(w, bits=bits, symmetric=symmetric, rule=rule, mse=exponent, group_size=128)
        found = (abs(q.dequantize() - w).reshape(len(w), -1, 128).astype(float) ** exponent).sum(-1)
        for i in range(80):
            shrink = np.float32(1 - i / 100)
            other = qr.quantize_groups(w * shrink, bits=bits, symmetric=symmetric, rule=rule, group_size=128)
            scales, zeros = other.scales[:, other.g_idx], other.zeros[:, other.g_idx].astype(np.float32)
            values = (np.clip(np.rint(w / scales) + zeros, 0, 2**bits - 1) - zeros) * scales
            error = (abs(values - w).reshape(*found.shape, 128).astype(float) ** exponent).sum(-1)
            assert (found <= error * 1.0001 + 1e-12).all(), f"{bits} bits, shrunk by {shrink}"


def test_the_number_of_threads_changes_no_bit() -> None:
    w = np.random.default_rng(1).standard_normal((100, 512), np.float32)
    results = [qr.quantize_groups(w, bits=3, symmetric=False, mse=2.4, threads=n) for n in (1, 2, 3)]
    assert len({r.codes.tobytes() + r.scales.tobytes() + r.zeros.tobytes() for r in results}) == 1


def test_every_level_gives_the_same_codes(level: str, python: Callable[..., Ran]) -> None:
    code = """
import hashlib, numpy as np, quantrs as qr
w = np.random.default_rng(2).standard_normal((33, 256), np.float32)
for rule in ("gptq", "minmax", "awq"):
    for kind in ("f32", "f16", "bf16"):
        q = qr.quantize_groups(w, bits=3, symmetric=False, rule=rule, scale_type=kind, mse=2.4)
        print(hashlib.sha256(q.codes.tobytes() + q.scales.tobytes() + q.zeros.tobytes()).hexdigest())
"""
    forced, usual = python("-c", code, env={"QUANTRS_LEVEL": level}), python("-c", code)
    assert forced.code == usual.code == 0, forced.err
    assert forced.out == usual.out


def test_mistakes_are_named() -> None:
    w = np.ones((4, 256), np.float32)
    for arguments, message in (
        ({"bits": 9}, r"bits: found 9, expected 2 to 8"),
        ({"bits": 1}, r"bits: found 1, expected 2 to 8"),
        ({"group_size": 100}, r"group_size: found 100, expected a divisor of in_features 256, or -1"),
        ({"group_size": 0}, r"group_size: found 0"),
        ({"mse": -1.0}, r"mse: found -1"),
        ({"min_zero": 2}, r"min_zero: found 2"),
        ({"rule": "best"}, r'rule: found "best", expected one of gptq, gptq-wide, minmax, awq'),
        ({"scale_type": "f8"}, r'scale_type: found "f8"'),
        ({"threads": 0}, r"threads: found 0"),
    ):
        with pytest.raises(qr.InputError, match=message):
            qr.quantize_groups(w, **arguments)  # type: ignore[arg-type]
    with pytest.raises(qr.InputError, match=r"found an array of shape \(256,\), expected two axes"):
        qr.quantize_groups(w[0])
    with pytest.raises(TypeError, match="found an array of int64"):
        qr.quantize_groups(np.ones((4, 256), np.int64))
    for bad in (np.nan, np.inf):
        broken = np.ones((40, 1024), np.float32)
        broken[33, 77] = bad
        with pytest.raises(qr.InputError, match=r"w: found (NaN|inf) in row 33, column 77"):
            qr.quantize_groups(broken)
    with pytest.raises(qr.InputError, match="row 0, group 0 needs a scale beyond f16"):
        qr.quantize_groups(w * 1e30, scale_type="f16")


def test_no_rows_give_no_codes() -> None:
    q = qr.quantize_groups(np.zeros((0, 256), np.float32))
    assert q.dequantize().shape == (0, 256)


def test_arrays_that_do_not_fit_each_other_are_refused() -> None:
    q = qr.quantize_groups(np.ones((4, 256), np.float32))
    with pytest.raises(qr.InputError, match="groups of 128 of 256 columns"):
        qr.GroupQuantized(q.codes, q.scales[:, :1], q.zeros, q.g_idx, 4, 128, True)
    with pytest.raises(qr.InputError, match="g_idx"):
        qr.GroupQuantized(q.codes, q.scales, q.zeros, q.g_idx[:3], 4, 128, True)
