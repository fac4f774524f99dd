"""A checkpoint folder that is being written: the small files, the names of shards, the index."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from quantrs.errors import FileError, InputError
from quantrs.whole_files import write_whole

__all__ = ["INDEX", "Shard", "cut_into_shards", "folder_to_fill", "index_of", "json_bytes", "write_small_files"]

INDEX = "model.safetensors.index.json"
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*")


class Shard(NamedTuple):
    """One safetensors file to be: its name, and the indices of what goes in."""

    name: str
    members: Sequence[int]


def cut_into_shards(sizes: Sequence[int], max_bytes: int) -> list[Shard]:
    """Fill files in order; what is larger than `max_bytes` gets one of its own."""
    groups: list[list[int]] = [[]]
    filled = 0
    for i, nbytes in enumerate(sizes):
        if groups[-1] and filled + nbytes > max_bytes:
            groups.append([])
            filled = 0
        groups[-1].append(i)
        filled += nbytes
    n = len(groups)
    return [Shard("model.safetensors" if n == 1 else f"model-{k:05d}-of-{n:05d}.safetensors", group) for k, group in enumerate(groups, 1)]


def index_of(tensors: Iterable[tuple[str, str, int]]) -> dict[str, object]:
    """The index, of tensors by name, shard and bytes."""
    rows = list(tensors)
    return {"metadata": {"total_size": sum(nbytes for _, _, nbytes in rows)}, "weight_map": {name: shard for name, shard, _ in rows}}


@contextmanager
def folder_to_fill(dst: Path, small: Iterable[str], shards: Sequence[str], *, force: bool) -> "Iterator[None]":
    """Make the folder, unless something speaks against writing these files into it; if the block fails and leaves it empty, it goes again.

    Raises
    ------
    InputError
        There is a file of that name, no folder to put it in, or one of the files without `force`; or weights of another model.
    FileError
        The system refuses.
    """
    is_new = _make_folder(dst, list(small), shards, force=force)
    try:
        yield
    except BaseException:
        if is_new:
            with suppress(OSError):  # it holds unfinished work
                dst.rmdir()
        raise


def _make_folder(dst: Path, small: Sequence[str], shards: Sequence[str], *, force: bool) -> bool:
    """Whether there was none before.

    Raises
    ------
    InputError
        There is a file of that name, no folder to put it in, or one of the files without `force`; or weights of another model.
    FileError
        The system refuses.
    """
    if not dst.parent.is_dir():
        raise InputError(f"{dst}: there is no folder {dst.parent}; make it first")
    try:
        if not os.path.lexists(dst):
            dst.mkdir()
            return True
        if not dst.is_dir():
            raise InputError(f"{dst}: a file of that name exists; choose another name for the folder")
        there = [name for name in small if os.path.lexists(dst / name)]
        # A reader would take files of another model for part of this one.
        strangers = sorted(path.name for pattern in _WEIGHTS for path in dst.glob(pattern) if path.name not in (*small, *shards))
    except OSError as error:
        raise FileError(f"{dst}: cannot make the folder: {error.strerror}") from error
    if there and not force:
        raise InputError(f"{dst / there[0]}: the file exists already; --force overwrites it, or choose another folder")
    if strangers:
        raise InputError(f"{dst / strangers[0]}: belongs to another model and would not be replaced; remove it, or choose another folder")
    return False


def write_small_files(dst: Path, small: Mapping[str, bytes]) -> None:
    """Write them; none has its name before it is whole.

    Raises
    ------
    FileError
    """
    for name, data in small.items():
        write_whole(dst / name, data)


def json_bytes(value: object) -> bytes:
    """A JSON text as people read it."""
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
