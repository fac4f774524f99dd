"""Folders with quantized layers for tests: the golden layers, and folders in memory made of arrays."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np

from conftest import GOLDEN
from quantrs.formats.layer import read_array
from quantrs.huggingface.config import Config
from quantrs.huggingface.folder import Folder, HfTensor

CHECKPOINTS = sorted(f"{path.parent.parent.name}/{path.parent.name}" for path in GOLDEN.glob("*/tiny_llama_*/layer.safetensors"))
LAYER = "model.layers.0.self_attn.k_proj"
"""The layer that is kept of them."""

_NAMES = {
    np.dtype(dtype): name
    for name, dtype in {
        **{"F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I8": "i1", "U8": "u1"},
        **{"BF16": ml_dtypes.bfloat16, "F8_E4M3": ml_dtypes.float8_e4m3fn},
    }.items()
}


def golden_layer(checkpoint: str) -> Folder:
    """One layer of a quantized checkpoint, with the configuration of the whole."""
    return Folder.open(GOLDEN / checkpoint)


def source_layer():
    """The weight that `LAYER` was before, bfloat16 ``[out, in]``."""
    from quantrs import _native

    path = GOLDEN / "hf" / "tiny-llama" / "model.layer"
    tensors = [
        HfTensor(name, dtype, shape, 0, offset, nbytes) for name, dtype, shape, offset, nbytes in _native.SafeTensors.open(path).tensors
    ]
    (weight,) = (tensor for tensor in tensors if tensor.name == f"{LAYER}.weight")
    return read_array(Folder(path.parent, {weight.name: weight}, [str(path)]), weight)


def memory_folder(arrays: Mapping[str, np.ndarray], config: Mapping[str, object]) -> Folder:
    """A folder of these tensors that is no folder; `config` is its ``quantization_config``."""
    tensors, parts, end = {}, [], 0
    for name, array in arrays.items():
        tensors[name] = HfTensor(name, _NAMES[array.dtype], array.shape, 0, end, array.nbytes)
        parts.append(np.ascontiguousarray(array).tobytes())
        end += array.nbytes
    data = np.frombuffer(b"".join(parts), np.uint8)
    settings = Config(json.loads(json.dumps({"quantization_config": config})), "config.json")
    return Folder(Path("folder"), tensors, [("folder", data)], settings)
