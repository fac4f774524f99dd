"""Adapters: added to a checkpoint as PEFT does, written as GGUF files of their own, and refused where that would be wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import quantrs as qr
from huggingface_folders import HF, values, write_safetensors
from quantrs.huggingface import Folder, assemble
from quantrs.huggingface.lora import Adapter, merged
from quantrs.huggingface.lora_gguf import assemble_adapter

Q, DOWN = "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"
SHAPES = {Q: (128, 128), DOWN: (128, 256)}


def matrices(shapes: dict[str, tuple[int, int]] = SHAPES, rank: int = 4) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    found = {}
    for name, (n_out, n_in) in shapes.items():
        found[f"base_model.model.{name}.lora_A.weight"] = rng.standard_normal((rank, n_in), np.float32)
        found[f"base_model.model.{name}.lora_B.weight"] = rng.standard_normal((n_out, rank), np.float32)
    return found


def write_adapter(folder: Path, arrays: dict[str, np.ndarray], **config: object) -> Path:
    folder.mkdir()
    write_safetensors(folder / "adapter_model.safetensors", arrays)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 8} | config))
    return folder


def weight(folder: Folder, name: str, tmp_path: Path) -> np.ndarray:
    return values(assemble(folder, arch="generic"))[name].reshape(folder.tensors[name].shape)


def rounded_to_bf16(array: np.ndarray) -> np.ndarray:
    import ml_dtypes

    return array.astype(np.float32).astype(ml_dtypes.bfloat16).astype(np.float32)


def test_adapters_are_added_one_after_the_other_and_rounded_once(tmp_path: Path) -> None:
    arrays = matrices()
    path = write_adapter(tmp_path / "adapter", arrays)
    base = Folder.open(HF / "tiny-llama3-rope")
    folder = merged(base, [Adapter.open(path), Adapter.open(path, scale=-0.25)], tmp_path / "scratch")
    for name in SHAPES:
        a, b = (arrays[f"base_model.model.{name}.lora_{x}.weight"] for x in "AB")
        want = weight(base, f"{name}.weight", tmp_path).astype(np.float64) + (8 / 4) * 0.75 * (b.astype(np.float64) @ a)
        got = weight(folder, f"{name}.weight", tmp_path)
        # The sum is of float32, so that a value next to the middle of two of bfloat16 may go the other way.
        assert (got == rounded_to_bf16(want)).mean() > 0.999
        assert np.abs(got - want).max() <= np.abs(want).max() / 256
    others = [name for name in base.tensors if name.removesuffix(".weight") not in SHAPES]
    assert all(folder.tensors[name] is base.tensors[name] for name in others)


def test_an_adapter_of_transposed_weights_is_added_transposed(tmp_path: Path) -> None:
    name = "transformer.h.0.attn.c_attn"
    arrays = matrices({name: (384, 128)})
    path = write_adapter(tmp_path / "adapter", arrays, fan_in_fan_out=True)
    base = Folder.open(HF / "tiny-gpt2")
    folder = merged(base, [Adapter.open(path)], tmp_path / "scratch")
    a, b = (arrays[f"base_model.model.{name}.lora_{x}.weight"] for x in "AB")
    change = weight(folder, f"{name}.weight", tmp_path) - weight(base, f"{name}.weight", tmp_path)
    assert np.abs(change - 2 * (b @ a).T).max() < 0.1


def test_the_scale_follows_rank_and_patterns(tmp_path: Path) -> None:
    path = write_adapter(tmp_path / "a", matrices(rank=16), use_rslora=True, alpha_pattern={"mlp.down_proj": 2})
    assert {update.weight: update.scale for update in Adapter.open(path, scale=3.0).updates} == {f"{Q}.weight": 6.0, f"{DOWN}.weight": 1.5}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"peft_type": "IA3"}, "'peft_type' is 'IA3'"),
        ({"use_dora": True}, "'use_dora' is set"),
        ({"modules_to_save": ["lm_head"]}, "'modules_to_save' is set"),
        ({"bias": "all"}, "'bias' is set"),
        ({"init_lora_weights": "pissa_niter_4"}, "changes the base model too"),
        ({"lora_alpha": "many"}, "'lora_alpha' is 'many'"),
    ],
)
def test_adapters_that_are_more_than_two_matrices_are_refused(config: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises((qr.InputError, qr.FormatError), match=message):
        Adapter.open(write_adapter(tmp_path / "a", matrices(), **config))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({f"base_model.model.{Q}.lora_B.weight": None}, "has lora_A alone"),
        ({f"base_model.model.{Q}.lora_B.weight": np.ones((128, 5), np.float32)}, "with the same r"),
        ({f"base_model.model.{Q}.lora_magnitude_vector": np.ones((128, 1), np.float32)}, "not a matrix of a LoRA adapter"),
    ],
)
def test_matrices_that_do_not_belong_together_are_refused(change: dict, message: str, tmp_path: Path) -> None:
    arrays = {name: array for name, array in (matrices() | change).items() if array is not None}
    with pytest.raises((qr.InputError, qr.FormatError), match=message):
        Adapter.open(write_adapter(tmp_path / "a", arrays))


def test_an_adapter_of_another_model_is_refused(tmp_path: Path) -> None:
    base = Folder.open(HF / "tiny-llama3-rope")
    other = Adapter.open(write_adapter(tmp_path / "a", matrices({"model.layers.7.mlp.up_proj": (8, 8)})))
    with pytest.raises(qr.InputError, match=r"adapts model.layers.7.mlp.up_proj.weight, which .* does not have"):
        merged(base, [other], tmp_path / "scratch")
    wider = Adapter.open(write_adapter(tmp_path / "b", matrices({Q: (128, 64)})))
    with pytest.raises(qr.InputError, match=r"as a matrix of \(128, 64\), in .* it is \(128, 128\)"):
        merged(base, [wider], tmp_path / "scratch")


def test_a_pickled_adapter_is_refused(tmp_path: Path) -> None:
    (tmp_path / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(qr.FileError, match="only a pickle, which is never read"):
        Adapter.open(tmp_path)


def test_an_adapter_as_a_gguf_file_has_the_rows_of_the_models_own(tmp_path: Path) -> None:
    arrays = matrices()
    adapter = Adapter.open(write_adapter(tmp_path / "my-adapter", arrays))
    base = Folder.open(HF / "tiny-llama3-rope")
    gguf = assemble_adapter(adapter, base.config)
    assert gguf.get("general.type") == "adapter"
    assert gguf.get("adapter.type") == "lora"
    assert gguf.get("adapter.lora.alpha") == 8.0
    data = values(gguf)
    assert set(data) == {f"{name}.weight.lora_{x}" for name in ("blk.0.attn_q", "blk.1.ffn_down") for x in "ab"}
    # Base and adapter in GGUF's order are the merged folder in GGUF's order.
    scratch = merged(base, [adapter], tmp_path / "scratch")
    a, b = data["blk.0.attn_q.weight.lora_a"].reshape(4, 128), data["blk.0.attn_q.weight.lora_b"].reshape(128, 4)
    names = {"pre": "llama-bpe"}
    want, plain = (values(assemble(folder, **names))["blk.0.attn_q.weight"].reshape(128, 128) for folder in (scratch, base))
    assert np.abs(plain + 2 * (b @ a) - want).max() < 0.1
