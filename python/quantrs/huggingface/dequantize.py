"""A quantized checkpoint folder written as one of floats: every linear decoded, everything else as it was."""

from pathlib import Path
from typing import TYPE_CHECKING

from quantrs.huggingface.carried import carried
from quantrs.huggingface.folder import Folder
from quantrs.huggingface.output_folder import json_bytes
from quantrs.huggingface.stored_types import dtype_setting
from quantrs.huggingface.write_folder import write_tensors

if TYPE_CHECKING:
    from quantrs.progress import Watcher
    from quantrs.report import Report

__all__ = ["write_dequantized"]


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
    found = carried(Folder.open(src))
    settings = found.config | dtype_setting(found.config, to)
    return write_tensors(
        found.tensors,
        {"config.json": json_bytes(settings), **found.small_files},
        dst,
        to=to,
        max_shard_bytes=max_shard_bytes,
        sources=found.tensors.files,
        started=started,
        threads=threads,
        force=force,
        resume=resume,
        watcher=watcher,
        measure=True,
    )
