"""Models with adapters added on the way: ``--lora DIR[:SCALE]``."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from quantrs.errors import InputError, UsageError

if TYPE_CHECKING:
    from quantrs._native import Gguf

__all__ = ["open_with_lora", "parse_lora", "scratch_path"]

_SCALED = re.compile(r"(.+):([-+]?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)")


def parse_lora(text: str) -> tuple[str, float]:
    """Read ``DIR[:SCALE]``.

    Examples
    --------
    >>> parse_lora("adapter"), parse_lora("adapter:0.5"), parse_lora("C:/adapter")
    (('adapter', 1.0), ('adapter', 0.5), ('C:/adapter', 1.0))
    """
    match = None if Path(text).is_dir() else _SCALED.fullmatch(text)
    if not text:
        raise UsageError("--lora: found nothing, expected DIR or DIR:SCALE")
    return (match[1], float(match[2])) if match else (text, 1.0)


def scratch_path(dst: Path) -> Path:
    """Where the adapted weights lie while `dst` is written."""
    return dst.with_name(f".{dst.name}.quantrs-lora")


@contextmanager
def open_with_lora(src: str, lora: Sequence[str], dst: Path, *, pre: str | None) -> "Iterator[Gguf]":
    """A folder's model with adapters added, for as long as the block runs.

    The adapted weights are computed before; their file bears the time of the newest adapter, so that work that was broken off
    can be taken up again as long as the adapters are the same.

    Raises
    ------
    InputError
        `src` is no folder, or an adapter is for another model.
    FileError, FormatError
        Something cannot be read or written, or is damaged.
    """
    from quantrs.formats import find_quantized
    from quantrs.huggingface.assemble import assemble
    from quantrs.huggingface.folder import Folder
    from quantrs.huggingface.lora import Adapter, merged

    if not Path(src).is_dir():
        raise InputError(f"{src}: --lora needs the checkpoint folder of the base model; adapters are not added to GGUF files")
    if not dst.parent.is_dir():
        raise InputError(f"{dst}: there is no folder {dst.parent}; make it first")
    adapters = [Adapter.open(path, scale=scale) for path, scale in map(parse_lora, lora)]
    scratch = scratch_path(dst)
    try:
        base = Folder.open(src)
        if find_quantized(base) is not None:
            raise InputError(
                f"{src}: the base model is quantized, and adapters are added to floats; "
                f"write it as such first (quantrs convert {src} FOLDER --to BF16)"
            )
        folder = merged(base, adapters, scratch)
        newest = max(Path(adapter.file).stat().st_mtime_ns for adapter in adapters)
        os.utime(scratch, ns=(newest, newest))
        yield assemble(folder, pre=pre)
    finally:
        scratch.unlink(missing_ok=True)
