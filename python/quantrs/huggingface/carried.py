"""What goes from one checkpoint folder into another: its tensors where they lie, its settings, and the files beside the weights."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantrs import _native
from quantrs.errors import FileError, InputError
from quantrs.huggingface.quantized import with_linears
from quantrs.huggingface.stored_types import FLOAT_TYPES
from quantrs.tokenization.bounded_json import read_object

if TYPE_CHECKING:
    from quantrs._native import AssembledTensor, Gguf
    from quantrs.huggingface.folder import Folder, HfTensor

__all__ = ["Carried", "carried"]

_MAX_SMALL_BYTES = 256 << 20
_SMALL_FILES = ("*.json", "*.jinja", "*.model", "*.txt", "*.py", "LICENSE*", "README.md")
_OF_WEIGHTS = ("config.json", "quantize_config.json", "quant_config.json", "recipe.yaml")
_OF_QUANTIZATION = ("quantization_config", "compression_config")
_INTEGERS = ("I8", "I16", "I32", "I64", "F64")


@dataclass(frozen=True)
class Carried:
    """A folder, ready to be written as another; of tensors only where they lie is known."""

    tensors: "Gguf"
    """All under their names, row length first; a quantized linear is its weight."""
    shapes: Mapping[str, tuple[int, ...]]
    """As safetensors has them, outermost axis first."""
    config: dict[str, object]
    """``config.json`` without anything about quantization; empty if there is none."""
    small_files: Mapping[str, bytes]
    """Tokenizer, generation settings and the like, by name."""


def carried(folder: "Folder") -> Carried:
    """Look at the folder; only the small files are read.

    Raises
    ------
    InputError
        A tensor is of a type that is not copied, or a file beside the weights is very large.
    FormatError
        The quantized layers contradict their configuration.
    FileError
        A file cannot be read.
    """
    folder = with_linears(folder)
    found = {name: tensor for name, tensor in folder.tensors.items() if 0 not in tensor.shape}
    tensors = [_as_it_lies(folder, tensor) for tensor in found.values()]
    path = folder.path / "config.json"
    config = read_object(path, _MAX_SMALL_BYTES) if path.is_file() else {}
    return Carried(
        tensors=_native.Gguf.assembled(_native.GgufHeader.new(), list(folder.sources), tensors),
        shapes={name: tensor.shape for name, tensor in found.items()},
        config={key: value for key, value in config.items() if key not in _OF_QUANTIZATION},
        small_files=_small_files(folder),
    )


def _as_it_lies(folder: "Folder", tensor: "HfTensor") -> "AssembledTensor":
    type_name = FLOAT_TYPES.get(tensor.dtype, tensor.dtype if tensor.dtype in _INTEGERS else None)
    if type_name is None:
        raise InputError(
            f"{folder.path}: {tensor.name}: is of {tensor.dtype}, expected one of {', '.join((*FLOAT_TYPES, *_INTEGERS))}; "
            "leave it out of the checkpoint"
        )
    dims = tuple(reversed(tensor.shape)) or (1,)
    return _native.AssembledTensor(tensor.name, dims, type_name, [tensor.part(math.prod(dims[1:]))])


def _small_files(folder: "Folder") -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for path in (path for pattern in _SMALL_FILES for path in sorted(folder.path.glob(pattern))):
        if not path.is_file() or path.name in _OF_WEIGHTS or path.name.endswith(".safetensors.index.json"):
            continue
        try:
            if path.stat().st_size > _MAX_SMALL_BYTES:
                raise InputError(f"{path}: has {path.stat().st_size} bytes, expected at most {_MAX_SMALL_BYTES}; move it away")
            found[path.name] = path.read_bytes()
        except OSError as error:
            raise FileError(f"{path}: {error.strerror or error}") from error
    return found
