"""Scales folded into a model leave what it computes unchanged, for every family."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest

import quantrs as qr
from family_models import MODELS, TOKENS, Model, weights
from quantrs import _native
from quantrs.calibration.folding import fold, fold_into_norm, fold_into_rows, scale_columns, tensors_of
from quantrs.errors import InputError
from quantrs.families import graph_of
from quantrs.families.scale_groups import ScaleGroup, scale_groups
from quantrs.families.spec import Block, Norm


def blocks_of(path: Path) -> tuple[Block, ...]:
    return graph_of(_native.Gguf.open(path))[0].blocks


def logits(folder: Path, model: Model) -> np.ndarray:
    path = folder / "model.gguf"
    path.write_bytes(model.to_bytes())
    return qr.Session(path, activations="float").logits(TOKENS)


def groups_of(folder: Path, model: Model) -> list[ScaleGroup]:
    path = folder / "model.gguf"
    path.write_bytes(model.to_bytes())
    return [group for block in blocks_of(path) for group in scale_groups(block)]


def relative_error(got: np.ndarray, want: np.ndarray) -> float:
    return float(np.abs(got - want).max() / np.abs(want).max())


@pytest.mark.parametrize("name", MODELS)
def test_random_scales_in_all_groups_leave_the_logits_as_they_were(name: str, tmp_path: Path) -> None:
    model = copy.deepcopy(MODELS[name])
    want = logits(tmp_path, model)
    tensors = {tensor: weights(tensor, shape) for tensor, shape in model.shapes.items()} | model.fixed
    rng = np.random.default_rng(0)
    touched = set()
    for group in groups_of(tmp_path, model):
        s = np.exp2(rng.uniform(-2, 2, group.n_scales)).astype(np.float32)
        changed = fold(group, s, tensors)
        assert list(changed) == tensors_of(group)
        assert not any(np.array_equal(changed[tensor], tensors[tensor]) for tensor in changed if "bias" not in tensor)
        tensors |= changed
        touched |= changed.keys()
    model.fixed = tensors
    assert relative_error(logits(tmp_path, model), want) < 1e-4
    linears = {tensor for tensor in tensors if tensor.startswith("blk.") and tensor.endswith("weight") and "norm" not in tensor}
    after_an_activation, without_norm = ("ffn_down",), ("attn_q.", "attn_k.", "ffn_gate")
    left_out = {"gpt2": after_an_activation, "olmo2": without_norm, "olmo3": without_norm}.get(name, ())
    assert {tensor for tensor in linears if not any(part in tensor for part in left_out)} <= touched


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("llama", {"attn_norm": "attn_q attn_k attn_v", "attn_v": "attn_output", "ffn_norm": "ffn_gate ffn_up", "ffn_up": "ffn_down"}),
        ("gpt2", {"attn_norm": "attn_qkv", "attn_qkv": "attn_output", "ffn_norm": "ffn_up"}),
        ("phi3", {"attn_norm": "attn_qkv", "attn_qkv": "attn_output", "ffn_norm": "ffn_up", "ffn_up": "ffn_down"}),
        ("olmo2", {"attn_v": "attn_output", "ffn_up": "ffn_down"}),
        (
            "qwen2moe",
            {
                "attn_norm": "attn_q attn_k attn_v",
                "attn_v": "attn_output",
                "ffn_norm": "ffn_gate_exps ffn_up_exps ffn_gate_shexp ffn_up_shexp / ffn_gate_inp ffn_gate_inp_shexp",
                "ffn_up_exps": "ffn_down_exps",
                "ffn_up_shexp": "ffn_down_shexp",
            },
        ),
    ],
)
def test_groups_are_what_the_graph_allows(name: str, expected: dict[str, str], tmp_path: Path) -> None:
    def short(names: list[str]) -> str:
        return " ".join(dict.fromkeys(name.removeprefix("blk.0.").removesuffix(".weight") for name in names))

    found = {}
    for group in groups_of(tmp_path, MODELS[name]):
        feeder = group.feeder.weight if isinstance(group.feeder, Norm) else group.feeder.tensor
        if not feeder.startswith("blk.0."):
            continue
        kept = " / " + short([linear.tensor for linear in group.kept]) if group.kept else ""
        found[short([feeder])] = short([linear.tensor for linear in group.readers]) + kept
    assert found == expected


def test_query_heads_of_a_value_head_share_its_scales(tmp_path: Path) -> None:
    group = next(g for g in groups_of(tmp_path, MODELS["llama"]) if g.n_queries == 2)
    s = np.arange(1, group.n_scales + 1, dtype=np.float32)
    channels = group.expand(s).reshape(2, 2, 16)  # [n_kv_heads, n_queries, head_dim]
    assert (group.n_channels, group.n_scales) == (64, 32)
    assert np.array_equal(channels[:, 0], channels[:, 1])
    assert np.array_equal(channels[:, 0].reshape(-1), s)
    assert np.array_equal(group.shared(group.expand(s)), [s, s])


def test_every_expert_has_scales_of_its_own_before_down(tmp_path: Path) -> None:
    groups = [g for g in groups_of(tmp_path, MODELS["mixtral"]) if g.expert is not None]
    assert [g.expert for g in groups] == [0, 1, 2, 3] * 2
    tensors = {name: np.ones(shape, np.float32) for name, shape in MODELS["mixtral"].shapes.items()}
    changed = fold(groups[1], np.full(96, 2.0, np.float32), tensors)
    assert changed["blk.0.ffn_up_exps.weight"].min(axis=(1, 2)).tolist() == [1.0, 0.5, 1.0, 1.0]
    assert changed["blk.0.ffn_down_exps.weight"].max(axis=(1, 2)).tolist() == [1.0, 2.0, 1.0, 1.0]


def test_each_function_scales_what_it_says() -> None:
    s = np.array([2.0, 4.0], np.float32)
    w = np.ones((2, 2), np.float32)
    weight, bias = fold_into_norm(np.ones(2, np.float32), np.ones(2, np.float32), s)
    assert (weight.tolist(), bias is not None and bias.tolist()) == ([0.5, 0.25], [0.5, 0.25])
    weight, bias = fold_into_rows(w, None, s)
    assert (weight.tolist(), bias) == ([[0.5, 0.5], [0.25, 0.25]], None)
    assert scale_columns(w, s).tolist() == [[2.0, 4.0], [2.0, 4.0]]
    assert (w == 1).all()


@pytest.mark.parametrize(
    ("s", "message"),
    [
        ([1.0], r"found the shape \(1,\), expected \(2,\)"),
        ([1.0, 0.0], "found 0.0 at 1, expected positive"),
        ([np.nan, 1.0], "found nan at 0, expected positive"),
    ],
)
def test_scales_that_cannot_be_divided_by_are_refused(s: list[float], message: str) -> None:
    scales = np.array(s, np.float32)
    with pytest.raises(InputError, match=message):
        scale_columns(np.ones((3, 2), np.float32), scales)
    with pytest.raises(InputError, match=message):
        fold_into_rows(np.ones((2, 3), np.float32), None, scales)
    with pytest.raises(InputError, match=message):
        fold_into_norm(np.ones(2, np.float32), None, scales)
