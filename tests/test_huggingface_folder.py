"""Folders, indexes and configurations that contradict themselves are refused by name, before anything is sized by them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import quantrs as qr
from huggingface_folders import assembled, golden_folder, write_safetensors
from quantrs.huggingface import Folder, assemble

INDEX = "model.safetensors.index.json"


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("tiny-qwen3", {"num_hidden_layers": 10**9}, r"config.json: says 1000000000 blocks, the files have tensors of 2"),
        ("tiny-qwen3", {"num_hidden_layers": 1}, r"says 1 blocks, the files have tensors of 2"),
        ("tiny-qwen3", {"num_attention_heads": 0}, r"config.json: 'num_attention_heads' is 0, expected a whole number of 1"),
        ("tiny-qwen3", {"num_attention_heads": 3}, r"has the shape .* expected .* by config.json"),
        ("tiny-qwen3", {"num_key_value_heads": 10**6}, r"has the shape .* expected .* by config.json"),
        ("tiny-qwen3", {"hidden_size": "big"}, r"'hidden_size' is 'big', expected a whole number"),
        ("tiny-qwen3", {"hidden_size": True}, r"'hidden_size' is True"),
        ("tiny-qwen3", {"hidden_size": 1.5}, r"'hidden_size' is 1.5"),
        ("tiny-qwen3", {"hidden_size": 2**31}, r"'hidden_size' is 2147483648"),
        ("tiny-qwen3", {"vocab_size": -1}, r"'vocab_size' is -1"),
        ("tiny-qwen3", {"vocab_size": 513}, r"embed_tokens.weight has the shape \(512, 128\), config.json says \(513, 128\)"),
        ("tiny-qwen3", {"rms_norm_eps": "1e-6"}, r"'rms_norm_eps' is '1e-6', expected a finite number"),
        ("tiny-qwen3", {"rope_theta": 1e300}, r"'rope_theta' is 1e\+300"),
        ("tiny-qwen3", {"rope_scaling": [1]}, r"'rope_scaling' is \[1\], expected an object"),
        ("tiny-qwen3", {"rope_scaling": {"type": "ntk"}}, r"type 'ntk' cannot be described in a GGUF file.*--arch generic"),
        ("tiny-qwen3", {"rope_scaling": {"type": "linear"}}, r"in 'rope_scaling': 'factor' is missing"),
        ("tiny-qwen3", {"hidden_act": "relu"}, r"'hidden_act' 'relu' cannot be described"),
        ("tiny-qwen3", {"model_type": "nosuch"}, r"'model_type' is 'nosuch', expected one of gemma, .*--arch generic"),
        ("tiny-qwen3", {"model_type": 7}, r"'model_type' is 7, expected a string"),
        ("tiny-qwen3", {"model_type": "gpt2"}, r"says|missing|no tensor of a gpt2 model"),
        ("tiny-qwen3", {"quantization_config": {"quant_method": "bitsandbytes"}}, r"quantized already \(quant_method 'bitsandbytes'\)"),
        ("tiny-qwen3", {"head_dim": [[[[[[[[1]]]]]]]]}, r"'head_dim' is \[+\.\.\.\]+,"),
        ("tiny-qwen2moe", {"num_experts": 9}, r"block 0 has 24 tensors of experts, expected those of 9"),
        ("tiny-qwen2moe", {"num_experts": 7}, r"an expert's tensor; expected weights of 7 experts"),
        ("tiny-qwen2moe", {"num_experts": 10**9}, r"expected those of 1000000000"),
        ("tiny-gemma3-7l", {"layer_types": ["full_attention"]}, r"'layer_types' .* expected a list of 7"),
        ("tiny-gemma3-7l", {"layer_types": ["chunked_attention"] * 7}, r"'layer_types' .* 'sliding_attention'"),
        ("tiny-gpt2", {"scale_attn_by_inverse_layer_idx": True}, r"'scale_attn_by_inverse_layer_idx' 'True' cannot be described"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(name: str, config: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises((qr.FormatError, qr.InputError), match=message):
        assembled(golden_folder(name, tmp_path, **config))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested too deeply"),
        ("{", "expected JSON"),
        ("[]", "expected an object"),
        ('{"a": NaN}', "NaN"),
        ('{"a": ' + "9" * 10_000 + "}", "expected JSON"),
        ('{"a": "' + "x" * (5 << 20) + '"}', "more than"),
    ],
)
def test_a_configuration_that_is_no_plain_json_is_refused(text: str, message: str, tmp_path: Path) -> None:
    folder = golden_folder("tiny-qwen3", tmp_path)
    (folder / "config.json").write_text(text)
    with pytest.raises(qr.FormatError, match=message):
        Folder.open(folder)


@pytest.mark.parametrize(
    "shard", ["../outside.safetensors", "/etc/x.safetensors", "a/b.safetensors", "..\\x.safetensors", "model.bin", 7, ""]
)
def test_an_index_names_plain_files_of_its_folder(shard: object, tmp_path: Path) -> None:
    folder = golden_folder("tiny-qwen3", tmp_path)
    (folder / INDEX).write_text(json.dumps({"weight_map": {"model.norm.weight": shard}}))
    with pytest.raises(qr.FormatError, match="expected the plain name"):
        Folder.open(folder)


def test_an_index_whose_shard_is_missing_names_it(tmp_path: Path) -> None:
    folder = golden_folder("tiny-qwen2", tmp_path)
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(qr.FileError, match=r"'model-00002-of-00003.safetensors' is not in the folder \(1 of 3 missing\)"):
        Folder.open(folder)


def test_an_index_that_places_a_tensor_in_the_wrong_shard_is_refused(tmp_path: Path) -> None:
    folder = golden_folder("tiny-qwen2", tmp_path)
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"]["lm_head.weight"] = "model-00001-of-00003.safetensors"
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(qr.FormatError, match=r"'lm_head.weight' is said to be in model-00001.*does not hold it"):
        Folder.open(folder)


def test_a_tensor_that_two_files_hold_is_refused(tmp_path: Path) -> None:
    for name in ("model-a.safetensors", "model-b.safetensors"):
        write_safetensors(tmp_path / name, {"w": np.ones((2, 2), np.float32)})
    with pytest.raises(qr.FormatError, match=r"model-b.safetensors: tensor 'w' is also in .*model-a"):
        Folder.open(tmp_path)


def test_pickles_are_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02.")
    with pytest.raises(qr.InputError, match=r"pytorch_model.bin is a pickle.*safetensors.torch.save_file"):
        Folder.open(tmp_path)


def test_an_adapter_is_no_model(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "adapter_model.safetensors", {"w": np.ones((2, 2), np.float32)})
    with pytest.raises(qr.InputError, match=r"is an adapter, not a model.*--lora"):
        Folder.open(tmp_path)


def test_a_folder_without_weights_or_none_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(qr.InputError, match=r"no \*\.safetensors"):
        Folder.open(tmp_path)
    with pytest.raises(qr.FileError, match="not a folder"):
        Folder.open(tmp_path / "nothing")


def with_tensors(tmp_path: Path, **changes: np.ndarray | None) -> Path:
    """A folder whose tensors of float32 are those of tiny-granite, with some replaced, added or left out."""
    folder = golden_folder("tiny-granite", tmp_path)
    arrays = {name: np.zeros(tensor.shape, np.float32) for name, tensor in Folder.open(folder).tensors.items()}
    arrays |= {name: array for name, array in changes.items() if array is not None}
    write_safetensors(folder / "model.safetensors", {n: a for n, a in arrays.items() if n not in changes or changes[n] is not None})
    return folder


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("model.norm.weight", None, "no tensor model.norm.weight; the checkpoint is incomplete"),
        ("model.embed_tokens.weight", None, "no tensor model.embed_tokens.weight"),
        ("model.layers.1.mlp.up_proj.weight", None, "no tensor model.layers.1.mlp.up_proj.weight"),
        ("model.layers.0.mlp.extra.weight", np.zeros((2, 2), np.float32), "no tensor of a granite model has this name"),
        ("model.layers.0.mlp.up_proj.weight_scale", np.zeros((2, 2), np.float32), "no tensor of a granite model has this name"),
        ("model.norm.weight", np.zeros((1, 128), np.float32), r"has the shape \(1, 128\), expected 1 axes"),
        ("model.layers.0.mlp.up_proj.weight", np.zeros((2, 2, 2), np.float32), r"expected 2 axes"),
    ],
)
def test_tensors_that_are_missing_left_over_or_of_another_shape_are_named(
    name: str, array: np.ndarray | None, message: str, tmp_path: Path
) -> None:
    with pytest.raises((qr.FormatError, qr.InputError), match=message):
        assembled(with_tensors(tmp_path, **{name: array}))


def test_buffers_that_old_checkpoints_hold_are_left_out(tmp_path: Path) -> None:
    folder = with_tensors(tmp_path, **{"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(16, np.float32)})
    assert not [tensor for tensor in assembled(folder).tensors if "rotary" in tensor.name]


def test_generic_keeps_names_and_records_shapes_that_gguf_cannot_have(tmp_path: Path) -> None:
    arrays = {"blocks.0.conv": (6, 5, 4, 3, 2), "lin.weight": (128, 64), "scale": (5,), "scalar": ()}
    write_safetensors(tmp_path / "model.safetensors", {name: np.ones(shape, np.float32) for name, shape in arrays.items()})
    gguf = assemble(Folder.open(tmp_path), arch="generic")
    assert {t.name: t.dims for t in gguf.tensors} == {
        "blocks.0.conv": (2, 3, 4, 30),
        "lin.weight": (64, 128),
        "scale": (5,),
        "scalar": (1,),
    }
    assert gguf.get("quantrs.original_shape.blocks.0.conv") == [6, 5, 4, 3, 2]
    assert gguf.get("general.architecture") == "generic"


def test_generic_refuses_names_that_gguf_cannot_hold(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "model.safetensors", {"x" * 64: np.ones((2, 2), np.float32)})
    with pytest.raises(qr.InputError, match="the name has 64 bytes, GGUF holds 63"):
        assemble(Folder.open(tmp_path), arch="generic")


def test_an_architecture_that_is_not_generic_cannot_be_asked_for(tmp_path: Path) -> None:
    with pytest.raises(qr.InputError, match="--arch llama: expected generic"):
        assemble(Folder.open(golden_folder("tiny-llama", tmp_path)), arch="llama")
