"""The fingerprint of a job: what has to be equal for unfinished work to be taken up again."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from quantrs import _native
from quantrs.errors import FileError
from quantrs.journal import Job

if TYPE_CHECKING:
    from quantrs.plan import Plan

__all__ = ["fingerprint", "source_hash", "source_stamp"]


def fingerprint(source: "_native.Gguf", plan: "Plan") -> Job:
    """Describe the job of writing `plan`.

    The source is known by path, size, modification time and header; hashing all of it would take as long as the work itself.
    """
    imatrix = plan.options.imatrix
    return Job(
        version=_native.__version__,
        source=source_stamp(source),
        source_header=source_hash(source),
        type=plan.file_type,
        options=repr(plan.options),
        imatrix=plan.made_from if imatrix is None else _hash([_first_bytes(imatrix, None)]),
        outputs=tuple((Path(file.path).name, file.file_bytes) for file in plan.files),
        output_headers=_hash(file.header for file in plan.files),
    )


def source_stamp(source: "_native.Gguf") -> tuple[tuple[str, int, int], ...]:
    """Absolute path, size and modification time of each source file, as they are now.

    Raises
    ------
    FileError
        A file has gone.
    """
    stamps = []
    for path in source.files:
        try:
            found = Path(path).stat()
        except OSError as error:
            raise FileError(f"{path}: cannot look at the source: {error.strerror}") from error
        stamps.append((os.path.realpath(path), found.st_size, found.st_mtime_ns))
    return tuple(stamps)


def source_hash(source: "_native.Gguf") -> str:
    """Of headers, and of how tensors are assembled; with `source_stamp` it tells sources apart.

    Raises
    ------
    FileError
        A file has gone.
    """
    return _hash(_source_pieces(source))


def _source_pieces(source: "_native.Gguf") -> Iterator[bytes]:
    """What tells sources apart that have the same paths, sizes and times: their headers, and how tensors are assembled from them."""
    for path, n_bytes in _header_sizes(source).items():
        yield _first_bytes(path, n_bytes)
    yield from (repr(memory).encode("utf-8", "surrogateescape") for memory in source.memory_checksums())
    for tensor in source.tensors:
        if tensor.parts:
            yield repr((tensor.name, tensor.dims, tensor.type_id, tensor.parts, tensor.add)).encode("utf-8", "surrogateescape")


def _header_sizes(source: "_native.Gguf") -> dict[str, int | None]:
    """Bytes before the first tensor of each file; None (all of it) for a file without tensors."""
    sizes: dict[str, int | None] = dict.fromkeys(source.files)
    for path, offset in _data_offsets(source):
        if path in sizes:  # and not bytes in memory
            known = sizes[path]
            sizes[path] = offset if known is None else min(known, offset)
    return sizes


def _data_offsets(source: "_native.Gguf") -> Iterator[tuple[str, int]]:
    names = source.sources
    for tensor in source.tensors:
        if tensor.parts:
            yield from ((names[source], offset) for part in tensor.parts for source, offset in part.places)
        else:
            yield tensor.file, tensor.offset


def _first_bytes(path: str, n_bytes: int | None) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(n_bytes)
    except OSError as error:
        raise FileError(f"{path}: cannot read it: {error.strerror}") from error


def _hash(pieces: Iterable[bytes]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()
