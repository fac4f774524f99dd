"""From weights in memory to a GGUF file: for programs that have just trained a model."""

import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantrs.errors import InputError
from quantrs.huggingface.assemble import assemble
from quantrs.huggingface.config import Config
from quantrs.huggingface.folder import Folder, HfTensor, Memory
from quantrs.options import QuantizeOptions
from quantrs.pipeline import write_gguf
from quantrs.progress import Watcher

if TYPE_CHECKING:
    import os

    import numpy as np
    from numpy.typing import NDArray

    from quantrs.report import Report

__all__ = ["export_gguf"]

_DTYPES = {
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "float64": "F64",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "int8": "I8",
    "uint8": "U8",
    "int16": "I16",
    "int32": "I32",
    "int64": "I64",
}


def export_gguf(
    state: "Mapping[str, object] | Iterable[tuple[str, object]]",
    config: Mapping[str, object],
    tokenizer_dir: "str | os.PathLike[str]",
    path: "str | os.PathLike[str]",
    *,
    scheme: str,
    pre: str | None = None,
    arch: str | None = None,
    imatrix: "str | os.PathLike[str] | None" = None,
    threads: int | None = None,
    force: bool = False,
    measure: bool = False,
    watcher: Watcher | None = None,
) -> "Report":
    """Quantize weights that are in memory into a GGUF file; the same bytes as quantizing the saved checkpoint.

    Parameters
    ----------
    state : mapping or iterable of (str, array)
        Weights by their Hugging Face names, ``[out_features, in_features]``: NumPy arrays (`ml_dtypes` included), or anything with
        ``__array__`` or ``__dlpack__``, such as a torch tensor on the CPU. They are read where they lie and must not change meanwhile;
        those that are not contiguous are copied. Of tied weights either both or one may be there.
    config : mapping
        What ``config.json`` holds, such as ``model.config.to_dict()``.
    tokenizer_dir : path-like
        Folder with ``tokenizer.json`` or its like; it also gives the model its name.
    path : path-like
        File to write. Nothing has this name before it is whole.
    scheme : str
        File type: ``"Q4_K_M"``, ``"BF16"`` ...
    pre, arch, imatrix, threads, force, measure, watcher
        As `quantize_checkpoint` takes them.

    Returns
    -------
    Report

    Raises
    ------
    UsageError, InputError, FormatError
        The job cannot be done; nothing is left behind.
    FileError
        Writing failed.
    """
    started = time.perf_counter()
    folder = _folder(state, config, Path(tokenizer_dir))
    source = assemble(folder, pre=pre, arch=arch)
    options = QuantizeOptions(to=scheme, imatrix=None if imatrix is None else str(imatrix), pre=pre, arch=arch)
    return write_gguf(
        source,
        Path(path),
        options,
        started=started,
        threads=threads,
        force=force,
        resume=False,
        measure=measure,
        watcher=watcher or Watcher(),
    )


def _folder(state: "Mapping[str, object] | Iterable[tuple[str, object]]", config: Mapping[str, object], tokenizer_dir: Path) -> Folder:
    if not tokenizer_dir.is_dir():
        raise InputError(f"{tokenizer_dir}: is no folder; expected one with the model's tokenizer.json")
    arrays = dict(state)
    if config.get("tie_word_embeddings") is True and "model.embed_tokens.weight" in arrays:
        arrays.pop("lm_head.weight", None)
    tensors: dict[str, HfTensor] = {}
    sources: list[str | Memory] = []
    for name, value in arrays.items():
        if not isinstance(name, str):
            raise InputError(f"state: found the name {name!r}, expected text")
        array, dtype = _array(name, value)
        tensors[name] = HfTensor(name, dtype, array.shape, len(sources), 0, array.nbytes)
        sources.append((name, array.reshape(-1).view("u1")))
    if not tensors:
        raise InputError("state: found no weights, expected a mapping of names and arrays")
    return Folder(tokenizer_dir, tensors, sources, Config(config, "config"))


def _array(name: str, value: object) -> "tuple[NDArray[np.generic], str]":
    """The values, contiguous, and the type that safetensors calls them."""
    import numpy as np

    torch = sys.modules.get("torch")  # whoever holds such a tensor has imported it
    if torch is not None and isinstance(value, torch.Tensor):
        tensor: Any = value
        tensor = tensor.detach().cpu().contiguous()
        dtype = str(tensor.dtype).removeprefix("torch.")
        if dtype in ("bfloat16", "float8_e4m3fn", "float8_e5m2"):  # NumPy has no such types
            tensor = tensor.view(torch.uint16 if dtype == "bfloat16" else torch.uint8)
        array = tensor.numpy()
    else:
        array = _numpy(name, value)
        dtype = array.dtype.name
    if dtype not in _DTYPES or array.dtype.byteorder == ">":
        raise InputError(f"{name}: found an array of {array.dtype}, expected one of {', '.join(_DTYPES)}")
    return np.ascontiguousarray(array).reshape(array.shape), _DTYPES[dtype]


def _numpy(name: str, value: object) -> "NDArray[np.generic]":
    import numpy as np

    if isinstance(value, np.ndarray):
        return value
    try:
        if hasattr(value, "__array__"):
            return np.asarray(value)
        if hasattr(value, "__dlpack__"):
            return np.from_dlpack(value)
    except (TypeError, ValueError, BufferError, RuntimeError) as error:
        raise InputError(f"{name}: cannot be read as an array: {error}") from error
    raise InputError(f"{name}: found {type(value).__name__}, expected an array or something with __array__ or __dlpack__")
