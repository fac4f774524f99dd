"""Low-rank adapters of PEFT, and their addition to the weights of a checkpoint (Hu et al. 2021, arXiv 2106.09685).

Each names weights ``w: [out_features, in_features]`` and has for each ``a: [r, in_features]`` and ``b: [out_features, r]``; the adapted
weight is ``w + scale * b @ a``.
"""

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quantrs import _native
from quantrs.errors import FileError, FormatError, InputError
from quantrs.huggingface.config import Config
from quantrs.huggingface.folder import Folder, HfTensor, Memory
from quantrs.huggingface.stored_types import FLOAT_TYPES, check_float

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Adapter", "LoraUpdate", "merged"]

_NAME = re.compile(r"(?:base_model\.model\.)?(.+)\.lora_(embedding_)?([AB])(?:\.default)?(?:\.weight)?")
_CHANGES_THE_BASE = ("pissa", "olora", "corda")
_MERGE_ELSEWHERE = "merge the adapter with PEFT and convert the result"
_MAX_CHUNK_VALUES = 8 << 20


@dataclass(frozen=True)
class LoraUpdate:
    """What is added to one weight."""

    weight: str
    """Name in the checkpoint, with ``.weight``."""
    a: HfTensor
    """``[r, in_features]``"""
    b: HfTensor
    """``[out_features, r]``"""
    scale: float
    is_transposed: bool
    """The weight is stored as ``[in_features, out_features]``."""

    @property
    def shape(self) -> tuple[int, int]:
        """Of the weight as it is stored."""
        shape = self.b.shape[0], self.a.shape[1]
        return shape[::-1] if self.is_transposed else shape


@dataclass(frozen=True)
class Adapter:
    """An open adapter folder: ``adapter_config.json`` and ``adapter_model.safetensors``."""

    path: Path
    config: Config
    file: str
    updates: tuple[LoraUpdate, ...]

    @staticmethod
    def open(path: "str | Path", *, scale: float = 1.0) -> "Adapter":
        """Read settings and headers.

        Parameters
        ----------
        path : path-like
            The adapter's folder.
        scale : float
            Multiplies what the adapter adds.

        Raises
        ------
        FileError, FormatError
            A file is missing or damaged, or the two matrices of a weight do not belong together.
        InputError
            An adapter of a kind that cannot be added to weights.
        """
        folder = Path(path)
        if not math.isfinite(scale):
            raise InputError(f"{folder}: the scale is {scale}, expected a finite number")
        file = folder / "adapter_model.safetensors"
        if not file.is_file():
            pickled = (folder / "adapter_model.bin").is_file()
            what = "only a pickle, which is never read; save the adapter as safetensors" if pickled else "not an adapter's folder"
            raise FileError(f"{folder}: no adapter_model.safetensors: {what}")
        config = Config.read(folder / "adapter_config.json")
        _check_kind(config)
        return Adapter(folder, config, str(file), _updates(file, config, scale))


def _check_kind(config: Config) -> None:
    kind = config.text("peft_type", default="LORA")
    if kind.upper() != "LORA":
        raise InputError(
            f"{config.path}: 'peft_type' is {kind[:40]!r}, expected 'LORA'; merge the adapter with PEFT and convert the result"
        )
    for name in ("use_dora", "modules_to_save", "layer_replication", "trainable_token_indices"):
        if config.get(name):
            raise InputError(
                f"{config.path}: '{name}' is set, which cannot be merged here; merge the adapter with PEFT and convert the result"
            )
    if config.text("bias", default="none") != "none":
        raise InputError(f"{config.path}: 'bias' is set, which cannot be merged here; {_MERGE_ELSEWHERE}")
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.startswith(_CHANGES_THE_BASE):
        raise InputError(f"{config.path}: 'init_lora_weights' {start[:40]!r} changes the base model too; {_MERGE_ELSEWHERE}")


def _updates(file: Path, config: Config, scale: float) -> tuple[LoraUpdate, ...]:
    pairs: dict[str, dict[str, HfTensor]] = {}
    embeddings: set[str] = set()
    for name, dtype, shape, offset, nbytes in _native.SafeTensors.open(file).tensors:
        match = _NAME.fullmatch(name)
        tensor = HfTensor(name, dtype, shape, 0, offset, nbytes)
        if match is None:
            raise InputError(f"{file}: {name}: not a matrix of a LoRA adapter; {_MERGE_ELSEWHERE}")
        check_float(tensor, f"{file}: {name}")
        if len(shape) != 2 or 0 in shape:
            raise FormatError(f"{file}: {name}: has the shape {shape}, expected a matrix")
        pairs.setdefault(match[1], {})[match[3]] = tensor
        if match[2]:
            embeddings.add(match[1])
    updates = []
    for module, pair in pairs.items():
        if len(pair) != 2:
            raise FormatError(f"{file}: {module}: has lora_{next(iter(pair))} alone, expected A and B; the file is incomplete")
        a, b = pair["A"], pair["B"]
        if a.shape[0] != b.shape[1]:
            raise FormatError(f"{file}: {module}: A is {a.shape} and B {b.shape}, expected [r, in] and [out, r] with the same r")
        is_transposed = module in embeddings or config.flag("fan_in_fan_out")
        updates.append(LoraUpdate(f"{module}.weight", a, b, scale * _scale(config, module, a.shape[0]), is_transposed))
    if not updates:
        raise FormatError(f"{file}: holds no matrices; expected those of an adapter")
    return tuple(updates)


def _scale(config: Config, module: str, rank: int) -> float:
    alpha = config.number("lora_alpha", default=8.0)
    patterns = config.get("alpha_pattern")
    if isinstance(patterns, Mapping):
        for pattern in patterns:
            if module == pattern or module.endswith(f".{pattern}"):
                alpha = Config(patterns, f"{config.path}: in 'alpha_pattern'").number(pattern)
                break
    return alpha / (math.sqrt(rank) if config.flag("use_rslora") else rank)


def merged(folder: Folder, adapters: Sequence[Adapter], scratch: Path) -> Folder:
    """The folder with the adapters added to its weights, one after the other.

    Sums are of float32, rounded to the type that the weight is stored in. The adapted weights go to `scratch`, which has to stay
    until the folder is no longer read; all others stay where they are. Memory is a few chunks of 32 MiB and the adapter's matrices.

    Raises
    ------
    InputError
        An adapter is for another model: a weight is missing or of another shape.
    FileError
        `scratch` cannot be written.
    """
    by_weight: dict[str, list[tuple[Adapter, LoraUpdate]]] = {}
    for adapter in adapters:
        for update in adapter.updates:
            by_weight.setdefault(_name_in(folder, adapter, update), []).append((adapter, update))
    tensors, sources = dict(folder.tensors), [*folder.sources, str(scratch)]
    try:
        with scratch.open("wb") as file:
            for name, updates in by_weight.items():
                tensor = folder.tensors[name]
                dtype = FLOAT_TYPES[tensor.dtype]
                offset = file.tell()
                for chunk in _adapted_rows(folder.sources[tensor.source], tensor, dtype, updates):
                    file.write(chunk)
                tensors[name] = dataclasses.replace(
                    tensor, dtype=dtype, source=len(sources) - 1, offset=offset, nbytes=file.tell() - offset
                )
    except OSError as error:
        raise FileError(f"{scratch}: {error.strerror or error}; {len(by_weight)} adapted weights have to fit there") from error
    return dataclasses.replace(folder, tensors=tensors, sources=sources)


def _name_in(folder: Folder, adapter: Adapter, update: LoraUpdate) -> str:
    """The weight's name in the folder, whose bare models leave the prefix out."""
    candidates = (update.weight, update.weight.removeprefix("model."), f"model.{update.weight}")
    name = next((name for name in candidates if name in folder.tensors), None)
    if name is None:
        raise InputError(f"{adapter.file}: adapts {update.weight}, which {folder.path} does not have; give the model it was trained on")
    tensor = folder.tensors[name]
    check_float(tensor, f"{folder.path}: {name}")
    if tensor.shape != update.shape:
        raise InputError(
            f"{adapter.file}: adapts {name} as a matrix of {update.shape}, in {folder.path} it is {tensor.shape}; "
            "give the model it was trained on"
        )
    return name


def _adapted_rows(
    source: "str | Memory", tensor: HfTensor, dtype: str, updates: "Sequence[tuple[Adapter, LoraUpdate]]"
) -> "Iterable[bytes]":
    import numpy as np

    n_rows, n_cols = tensor.shape
    factors = []
    for adapter, update in updates:
        a, b = (_values(adapter.file, t).reshape(t.shape) for t in (update.a, update.b))
        left, right = (a.T, b.T) if update.is_transposed else (b, a)
        factors.append((left * np.float32(update.scale), right))
    step = max(1, _MAX_CHUNK_VALUES // n_cols)
    for first in range(0, n_rows, step):
        last = min(first + step, n_rows)
        rows = _values(source, tensor, first * n_cols, (last - first) * n_cols).reshape(-1, n_cols)
        for left, right in factors:
            rows = rows + left[first:last] @ right
        yield rows.astype(_numpy_type(dtype)).tobytes()


def _values(source: "str | Memory", tensor: HfTensor, first: int = 0, count: int | None = None) -> "NDArray[np.float32]":
    import numpy as np

    dtype = _numpy_type(tensor.dtype)
    count = math.prod(tensor.shape) if count is None else count
    offset = tensor.offset + first * dtype.itemsize
    if isinstance(source, str):
        with Path(source).open("rb") as file:
            return np.fromfile(file, dtype, count, offset=offset).astype(np.float32)
    return source[1][offset : offset + count * dtype.itemsize].view(dtype).astype(np.float32)


def _numpy_type(dtype: str) -> "np.dtype[np.generic]":
    import ml_dtypes
    import numpy as np

    names = {"F32": "<f4", "F16": "<f2", "BF16": ml_dtypes.bfloat16, "F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2}
    numpy_type: np.dtype[np.generic] = np.dtype(names[dtype])
    return numpy_type
