"""Checkpoint folders for tests: the golden ones, changed at will, and files written from arrays."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from conftest import GOLDEN
from quantrs import _native
from quantrs.huggingface import Folder, assemble

HF, HF_GGUF = GOLDEN / "hf", GOLDEN / "hf-gguf"
NAMES = sorted(path.stem for path in HF_GGUF.iterdir())
WITH_WEIGHTS = [name for name in NAMES if (HF / name / "model.safetensors").exists()]

# Their tokenizers were converted by a path that the reference converter was forced into.
TOY_TOKENIZERS = {"tiny-phi3", "tiny-gemma2", "tiny-gemma3-7l", "tiny-qwen2", "tiny-qwen2-yarn"}


def golden_folder(name: str, tmp_path: Path, *, without: tuple[str, ...] = (), **config: object) -> Path:
    """A copy of a golden folder with other settings; weights of which the header alone is stored are zeros."""
    folder = tmp_path / name
    folder.mkdir()
    for path in (HF / name).iterdir():
        if path.suffix != ".header":
            shutil.copy(path, folder / path.name)
            continue
        header = json.loads(path.read_bytes()[8:])
        end = max(entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__")
        with (folder / path.with_suffix(".safetensors").name).open("wb") as file:
            file.write(path.read_bytes())
            file.truncate(path.stat().st_size + end)
    if config or without:
        kept = json.loads((folder / "config.json").read_text()) | config
        (folder / "config.json").write_text(json.dumps({key: value for key, value in kept.items() if key not in without}))
    return folder


def assembled(folder: Path) -> _native.Gguf:
    """As the commands open it."""
    return assemble(Folder.open(folder), pre="llama-bpe")


def values(gguf: _native.Gguf) -> dict[str, NDArray[np.float32]]:
    """Every tensor in float32, flat."""
    import ml_dtypes

    kinds = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype(ml_dtypes.bfloat16)}
    sources = _native.Sources(gguf)
    return {t.name: np.frombuffer(sources.read(t), kinds[str(t.type_name)]).astype(np.float32) for t in gguf.tensors}


def write_safetensors(path: Path, arrays: Mapping[str, NDArray[np.float32]]) -> None:
    """A file of float32."""
    header, offsets = _native.safetensors_header([(name, "F32", array.shape) for name, array in arrays.items()], {})
    with path.open("wb") as file:
        file.write(header)
        for array, offset in zip(arrays.values(), offsets, strict=True):
            file.seek(offset)
            file.write(array.astype("<f4").tobytes())


def write_gguf(path: Path, gguf: _native.Gguf) -> None:
    """An assembled model as a file of float32."""
    header, data = gguf.header(), values(gguf)
    offsets = [header.add_tensor(tensor.name, tensor.dims, "F32") for tensor in gguf.tensors]
    head = header.to_bytes()
    raw = bytearray(head) + bytes(header.data_len)
    for tensor, offset in zip(gguf.tensors, offsets, strict=True):
        at = len(head) + offset
        raw[at : at + 4 * len(data[tensor.name])] = data[tensor.name].astype("<f4").tobytes()
    path.write_bytes(raw)
