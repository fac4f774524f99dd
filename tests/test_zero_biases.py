"""Biases that AutoGPTQ writes where the model has none."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import ml_dtypes  # noqa: F401 - safetensors reads bfloat16 through it
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import quantrs as qr
from family_models import MODELS
from quantrs import _native
from quantrs.errors import FormatError
from quantrs.huggingface import Folder, assemble
from quantrs.huggingface.quantized import with_linears


def with_biases(tmp_path: Path, model: str, value: float) -> Path:
    """The model in GPTQ's format, with a bias of this value for every linear that has none, and for the last query."""
    (tmp_path / "m.gguf").write_bytes(MODELS[model].to_bytes())
    qr.quantize_checkpoint(tmp_path / "m.gguf", tmp_path / "gptq", scheme="gptq-w4-g32", method="rtn")
    shutil.copytree(tmp_path / "gptq", tmp_path / "biased")
    path = tmp_path / "biased" / "model.safetensors"
    tensors = load_file(path)
    for name in [name for name in tensors if name.endswith(".qweight")]:
        bias = name.replace(".qweight", ".bias")
        if bias not in tensors or name.startswith("model.layers.1.self_attn.q_proj"):
            tensors[bias] = np.full(tensors[name].shape[1], value, np.float16)
    save_file(tensors, path, metadata={"format": "pt"})
    return path.parent


def opened(folder: Path) -> _native.Gguf:
    return assemble(Folder.open(folder), with_tokenizer=False)


@pytest.mark.parametrize(("model", "n_biases"), [("llama", 0), ("qwen2", 6)])
def test_zeros_are_left_out_where_the_model_has_no_bias(model: str, n_biases: int, tmp_path: Path) -> None:
    folder = with_biases(tmp_path, model, 0)
    names = [tensor.name for tensor in opened(folder).tensors]
    assert len([name for name in names if name.endswith(".bias")]) == n_biases
    if not n_biases:
        assert names == [tensor.name for tensor in opened(tmp_path / "gptq").tensors]
    assert len([name for name in with_linears(Folder.open(folder)).tensors if name.endswith(".bias")]) == n_biases


def test_a_bias_that_is_not_zero_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"layers\.0\..*\.bias is not zero, but llama has no bias there"):
        opened(with_biases(tmp_path, "llama", 1e-3))


def test_biases_of_a_gguf_file_stand_in_the_configuration(tmp_path: Path) -> None:
    """Or a quantized folder of it could not be read again, and transformers would leave them out."""
    model = MODELS["llama_rope_factors"]
    biases = {name: shape for name, shape in model.shapes.items() if name.endswith(".bias")}
    assert biases
    plain = replace(MODELS["llama"], shapes=MODELS["llama"].shapes | biases)
    (tmp_path / "m.gguf").write_bytes(plain.to_bytes())
    qr.quantize_checkpoint(tmp_path / "m.gguf", tmp_path / "gptq", scheme="gptq-w4-g32", method="rtn")
    config = json.loads((tmp_path / "gptq" / "config.json").read_text())
    assert config["attention_bias"] is True
    assert len([tensor for tensor in opened(tmp_path / "gptq").tensors if tensor.name.endswith(".bias")]) == len(biases)
