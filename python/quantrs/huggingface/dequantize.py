"""A quantized checkpoint folder written as one of floats: every linear decoded, everything else as it was."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

from quantrs import _native
from quantrs.errors import FileError, InputError
from quantrs.huggingface.folder import Folder
from quantrs.huggingface.output_folder import json_bytes
from quantrs.huggingface.quantized import with_linears
from quantrs.huggingface.stored_types import FLOAT_TYPES
from quantrs.huggingface.write_folder import write_tensors
from quantrs.tokenization.bounded_json import read_object

if TYPE_CHECKING:
    from quantrs.progress import Watcher
    from quantrs.report import Report

__all__ = ["write_dequantized"]

_SMALL_FILES = ("*.json", "*.jinja", "*.txt", "*.model")
_OF_WEIGHTS = ("config.json", "quantize_config.json", "quant_config.json")
_MAX_SMALL_BYTES = 256 << 20
_TORCH_TYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_WHOLE = ("I8", "I16", "I32", "I64", "F64")


def write_dequantized(
    src: Path,
    dst: Path,
    *,
    to: str,
    max_shard_bytes: int,
    started: float,
    threads: int | None,
    force: bool,
    resume: bool,
    watcher: "Watcher",
) -> "Report":
    """Write the folder `src` with its matrices as `to` and without ``quantization_config``; `Report.errors` tells what that loses.

    Raises
    ------
    InputError, FormatError, FileError
        As `quantrs.conversion.convert`.
    """
    folder = with_linears(Folder.open(src))
    values = read_object(src / "config.json", _MAX_SMALL_BYTES)
    settings = {key: value for key, value in values.items() if key not in ("quantization_config", "compression_config")}
    settings["dtype" if "dtype" in settings else "torch_dtype"] = _TORCH_TYPES[to]
    tensors = []
    for tensor in folder.tensors.values():
        type_name = FLOAT_TYPES.get(tensor.dtype) or (tensor.dtype if tensor.dtype in _WHOLE else None)
        if type_name is None or 0 in tensor.shape:
            raise InputError(f"{src}: {tensor.name} is {tensor.dtype} of shape {tensor.shape}, which cannot be copied; leave it out")
        dims = tuple(reversed(tensor.shape)) or (1,)
        tensors.append(_native.AssembledTensor(tensor.name, dims, type_name, [tensor.part(math.prod(dims[1:]))]))
    model = _native.Gguf.assembled(_native.GgufHeader.new(), list(folder.sources), tensors)
    return write_tensors(
        model,
        {"config.json": json_bytes(settings), **_small_files(src)},
        dst,
        to=to,
        max_shard_bytes=max_shard_bytes,
        sources=model.files,
        started=started,
        threads=threads,
        force=force,
        resume=resume,
        watcher=watcher,
        measure=True,
    )


def _small_files(src: Path) -> dict[str, bytes]:
    """Tokenizer, generation settings and the like, as they are."""
    found = {}
    paths = sorted(path for pattern in _SMALL_FILES for path in src.glob(pattern) if path.is_file())
    for path in paths:
        if path.name in _OF_WEIGHTS or path.name.endswith(".safetensors.index.json"):
            continue
        try:
            if path.stat().st_size <= _MAX_SMALL_BYTES:
                found[path.name] = path.read_bytes()
        except OSError as error:
            raise FileError(f"{path}: {error.strerror or error}") from error
    return found
