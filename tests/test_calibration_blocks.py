"""Models run block by block."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import quantrs as qr
from family_models import MODELS, N_EMBD, TOKENS, Model, weights
from huggingface_folders import WITH_WEIGHTS, golden_folder
from quantrs import _native
from quantrs.calibration.blocks import Blocks, Replacement
from quantrs.errors import FormatError, InputError
from quantrs.open_model import open_model


def opened(folder: Path, model: Model) -> tuple[Path, Blocks]:
    path = folder / "model.gguf"
    path.write_bytes(model.to_bytes())
    return path, Blocks(_native.Gguf.open(path), n_ctx=len(TOKENS), threads=1)


def chained(blocks: Blocks) -> list[np.ndarray]:
    """What goes into each block, and what leaves the last."""
    x = [blocks.embed(TOKENS)]
    for i in range(len(blocks)):
        x.append(blocks.open(i).forward(x[-1]))
    return x


@pytest.mark.parametrize("name", MODELS)
def test_block_by_block_is_what_the_whole_model_computes(name: str, tmp_path: Path) -> None:
    path, blocks = opened(tmp_path, MODELS[name])
    whole = qr.Session(path, n_ctx=len(TOKENS), threads=2).trace(TOKENS, hidden=True)
    for i, x in enumerate(chained(blocks)):
        assert np.array_equal(x, whole[f"blk.{i}"]), f"blk.{i}"


@pytest.mark.parametrize("name", ["gemma2", "mixtral", "phi3", "qwen2moe"])
def test_one_pass_gives_inputs_and_output(name: str, tmp_path: Path) -> None:
    path, blocks = opened(tmp_path, MODELS[name])
    names = list(blocks.tensors(1))
    whole = qr.Session(path, n_ctx=len(TOKENS)).trace(TOKENS, names, hidden=True)
    inputs, y = blocks.open(1).trace(whole["blk.1"], names)
    assert np.array_equal(y, whole["blk.2"])
    assert inputs.keys() == whole.keys() - {f"blk.{i}" for i in range(len(blocks) + 1)}
    for key, x in inputs.items():
        assert np.array_equal(x, whole[key]), key


def test_only_the_tensors_of_the_block_are_there(tmp_path: Path) -> None:
    _, blocks = opened(tmp_path, MODELS["qwen2"])
    assert "blk.1.attn_q.bias" in blocks.tensors(1)
    assert all(name.startswith("blk.1.") for name in blocks.tensors(1))
    with pytest.raises(InputError, match=r"blk\.0\.attn_q\.weight: is none of the block's"):
        blocks.open(1, {"blk.0.attn_q.weight": Replacement([np.zeros((1, N_EMBD), np.float32)])})


def test_a_block_runs_with_other_weights(tmp_path: Path) -> None:
    model = MODELS["mixtral"]
    names = ["blk.0.attn_q.weight", "blk.0.ffn_down_exps.weight", "blk.0.attn_norm.weight"]
    values = {name: weights(f"other {name}", model.shapes[name]) for name in names}
    _, blocks = opened(tmp_path, model)
    before = blocks.embed(TOKENS)
    q, down, norm = values.values()
    replaced = {names[0]: Replacement([q]), names[1]: Replacement(list(down)), names[2]: Replacement([norm])}
    got, own = blocks.open(0, replaced).forward(before), blocks.open(0).forward(before)
    other = Model(model.architecture, model.metadata, model.shapes, model.fixed | values)
    _, changed = opened(tmp_path, other)
    assert np.array_equal(got, changed.open(0).forward(before))
    assert not np.array_equal(got, own)


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_a_checkpoint_folder_runs_block_by_block(name: str, tmp_path: Path) -> None:
    folder = golden_folder(name, tmp_path)
    whole = qr.Session(folder, n_ctx=len(TOKENS), kv_type="f32", activations="float").trace(TOKENS, hidden=True)
    for i, x in enumerate(chained(Blocks(open_model(folder, to_run=True), n_ctx=len(TOKENS)))):
        assert np.array_equal(x, whole[f"blk.{i}"]), f"blk.{i}"


def test_rows_may_come_in_the_order_of_a_checkpoint_folder(tmp_path: Path) -> None:
    _, blocks = opened(tmp_path, MODELS["llama"])
    name = "blk.0.attn_q.weight"
    q = weights(name, MODELS["llama"].shapes[name])
    halves = np.ascontiguousarray(q.reshape(4, -1, 2, N_EMBD).swapaxes(1, 2).reshape(q.shape))
    x = blocks.embed(TOKENS)
    got = blocks.open(0, {name: Replacement([halves], "halves_to_pairs", 4)}).forward(x)
    assert np.array_equal(got, blocks.open(0).forward(x))


@pytest.mark.parametrize("values", [np.zeros((64, 32), np.float32), np.zeros((64, 64)), np.zeros((64, 128), np.float32)[:, ::2]])
def test_other_weights_of_another_kind_are_refused(values: np.ndarray, tmp_path: Path) -> None:
    _, blocks = opened(tmp_path, MODELS["llama"])
    with pytest.raises(InputError, match=r"blk\.0\.attn_q\.weight: part 0 is .* expected contiguous float32 with 64 columns"):
        blocks.open(0, {"blk.0.attn_q.weight": Replacement([values])})


def test_too_few_rows_are_refused(tmp_path: Path) -> None:
    _, blocks = opened(tmp_path, MODELS["llama"])
    with pytest.raises((InputError, FormatError), match="63 rows in its parts"):
        blocks.open(0, {"blk.0.attn_q.weight": Replacement([np.zeros((63, 64), np.float32)])})


def test_values_that_are_not_finite_are_named(tmp_path: Path) -> None:
    _, blocks = opened(tmp_path, MODELS["llama"])
    x = blocks.embed(TOKENS)
    huge = np.full((N_EMBD,), np.finfo(np.float32).max, np.float32)
    block = blocks.open(1, {"blk.1.ffn_norm.weight": Replacement([huge])})
    with pytest.raises(FormatError, match=r"input of blk\.1\.ffn_"):
        block.trace(x, list(blocks.tensors(1)))
    with pytest.raises(FormatError, match=r"blk\.1: the result is not finite"):
        block.forward(x)
