"""Arrays in column-major order: the library takes them as what they are, and the native functions refuse them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import quantrs as qr
from family_models import MODELS, N_EMBD
from quantrs import _native
from quantrs.calibration.blocks import Blocks
from quantrs.errors import InputError

RNG = np.random.default_rng(0)
W, X = (RNG.standard_normal(shape).astype(np.float32) for shape in ((32, 64), (160, 64)))
I8 = RNG.integers(-127, 128, (4, 64), dtype=np.int8)
AWQ = {"bits": 4, "group_size": 32, "symmetric": False}


def _hessian(x: np.ndarray) -> qr.Hessian:
    sums = qr.Hessian(64)
    sums.add(x)
    return sums


PUBLIC: dict[str, Callable[[Callable[[np.ndarray], np.ndarray]], object]] = {
    "Hessian.add": lambda as_: _hessian(as_(X)).matrix,
    "awq_clip": lambda as_: qr.awq_clip(as_(W), as_(X), group_size=32),
    "awq_search": lambda as_: qr.awq_search([as_(W)], as_(X), group_size=32).losses,
    "clamp_groups": lambda as_: qr.clamp_groups(as_(W), as_(np.full((32, 2), 0.5, np.float32))),
    "gptq": lambda as_: qr.gptq(as_(W), _hessian(X), group_size=32).codes,
    "matmul": lambda as_: qr.quantize(W, "q8_0") @ as_(X).T,
    "matmul_i8": lambda as_: qr.matmul_i8(as_(I8), as_(I8)),
    "quantize": lambda as_: qr.quantize(as_(W), "q8_0").data,
    "quantize_groups": lambda as_: qr.quantize_groups(as_(W), group_size=32).codes,
    "smooth_scales": lambda as_: qr.smooth_scales(np.abs(X).max(axis=0), [as_(W)]),
    "smooth_search": lambda as_: qr.smooth_search(as_(X), [as_(W)]).scales,
}

NATIVE: dict[str, Callable[[Callable[[np.ndarray], np.ndarray]], object]] = {
    "Hessian.add": lambda as_: _native.Hessian(64).add(as_(X)),
    "awq_clip w": lambda as_: _native.awq_clip(as_(W), X, is_gram=False, n_grid=20, n_steps=10, **AWQ),
    "awq_clip x": lambda as_: _native.awq_clip(W, as_(X), is_gram=False, n_grid=20, n_steps=10, **AWQ),
    "awq_search weights": lambda as_: _awq_search(as_(W), X),
    "awq_search x": lambda as_: _awq_search(W, as_(X)),
    "gptq": lambda as_: _native.gptq(as_(W), _hessian(X)._sums, **AWQ),
    "matmul x": lambda as_: _matmul(as_(X), np.empty((160, 32), np.float32)),
    "matmul out": lambda as_: _matmul(X, as_(np.empty((160, 32), np.float32))),
    "matmul_i8 a": lambda as_: _native.matmul_i8(as_(I8), I8, np.empty((4, 4), np.int32)),
    "matmul_i8 b": lambda as_: _native.matmul_i8(I8, as_(I8), np.empty((4, 4), np.int32)),
    "matmul_i8 out": lambda as_: _native.matmul_i8(I8, I8, as_(np.empty((4, 4), np.int32))),
    "pack_codes": lambda as_: _native.pack_codes(as_(np.zeros((4, 64), np.uint8)), 4),
    "quantize_groups": lambda as_: _native.quantize_groups(as_(W), **AWQ),
    "smooth_scales": lambda as_: _native.smooth_scales(np.abs(X).max(axis=0), [as_(W)]),
    "unpack_codes": lambda as_: _native.unpack_codes(as_(np.zeros((4, 8), np.int32)), 4, 64),
}


def _awq_search(w: np.ndarray, x: np.ndarray) -> object:
    return _native.awq_search([w], x, np.abs(x).mean(axis=0), outputs="linear", duo_scaling=True, n_grid=4, **AWQ)


def _matmul(x: np.ndarray, out: np.ndarray) -> None:
    _native.matmul(qr.quantize(W, "q8_0").data.reshape(-1), "Q8_0", x, out)


def _unaligned(array: np.ndarray) -> np.ndarray:
    shifted = np.frombuffer(b"\0" + array.tobytes(), np.uint8)[1:].view(array.dtype).reshape(array.shape)
    assert array.itemsize == 1 or not shifted.flags.aligned
    return shifted


@pytest.mark.parametrize("name", PUBLIC)
@pytest.mark.parametrize("as_", [np.asfortranarray, _unaligned, lambda a: np.repeat(a, 2, axis=0)[::2]])
def test_results_do_not_depend_on_the_order_in_memory(name: str, as_: Callable[[np.ndarray], np.ndarray]) -> None:
    assert np.array_equal(np.asarray(PUBLIC[name](as_)), np.asarray(PUBLIC[name](np.ascontiguousarray)))


@pytest.mark.parametrize("name", NATIVE)
@pytest.mark.parametrize("as_", [np.asfortranarray, lambda a: np.repeat(a, 2, axis=0)[::2]])
def test_native_functions_refuse_other_orders(name: str, as_: Callable[[np.ndarray], np.ndarray]) -> None:
    NATIVE[name](np.ascontiguousarray)
    with pytest.raises(InputError, match="not C-contiguous"):
        NATIVE[name](as_)


def test_blocks_take_hidden_states_in_any_order(tmp_path) -> None:
    (tmp_path / "m.gguf").write_bytes(MODELS["llama"].to_bytes())
    block = Blocks(_native.Gguf.open(str(tmp_path / "m.gguf")), n_ctx=16).open(0)
    x = RNG.standard_normal((16, N_EMBD)).astype(np.float32)
    want = block.forward(x)
    for same in (np.asfortranarray(x), _unaligned(x)):
        assert np.array_equal(block.forward(same), want)
        assert np.array_equal(block.trace(same, [])[1], want)
