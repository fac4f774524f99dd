"""The model that is to become a quantized folder: its tensors under Hugging Face's names, its configuration, and the files beside them."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quantrs.errors import InputError
from quantrs.huggingface.carried import carried
from quantrs.huggingface.disassemble import disassemble
from quantrs.huggingface.folder import Folder
from quantrs.huggingface.output_folder import json_bytes
from quantrs.open_model import open_model
from quantrs.schemes import FLOATS, is_quantized
from quantrs.tokenization.to_huggingface import tokenizer_files

if TYPE_CHECKING:
    from quantrs._native import Gguf, TensorInfo

__all__ = ["HfModel", "is_packed"]


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
        small["generation_config.json"] = json_bytes(generation)
    shapes = {tensor.name: tuple(reversed(tensor.dims)) for tensor in model.tensors}
    return HfModel(path, model, shapes, config, small, gguf, "")


def _of_folder(folder: Folder, arch: str | None) -> HfModel:
    gguf, why_not = _to_run(folder) if arch is None else (None, "--arch generic was asked for")
    found = carried(folder)
    return HfModel(str(folder.path), found.tensors, found.shapes, found.config, found.small_files, gguf, why_not)


def _to_run(folder: Folder) -> "tuple[Gguf | None, str]":
    """The model as the engine reads it; only a family that is not known is no error here."""
    from quantrs.huggingface.assemble import assemble

    try:
        return assemble(folder, to_run=True), ""
    except InputError as error:
        why_not = str(error)
    try:  # token ids will do for calibration
        return assemble(folder, with_tokenizer=False), ""
    except InputError:
        return None, why_not
