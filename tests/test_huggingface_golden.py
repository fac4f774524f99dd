"""Checkpoint folders become what the reference converter makes of them, and come back as they were."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from huggingface_folders import HF, HF_GGUF, NAMES, TOY_TOKENIZERS, WITH_WEIGHTS, assembled, golden_folder, values, write_gguf
from quantrs import _native
from quantrs.huggingface import Folder, disassemble

SHORT = {"uint32": "u32", "int32": "i32", "float32": "f32", "bool": "bool", "string": "string"}

# Written by us alone: the reference converter drops it, and with it the window.
OURS = {"tiny-mistral": {"llama.attention.sliding_window"}}

# Differs by design: what the matrices are (the golden files are all float32), a name that was made up for the conversion.
NOT_COMPARED = {"general.file_type", "tokenizer.ggml.pre"}

# config.json says these of training, of how to run, or of defaults that the model does not use.
NOT_OF_THE_MODEL = {
    "attention_bias", "attention_dropout", "attn_pdrop", "cache_implementation", "embd_pdrop", "initializer_range", "max_window_layers",
    "mlp_bias", "n_ctx", "n_inner", "output_router_logits", "pretraining_tp", "qkv_bias", "reorder_and_upcast_attn", "resid_pdrop",
    "router_aux_loss_coef", "router_jitter_noise", "summary_activation", "summary_first_dropout", "summary_proj_to_labels",
    "summary_type", "summary_use_proj", "torch_dtype", "transformers_version",
}  # fmt: skip


def golden(name: str) -> dict:
    return json.loads((HF_GGUF / f"{name}.json").read_text())


def as_file(name: str, tmp_path: Path) -> _native.Gguf:
    write_gguf(tmp_path / "model.gguf", assembled(golden_folder(name, tmp_path)))
    return _native.Gguf.open(tmp_path / "model.gguf")


@pytest.mark.parametrize("name", NAMES)
def test_keys_values_types_and_order_are_those_of_the_reference_converter(name: str, tmp_path: Path) -> None:
    gguf = assembled(golden_folder(name, tmp_path))
    want = golden(name)["keys"]
    skipped = NOT_COMPARED | ({"general.name"} | {k for k in want if k.startswith("tokenizer.")} if name in TOY_TOKENIZERS else set())
    for key, (kind, value) in want.items():
        if key not in skipped:
            outer, _, inner = kind.partition("/")
            assert gguf.value_type(key) == (f"array[{SHORT[inner]}]" if inner else SHORT[outer]), key
            assert gguf.get(key) == value, key
    compared = [key for key in want if key not in skipped]
    assert [key for key in gguf.keys() if key in compared] == compared
    assert {k for k in gguf.keys() if not k.startswith("tokenizer.")} - set(want) == OURS.get(name, set())


@pytest.mark.parametrize("name", NAMES)
def test_tensor_names_shapes_and_order_are_those_of_the_reference_converter(name: str, tmp_path: Path) -> None:
    gguf = assembled(golden_folder(name, tmp_path))
    assert [[t.name, list(t.dims)] for t in gguf.tensors] == [[tensor, dims] for tensor, _, dims, _ in golden(name)["tensors"]]


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_tensor_bytes_are_those_of_the_reference_converter(name: str, tmp_path: Path) -> None:
    data = values(assembled(golden_folder(name, tmp_path)))
    for tensor, _, _, sha256 in golden(name)["tensors"]:
        assert hashlib.sha256(data[tensor].astype("<f4").tobytes()).hexdigest() == sha256, tensor


@pytest.mark.parametrize("name", NAMES)
def test_vectors_and_routers_are_float32_and_matrices_as_they_are_stored(name: str, tmp_path: Path) -> None:
    folder = golden_folder(name, tmp_path)
    stored = {"BF16", "F16", "F32"} & {tensor.dtype for tensor in Folder.open(folder).tensors.values()}
    for tensor in assembled(folder).tensors:
        exact = len(tensor.dims) == 1 or "ffn_gate_inp" in tensor.name or tensor.name == "position_embd.weight"
        assert tensor.type_name in ({"F32"} if exact else stored), tensor.name


@pytest.mark.parametrize("name", NAMES)
def test_a_file_goes_back_to_the_names_shapes_and_settings_of_its_folder(name: str, tmp_path: Path) -> None:
    model, config, _ = disassemble(as_file(name, tmp_path), dtype="F32")
    folder = Folder.open(tmp_path / name)
    assert {t.name: tuple(reversed(t.dims)) for t in model.tensors} == {n: t.shape for n, t in folder.tensors.items()}
    want = {key: value for key, value in folder.config.values.items() if value is not None and key not in NOT_OF_THE_MODEL}
    if not want.get("use_sliding_window", True):
        del want["sliding_window" if "sliding_window" in want else "use_sliding_window"]
    assert {key: config.get(key) for key in want} == want


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_a_file_goes_back_to_the_values_of_its_folder(name: str, tmp_path: Path) -> None:
    data = values(disassemble(as_file(name, tmp_path), dtype="F32").model)
    folder = Folder.open(HF / name)
    for tensor in folder.tensors.values():
        raw = (HF / name / "model.safetensors").read_bytes()[tensor.offset : tensor.offset + tensor.nbytes]
        want = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)  # bfloat16
        assert np.array_equal(data[tensor.name], want), tensor.name


def test_the_norms_of_gemma_have_their_1_in_the_file_and_not_in_the_folder(tmp_path: Path) -> None:
    gguf = as_file("tiny-gemma2", tmp_path)  # of zeros
    norms = {name: data for name, data in values(gguf).items() if name.endswith("_norm.weight")}
    assert len(norms) == 3 * 4 + 1
    assert all(np.array_equal(data, np.ones_like(data)) for data in norms.values())
    assert not any(data.any() for data in values(disassemble(gguf, dtype="F32").model).values())


def test_a_mistral_folder_keeps_its_window_both_ways(tmp_path: Path) -> None:
    config = disassemble(as_file("tiny-mistral", tmp_path), dtype="F16").config
    assert (config["model_type"], config["sliding_window"], config["torch_dtype"]) == ("mistral", 8, "float16")
