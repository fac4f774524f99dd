"""Write a checkpoint folder: safetensors shards under the journal that every long job has, and the small files beside them."""

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from quantrs import _native, output
from quantrs.huggingface.disassemble import disassemble
from quantrs.huggingface.output_folder import INDEX, Shard, cut_into_shards, folder_to_fill, index_of, json_bytes, write_small_files
from quantrs.options import QuantizeOptions
from quantrs.pipeline import carry_out
from quantrs.plan import Plan, PlannedFile, TensorPlan
from quantrs.schemes import FLOATS, row_bytes
from quantrs.tokenization.to_huggingface import tokenizer_files

if TYPE_CHECKING:
    from quantrs.progress import Watcher
    from quantrs.report import Report

__all__ = ["write_folder", "write_tensors"]

_WHOLE = ("I8", "I16", "I32", "I64", "F64")
_Row = tuple[_native.TensorInfo, str, int]
"""A tensor, the type that it becomes, and its bytes in that."""


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
    rows = [_row(tensor, to) for tensor in model.tensors]
    shards = cut_into_shards([nbytes for _, _, nbytes in rows], max_shard_bytes)
    if len(shards) > 1:
        index = index_of((rows[i][0].name, shard.name, rows[i][2]) for shard in shards for i in shard.members)
        small = {**small, INDEX: json_bytes(index)}
    with folder_to_fill(dst, small, [shard.name for shard in shards], force=force or resume):
        plan = _plan(rows, shards, dst, to, model)
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
        write_small_files(dst, small)
    return report


def _row(tensor: _native.TensorInfo, to: str) -> _Row:
    target = _target_type(tensor, to)
    return tensor, target, row_bytes(target, tensor.dims[0]) * prod(tensor.dims[1:])


def _target_type(tensor: _native.TensorInfo, to: str) -> str:
    """Vectors stay as they are: they are small, and rounding them would lose what the file holds. So do whole numbers."""
    is_vector = len(tensor.dims) == 1 and tensor.type_name in FLOATS
    if tensor.type_name is not None and (is_vector or tensor.type_name in _WHOLE):
        return tensor.type_name
    return to


def _plan(rows_to_be: Sequence[_Row], shards: Sequence[Shard], dst: Path, to: str, model: _native.Gguf) -> Plan:
    files = []
    for shard in shards:
        members = [rows_to_be[i] for i in shard.members]
        rows = [(tensor.name, target, tuple(reversed(tensor.dims))) for tensor, target, _ in members]
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
            for (tensor, target, nbytes), offset in zip(members, offsets, strict=True)
        ]
        planned.sort(key=lambda tensor: tensor.offset)
        file_bytes = len(header) + sum(tensor.nbytes for tensor in planned)
        files.append(PlannedFile(path=str(dst / shard.name), header=header, tensors=tuple(planned), file_bytes=file_bytes))
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
