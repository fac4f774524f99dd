"""The GPTQ solver, against gptqmodel's results and against what must hold for any solver."""

import hashlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import quantrs as qr
from conftest import GOLDEN, Ran

FOLDER = GOLDEN / "gptq"
CASES: list[dict[str, Any]] = json.loads((FOLDER / "algorithm_index.json").read_text(encoding="utf-8"))["cases"]
PACKING: list[dict[str, Any]] = json.loads((FOLDER / "packing_index.json").read_text(encoding="utf-8"))


def hessian_of(x: NDArray[np.floating]) -> qr.Hessian:
    h = qr.Hessian(x.shape[1])
    h.add(x)
    return h


def output_error(x: NDArray[np.floating], w: NDArray[np.floating], q: qr.GroupQuantized) -> float:
    x64 = x.astype(np.float64)
    return float(np.square(x64 @ (q.dequantize() - w).T.astype(np.float64)).sum() / np.square(x64 @ w.T.astype(np.float64)).sum())


def problem(n_rows: int = 40, n_columns: int = 192, n_tokens: int = 600) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A weight, and inputs whose columns are correlated."""
    rng = np.random.default_rng(5)
    mix = rng.standard_normal((n_columns, n_columns)) * 0.97 ** np.arange(n_columns)
    x = rng.standard_normal((n_tokens, n_columns)) @ mix
    return (rng.standard_normal((n_rows, n_columns)) * 0.02).astype(np.float32), x.astype(np.float32)


@pytest.fixture(scope="module")
def golden() -> dict[str, NDArray[np.generic]]:
    with np.load(FOLDER / "algorithm.npz") as arrays:
        return dict(arrays)


def differences(golden: dict[str, Any], case: dict[str, Any], h: qr.Hessian) -> str:
    """What is wrong with our solution of a golden problem."""
    q = qr.gptq(
        golden["W"],
        h,
        bits=case["bits"],
        group_size=case["group_size"],
        symmetric=case["sym"],
        desc_act=case["desc_act"],
        static_groups=case["static_groups"],
        group_aware=case["gar"],
        damp_percent=case["damp"],
        block_size=case["blocksize"],
        mse=case["mse"] or None,
    )
    key = case["key"]
    steps = abs(q.codes.astype(int) - golden[key + ".qint"].astype(int))
    equal, scale = (steps == 0).mean(), abs(q.scales / golden[key + ".scale_f32"] - 1).max()
    error = output_error(golden["X"], golden["W"], q) / case["rel_err_gptq"]
    right = (
        equal >= 0.999
        and steps.max() <= 1
        and scale <= 1e-5
        and error <= 1.01
        and q.damp_percent == case["damp_used"]
        and np.array_equal(q.zeros, golden[key + ".zero"])
        and np.array_equal(q.g_idx, golden[key + ".g_idx"])
    )
    return "" if right else f"{key}: {equal:.4%} equal, {steps.max()} steps, scales {scale:.1e}, error {error:.4f} of the golden one"


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["key"]))
def test_solutions_are_those_of_gptqmodel(golden: dict[str, NDArray[np.generic]], case: dict[str, Any]) -> None:
    assert not differences(golden, case, hessian_of(golden["X"].astype(np.float32)))  # type: ignore[arg-type]


def test_every_level_solves_the_golden_problems(level: str, python: Callable[..., Ran]) -> None:
    code = """
import numpy as np, test_gptq
golden = dict(np.load(test_gptq.FOLDER / "algorithm.npz"))
h = test_gptq.hessian_of(golden["X"].astype(np.float32))
for case in test_gptq.CASES[::3]:
    wrong = test_gptq.differences(golden, case, h)
    assert not wrong, wrong
"""
    ran = python("-c", code, env={"QUANTRS_LEVEL": level, "PYTHONPATH": str(Path(__file__).parent)})
    assert ran.code == 0, ran.err


def test_hard_rows_at_all_widths_are_those_of_gptqmodel() -> None:
    with np.load(FOLDER / "packing.npz") as arrays:
        w, x = arrays["W"], arrays["X"].astype(np.float32)
        h = hessian_of(x)
        for case in PACKING:
            settings = {"bits": case["bits"], "group_size": case["group_size"], "symmetric": case["sym"], "desc_act": case["desc_act"]}
            q, key = qr.gptq(w, h, **settings), case["key"]
            equal = (q.codes == arrays[key + ".qint"]).mean()
            assert equal >= 0.998, f"{key}: {equal:.3%} equal"
            assert np.allclose(q.scales, arrays[key + ".scale_f32"], rtol=1e-5, atol=0), key
            assert np.array_equal(q.zeros, arrays[key + ".zero"]), key
            assert np.array_equal(q.g_idx, arrays[key + ".g_idx"]), key
            assert output_error(x, w, q) <= 1.01 * case["rel_err"], key


def test_uncorrelated_inputs_give_the_nearest_codes() -> None:
    w, _ = problem()
    h = hessian_of(np.eye(192, dtype=np.float32))
    for bits in (2, 3, 5, 8):
        for symmetric in (True, False):
            for mse in (None, 2.4):
                q = qr.gptq(w, h, bits=bits, group_size=16, symmetric=symmetric, mse=mse)
                r = qr.quantize_groups(w, bits=bits, group_size=16, symmetric=symmetric, mse=mse)
                assert np.array_equal(q.codes, r.codes), f"{bits} bits"
                assert np.array_equal(q.scales, r.scales)
                assert np.array_equal(q.zeros, r.zeros)


@pytest.mark.parametrize("rule", ["gptq", "gptq-wide", "minmax", "awq"])
@pytest.mark.parametrize("order", [{}, {"desc_act": True}, {"group_aware": True}, {"desc_act": True, "static_groups": True}])
def test_every_grid_and_order_beats_rounding_to_nearest(rule: Any, order: dict[str, bool]) -> None:
    w, x = problem()
    h = hessian_of(x)
    for group_size in (32, 96, -1):
        for symmetric in (True, False):
            settings = {"bits": 3, "group_size": group_size, "symmetric": symmetric, "rule": rule, "min_zero": 1}
            q, r = qr.gptq(w, h, **settings, **order), qr.quantize_groups(w, **settings)
            assert output_error(x, w, q) < 0.6 * output_error(x, w, r), f"groups of {group_size}"
            assert q.in_order or "static_groups" not in order
            assert q.zeros.min() >= 1


def test_the_loss_is_the_error_of_the_outputs() -> None:
    w, x = problem()
    h = hessian_of(x)
    q = qr.gptq(w, h, damp_percent=0.05, group_size=64)
    off = (q.dequantize() - w).astype(np.float64)
    error = 2 / len(x) * np.square(x.astype(np.float64) @ off.T).sum()
    assert q.loss == pytest.approx(error + 0.05 * np.diag(h.matrix).mean() * np.square(off).sum(), rel=1e-3)


def test_any_block_size_and_number_of_columns_is_taken() -> None:
    for n_columns in (8, 30, 81):
        w, x = problem(n_rows=50, n_columns=n_columns)
        h = hessian_of(x)
        losses = [qr.gptq(w, h, group_size=-1, block_size=size).loss for size in (1, 3, 8, 50, 128, 1000)]
        assert max(losses) < 1.001 * min(losses), f"{n_columns} columns: {losses}"


def test_the_number_of_threads_changes_no_bit() -> None:
    w, x = problem(n_rows=130)
    found = set()
    for threads in (1, 2, 3):
        h = qr.Hessian(192)
        h.add(x, threads=threads)
        q = qr.gptq(w, h, group_size=64, desc_act=True, threads=threads)
        found.add(hashlib.sha256(q.codes.tobytes() + q.scales.tobytes() + h.matrix.tobytes()).hexdigest() + str(q.loss))
    assert len(found) == 1


def test_columns_without_inputs_become_zero() -> None:
    w, x = problem()
    x[:, [0, 50, 191]] = 0
    for order in ({}, {"desc_act": True}, {"group_aware": True}):
        q = qr.gptq(w, hessian_of(x), group_size=64, **order)
        assert not q.dequantize()[:, [0, 50, 191]].any()


def test_a_hessian_that_is_not_positive_definite_gets_more_damping() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 192)).astype(np.float32)
    w, _ = problem()
    q = qr.gptq(w, hessian_of(x), damp_percent=0.0, group_size=64)
    assert 0 < q.damp_percent < 0.05
    assert np.isfinite(q.dequantize()).all()


def test_a_factor_is_not_kept_when_tokens_or_damping_change() -> None:
    w, x = problem()
    h = hessian_of(x[:300])
    first, other_damping = qr.gptq(w, h, group_size=64), qr.gptq(w, h, group_size=64, damp_percent=0.3)
    h.add(x[300:])
    assert first.loss != other_damping.loss
    assert np.array_equal(qr.gptq(w, h, group_size=64).codes, qr.gptq(w, hessian_of(x), group_size=64).codes)


def test_calls_for_the_same_hessian_may_overlap() -> None:
    w, x = problem()
    h = hessian_of(x)
    want: dict[float, set[bytes]] = {}

    def solve(damping: float) -> None:
        for _ in range(20):
            want.setdefault(damping, set()).add(qr.gptq(w, h, group_size=64, damp_percent=damping).codes.tobytes())

    threads = [threading.Thread(target=solve, args=(damping,), daemon=True) for damping in (0.01, 0.02, 0.01)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not any(thread.is_alive() for thread in threads)
    assert all(len(codes) == 1 for codes in want.values())


def test_hessians_are_sums_over_tokens_in_any_pieces() -> None:
    _, x = problem(n_tokens=1100)
    whole, want = hessian_of(x), 2 / len(x) * x.astype(np.float64).T @ x.astype(np.float64)
    size = 2 / len(x) * abs(x.astype(np.float64)).T @ abs(x.astype(np.float64))
    assert (abs(whole.matrix - want) <= 1e-5 * size).all()
    assert (abs(np.diag(whole.matrix) / np.diag(want) - 1) <= 2e-6).all()
    parts, others = qr.Hessian(192), qr.Hessian(192)
    for part in np.array_split(x, 7):
        parts.add(part)
    assert np.array_equal(parts.matrix, whole.matrix)
    parts.merge(others)
    assert np.array_equal(parts.matrix, whole.matrix)
    others.merge(parts)
    assert others.n_tokens == 1100
    assert np.allclose(others.matrix, whole.matrix, rtol=1e-6, atol=1e-6 * size.max())
    assert not qr.Hessian(5).matrix.any()


def test_constant_inputs_do_not_add_up_rounding_errors() -> None:
    x = np.full((30_000, 4), 0.1, np.float32)
    assert np.allclose(hessian_of(x).matrix, 2 * np.float64(np.float32(0.1)) ** 2, rtol=1e-5, atol=0)


def test_mistakes_are_named() -> None:
    w, x = problem()
    h = hessian_of(x)
    for settings, message in (
        ({"bits": 9}, "bits: found 9, expected 2 to 8"),
        ({"group_size": 100}, "group_size: found 100, expected a divisor of in_features 192, or -1"),
        ({"group_size": 64, "block_size": 0}, "block_size: found 0"),
        ({"group_size": 64, "damp_percent": -0.1}, "damp_percent: found -0.1"),
        ({"group_size": 64, "damp_percent": float("nan")}, "damp_percent: found NaN"),
        ({"group_size": 64, "desc_act": True, "group_aware": True}, "expected one of these orders"),
    ):
        with pytest.raises(qr.InputError, match=message):
            qr.gptq(w, h, **settings)  # type: ignore[arg-type]
    with pytest.raises(qr.InputError, match=r"found w of shape \(40, 96\), expected 192 columns"):
        qr.gptq(w[:, :96], h)
    with pytest.raises(qr.InputError, match="has seen no token"):
        qr.gptq(w, qr.Hessian(192))
    with pytest.raises(qr.InputError, match="nothing but zeros"):
        qr.gptq(w, hessian_of(np.zeros((5, 192), np.float32)), group_size=64)
    with pytest.raises(TypeError, match=r"expected a quantrs\.Hessian"):
        qr.gptq(w, h.matrix)  # type: ignore[arg-type]
    w[7, 11] = np.nan
    with pytest.raises(qr.InputError, match="w: found NaN in row 7, column 11"):
        qr.gptq(w, h, group_size=64)
    x[599, 3] = np.inf
    with pytest.raises(qr.InputError, match="x: found inf in row 599, column 3"):
        h.add(x)
    assert h.n_tokens == 600
    with pytest.raises(qr.InputError, match="x: found 5 columns, expected 192"):
        h.add(np.zeros((3, 5), np.float32))
    with pytest.raises(qr.InputError, match="found n = 5, expected 192"):
        h.merge(qr.Hessian(5))
    with pytest.raises(qr.InputError, match="n: found 0"):
        qr.Hessian(0)
