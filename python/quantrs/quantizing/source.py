"""The model that is to become a quantized folder: its tensors under Hugging Face's names, its configuration, and the files beside them."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quantrs import _native
from quantrs.errors import FileError, InputError
from quantrs.huggingface.disassemble import disassemble
from quantrs.huggingface.folder import Folder
from quantrs.huggingface.quantized import with_linears
from quantrs.huggingface.stored_types import FLOAT_TYPES
from quantrs.open_model import open_model
from quantrs.schemes import FLOATS, is_quantized
from quantrs.tokenization.bounded_json import read_object
from quantrs.tokenization.to_huggingface import tokenizer_files

if TYPE_CHECKING:
    from quantrs._native import AssembledTensor, Gguf, TensorInfo

__all__ = ["HfModel", "is_packed"]

_MAX_SMALL_BYTES = 64 << 20
_SMALL_FILES = ("*.json", "*.jinja", "*.model", "*.txt", "*.py", "LICENSE*", "README.md")
_NOT_CARRIED = ("config.json", "quantize_config.json", "quant_config.json", "recipe.yaml")
_INTEGERS = ("I8", "I16", "I32", "I64", "F64")


@dataclass(frozen=True)
class HfModel:
    """An open model; of tensors only where they lie is known."""

    path: str
    tensors: "Gguf"
    """All tensors under their names in the folder to be, row length first; of floats, or of whole numbers that are copied."""
    shapes: Mapping[str, tuple[int, ...]]
    """As safetensors has them, outermost axis first."""
    config: dict[str, object]
    """For ``config.json``, without anything about quantization."""
    small_files: Mapping[str, bytes]
    """Tokenizer and the like, by name."""
    gguf: "Gguf | None"
    """The same under GGUF's names, to be run; None where the family is not known."""
    why_not: str
    """Why there is no `gguf`."""

    @property
    def dtype(self) -> str:
        """The type that most weights have: ``BF16``, ``F16`` or ``F32``; ``F16`` where they are quantized."""
        counts = dict.fromkeys(FLOATS, 0)
        for tensor in self.tensors.tensors:
            if len(tensor.dims) > 1 and not is_packed(tensor):
                counts[tensor.type_name if tensor.type_name in FLOATS else "F16"] += tensor.nbytes
        return max(counts, key=lambda name: counts[name])

    @property
    def quantized(self) -> "TensorInfo | None":
        """The first tensor that has lost something already."""
        return next((tensor for tensor in self.tensors.tensors if is_packed(tensor) or is_quantized(tensor.type_name or "")), None)

    @staticmethod
    def open(path: str, *, pre: str | None = None, arch: str | None = None) -> "HfModel":
        """Open a GGUF file or a checkpoint folder.

        Raises
        ------
        FileError, FormatError, InputError
            As `quantrs.open_model.open_model`; or a tensor is of a type that no folder holds.
        """
        if os.path.isdir(path):  # noqa: PTH112 - a Path raises for names that are too long
            return _of_folder(Folder.open(path), arch)
        gguf = open_model(path, pre=pre, arch=arch)
        if gguf.is_assembled:  # of a hub's name, or of a safetensors file: its folder
            return _of_folder(Folder.open(Path(gguf.files[0]).parent), arch)
        return _of_gguf(path, gguf)


def is_packed(tensor: "TensorInfo") -> bool:
    """Its values are those of a quantized layer of a checkpoint folder."""
    return any(part.is_packed for part in tensor.parts)


def _of_gguf(path: str, gguf: "Gguf") -> HfModel:
    model, config, generation = disassemble(gguf, dtype="F16")
    small = tokenizer_files(gguf)
    if generation:
        small["generation_config.json"] = (json.dumps(generation, indent=2) + "\n").encode()
    shapes = {tensor.name: tuple(reversed(tensor.dims)) for tensor in model.tensors}
    return HfModel(path, model, shapes, config, small, gguf, "")


def _of_folder(folder: Folder, arch: str | None) -> HfModel:
    gguf, why_not = _to_run(folder) if arch is None else (None, "--arch generic was asked for")
    folder = with_linears(folder)
    tensors = [_as_it_lies(folder, name) for name, tensor in folder.tensors.items() if 0 not in tensor.shape]
    model = _native.Gguf.assembled(_native.GgufHeader.new(), list(folder.sources), tensors)
    shapes = {name: tensor.shape for name, tensor in folder.tensors.items() if 0 not in tensor.shape}
    config_path = folder.path / "config.json"
    config = read_object(config_path, _MAX_SMALL_BYTES) if config_path.is_file() else {}
    config.pop("quantization_config", None)
    return HfModel(str(folder.path), model, shapes, config, _small_files(folder), gguf, why_not)


def _to_run(folder: Folder) -> "tuple[Gguf | None, str]":
    """The model as the engine reads it; only a family that is not known is no error here."""
    from quantrs.huggingface.assemble import assemble

    try:
        return assemble(folder, to_run=True), ""
    except InputError as error:
        return None, str(error)


def _as_it_lies(folder: Folder, name: str) -> "AssembledTensor":
    tensor = folder.tensors[name]
    type_name = FLOAT_TYPES.get(tensor.dtype, tensor.dtype if tensor.dtype in _INTEGERS else None)
    if type_name is None:
        raise InputError(
            f"{folder.path}: {name}: is of {tensor.dtype}, expected one of {', '.join((*FLOAT_TYPES, *_INTEGERS))}; "
            "leave it out of the checkpoint"
        )
    dims = tuple(reversed(tensor.shape)) or (1,)
    n_rows = 1
    for size in dims[1:]:
        n_rows *= size
    return _native.AssembledTensor(name, dims, type_name, [tensor.part(n_rows)])


def _small_files(folder: Folder) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for pattern in _SMALL_FILES:
        for path in sorted(folder.path.glob(pattern)):
            if not path.is_file() or path.name in _NOT_CARRIED or path.name.endswith(".safetensors.index.json"):
                continue
            try:
                if path.stat().st_size > _MAX_SMALL_BYTES:
                    raise InputError(f"{path}: has {path.stat().st_size} bytes, expected less than {_MAX_SMALL_BYTES}; move it away")
                found[path.name] = path.read_bytes()
            except OSError as error:
                raise FileError(f"{path}: {error.strerror or error}") from error
    return found
