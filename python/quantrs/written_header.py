"""The metadata of the written file, key by key as ``llama-quantize`` leaves it, and the names of split files."""

from collections import Counter
from collections.abc import Iterable, Sequence

from quantrs._native import Gguf, GgufHeader, Imatrix
from quantrs.arrangement import in_order
from quantrs.options import KvOverride
from quantrs.schemes import FILE_TYPES, FileType

__all__ = ["imatrix_keys", "main_header", "set_split_keys", "split_paths"]

_SPLIT_KEYS = ("split.no", "split.count", "split.tensors.count")
_MAX_STRING_BYTES = 127  # of the strings that the tool hands to itself as overrides
_GUESSED = 1024  # flag in general.file_type: no such key was there to copy


def main_header(gguf: Gguf, file_type: FileType, overrides: Iterable[KvOverride], *, architecture: str, n_layers: int | None) -> GgufHeader:
    """The header with all metadata and no tensors yet; `n_layers` is what pruning left, or None.

    Setting a key moves it to the end, so the order of these steps is the order of the keys.
    """
    header = _as_version_3(gguf)
    header.set("general.quantization_version", 2, "u32")
    header.set("general.file_type", _file_type_id(gguf, file_type), "u32")
    for key in _SPLIT_KEYS:
        header.remove(key)
    for override in overrides:
        header.set(override.key, override.value, override.value_type)
    if n_layers is not None:
        header.set(f"{architecture}.block_count", n_layers, "u32")
    return header


def imatrix_keys(path: str, imatrix: Imatrix, n_entries: int) -> list[KvOverride]:
    """What is noted of the importance matrix; `path` as the user gave it, `n_entries` after include and exclude."""
    keys = [KvOverride("quantize.imatrix.file", _cut(path), "string")]
    if imatrix.datasets:
        keys.append(KvOverride("quantize.imatrix.dataset", _cut(imatrix.datasets[0]), "string"))
    keys.append(KvOverride("quantize.imatrix.entries_count", n_entries, "u32"))
    if imatrix.chunk_count > 0:
        keys.append(KvOverride("quantize.imatrix.chunks_count", imatrix.chunk_count, "u32"))
    return keys


def set_split_keys(headers: Sequence[GgufHeader], n_tensors: int) -> None:
    """Number the files of a split model; `n_tensors` counts all files."""
    for number, header in enumerate(headers):
        header.set("split.no", number, "u16")
        header.set("split.count", len(headers), "u16")
        header.set("split.tensors.count", n_tensors, "i32")


def split_paths(destination: str, n_files: int) -> list[str]:
    """Names of the files of a split model.

    Examples
    --------
    >>> split_paths("m.gguf", 2)
    ['m-00001-of-00002.gguf', 'm-00002-of-00002.gguf']
    """
    prefix = destination.removesuffix(".gguf")
    return [f"{prefix}-{number:05d}-of-{n_files:05d}.gguf" for number in range(1, n_files + 1)]


def _as_version_3(gguf: Gguf) -> GgufHeader:
    if gguf.version == 3:
        return gguf.header()
    header = GgufHeader.new(3)
    for key in gguf.keys():
        value, value_type = gguf.get(key), gguf.value_type(key)
        if value is not None and value_type is not None:
            header.set(key, value, value_type)
    return header


def _file_type_id(gguf: Gguf, file_type: FileType) -> int:
    if file_type.id is not None:
        return file_type.id
    kept = gguf.get("general.file_type")
    return kept if isinstance(kept, int) else _guess(info.type_name or "" for info in in_order(gguf)) | _GUESSED


def _guess(type_names: Iterable[str]) -> int:
    """The file type that most tensors speak for; the first to reach the largest count wins."""
    seen: Counter[str] = Counter()
    most, best = 0, "F32"
    for name in type_names:
        seen[name] += 1
        if seen[name] > most:
            most, best = seen[name], name
    by_type = {row.name: row.id for row in FILE_TYPES if row.id is not None} | {"Q3_K": 12, "Q4_K": 15, "Q5_K": 17, "NVFP4": 39}
    return by_type.get(best, 0)


def _cut(text: str) -> str:
    return text.encode("utf-8", "surrogateescape")[:_MAX_STRING_BYTES].decode("utf-8", "surrogateescape")
