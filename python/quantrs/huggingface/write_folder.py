"""Write a checkpoint folder: safetensors shards under the journal that every long job has, and the small files beside them."""

import json
import os
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from quantrs import _native, output
from quantrs.errors import FileError, InputError
from quantrs.huggingface.disassemble import disassemble
from quantrs.options import QuantizeOptions
from quantrs.pipeline import carry_out
from quantrs.plan import Plan, PlannedFile, TensorPlan
from quantrs.schemes import FLOATS, row_bytes
from quantrs.tokenization.to_huggingface import tokenizer_files

if TYPE_CHECKING:
    from quantrs.progress import Watcher
    from quantrs.report import Report

__all__ = ["json_bytes", "write_folder", "write_tensors"]

_INDEX = "model.safetensors.index.json"
_WHOLE = ("I8", "I16", "I32", "I64", "F64")
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*")


def write_folder(
    source: "_native.Gguf",
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
    """Write `source` as a folder that transformers opens; the matrices become `to`.

    Raises
    ------
    InputError, FormatError, FileError
        As `quantrs.conversion.convert`.
    """
    model, config, generation_config = disassemble(source, dtype=to)
    small = {"config.json": json_bytes(config)}
    if generation_config:
        small["generation_config.json"] = json_bytes(generation_config)
    small |= tokenizer_files(source)
    return write_tensors(
        model,
        small,
        dst,
        to=to,
        max_shard_bytes=max_shard_bytes,
        sources=source.files,
        started=started,
        threads=threads,
        force=force,
        resume=resume,
        watcher=watcher,
    )


def write_tensors(
    model: "_native.Gguf",
    small: Mapping[str, bytes],
    dst: Path,
    *,
    to: str,
    max_shard_bytes: int,
    sources: Sequence[str],
    started: float,
    threads: int | None,
    force: bool,
    resume: bool,
    watcher: "Watcher",
    measure: bool = False,
) -> "Report":
    """Write a folder of tensors that have their names already, and of small files; matrices of floats become `to`.

    Parameters
    ----------
    model : Gguf
        Tensors and no keys.
    small : mapping of str to bytes
        Files by name; the index of several shards is added.
    dst : Path
        The folder.
    sources : sequence of str
        Files that are read, which cannot be written to.
    measure : bool
        Compare the converted tensors with their sources.
    to, max_shard_bytes, started, threads, force, resume, watcher
        As `write_folder` takes them.

    Raises
    ------
    InputError, FormatError, FileError
        As `quantrs.conversion.convert`.
    """
    shards = _shards(model.tensors, to, max_shard_bytes)
    if len(shards) > 1:
        small = {**small, _INDEX: json_bytes(_index(shards))}
    _make_folder(dst, small, [shard.name for shard in shards], force=force or resume)
    plan = _plan(shards, dst, to, model)
    output.check_names(plan, sources)
    report = carry_out(
        model,
        plan,
        dst / "model.safetensors",
        started=started,
        threads=threads,
        force=force,
        resume=resume,
        measure=measure,
        watcher=watcher,
    )
    for name, data in small.items():
        _write_whole(dst / name, data)
    return report


class _Shard:
    """One safetensors file to be."""

    def __init__(self) -> None:
        self.tensors: list[tuple[_native.TensorInfo, str, int]] = []
        """Each with the type that it becomes, and its bytes in that."""
        self.name = ""

    @property
    def nbytes(self) -> int:
        """Of all tensors."""
        return sum(nbytes for _, _, nbytes in self.tensors)


def _shards(tensors: Sequence[_native.TensorInfo], to: str, max_shard_bytes: int) -> list[_Shard]:
    shards, filled = [_Shard()], 0
    for tensor in tensors:
        target = _target_type(tensor, to)
        nbytes = row_bytes(target, tensor.dims[0]) * prod(tensor.dims[1:])
        if shards[-1].tensors and filled + nbytes > max_shard_bytes:
            shards.append(_Shard())
            filled = 0
        shards[-1].tensors.append((tensor, target, nbytes))
        filled += nbytes
    for number, shard in enumerate(shards, 1):
        shard.name = "model.safetensors" if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
    return shards


def _target_type(tensor: _native.TensorInfo, to: str) -> str:
    """Vectors stay as they are: they are small, and rounding them would lose what the file holds. So do whole numbers."""
    is_vector = len(tensor.dims) == 1 and tensor.type_name in FLOATS
    if tensor.type_name is not None and (is_vector or tensor.type_name in _WHOLE):
        return tensor.type_name
    return to


def _index(shards: Sequence[_Shard]) -> dict[str, object]:
    return {
        "metadata": {"total_size": sum(shard.nbytes for shard in shards)},
        "weight_map": {tensor.name: shard.name for shard in shards for tensor, _, _ in shard.tensors},
    }


def _plan(shards: Sequence[_Shard], dst: Path, to: str, model: _native.Gguf) -> Plan:
    files = []
    for shard in shards:
        rows = [(tensor.name, target, tuple(reversed(tensor.dims))) for tensor, target, _ in shard.tensors]
        header, offsets = _native.safetensors_header(rows, {"format": "pt"})
        planned = [
            TensorPlan(
                name=tensor.name,
                dims=tensor.dims,
                source_type=tensor.type_name or "",
                target_type=target,
                why="convert",
                nbytes=nbytes,
                offset=offset,
                imatrix_name=None,
                source=tensor,
            )
            for (tensor, target, nbytes), offset in zip(shard.tensors, offsets, strict=True)
        ]
        planned.sort(key=lambda tensor: tensor.offset)
        files.append(PlannedFile(path=str(dst / shard.name), header=header, tensors=tuple(planned), file_bytes=len(header) + shard.nbytes))
    return Plan(
        tensors=tuple(tensor for file in files for tensor in file.tensors),
        files=tuple(files),
        file_bytes=sum(file.file_bytes for file in files),
        source_bytes=model.file_size,
        file_type=to,
        notices=(),
        refusals=(),
        options=QuantizeOptions(to=to, allow_requantize=True),
        imatrix=None,
    )


def _make_folder(dst: Path, small: Mapping[str, bytes], shards: Sequence[str], *, force: bool) -> None:
    if dst.exists() and not dst.is_dir():
        raise InputError(f"{dst}: a file of that name exists; choose another name for the folder")
    if not dst.parent.is_dir():
        raise InputError(f"{dst}: there is no folder {dst.parent}; make it first")
    there = [name for name in small if os.path.lexists(dst / name)]
    if there and not force:
        raise InputError(f"{dst / there[0]}: the file exists already; --force overwrites it, or choose another folder")
    # A reader would take files of another model for part of this one.
    strangers = sorted(path.name for pattern in _WEIGHTS for path in dst.glob(pattern) if path.name not in (*small, *shards))
    if strangers:
        raise InputError(f"{dst / strangers[0]}: belongs to another model and would not be replaced; remove it, or choose another folder")
    try:
        dst.mkdir(exist_ok=True)
    except OSError as error:
        raise FileError(f"{dst}: cannot make the folder: {error.strerror}") from error


def _write_whole(path: Path, data: bytes) -> None:
    """Under a passing name first, so that nothing has its name before it is whole."""
    part = path.with_name(f".{path.name}.quantrs-part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise FileError(f"{path}: cannot be written: {error.strerror}") from error


def json_bytes(value: object) -> bytes:
    """As ``save_pretrained`` writes it."""
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
