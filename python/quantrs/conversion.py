"""Models from one container to another: what ``quantrs convert`` does."""

import os
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from quantrs import threads as thread_counts
from quantrs.errors import InputError, UsageError
from quantrs.options import QuantizeOptions
from quantrs.pipeline import opened, write_gguf
from quantrs.plan import is_packed
from quantrs.progress import Watcher
from quantrs.quantizing.schemes import FolderScheme, folder_scheme
from quantrs.schemes import FLOATS, is_quantized

if TYPE_CHECKING:
    from os import PathLike

    from quantrs._native import Gguf
    from quantrs.report import Report

__all__ = ["DEFAULT_SHARD_BYTES", "convert"]

DEFAULT_SHARD_BYTES = 5 * 10**9
"""As ``save_pretrained`` cuts its files."""


def convert(
    src: "str | PathLike[str]",
    dst: "str | PathLike[str]",
    *,
    to: str | None = None,
    max_shard_bytes: int = DEFAULT_SHARD_BYTES,
    pre: str | None = None,
    arch: str | None = None,
    lora: Sequence[str] = (),
    base: "str | PathLike[str] | None" = None,
    threads: int | None = None,
    force: bool = False,
    resume: bool = False,
    watcher: Watcher | None = None,
) -> "Report":
    """Write a model as a GGUF file, or as a checkpoint folder, by the name of `dst`; nothing is quantized that was not before.

    Parameters
    ----------
    src, dst : path-like
        The model: a GGUF file (of a split one, the first) or a checkpoint folder; and what to write: a file if the name ends in
        ``.gguf``, else a folder. Nothing has its final name before it is whole.
    to : str, optional
        ``"F32"``, ``"F16"`` or ``"BF16"``: type of the matrices. When not given: the one that most of the source's have, F16 for
        quantized ones. Vectors become F32. A quantized checkpoint folder becomes a GGUF file of the same values where block types hold
        them (Q4_0, Q8_0, MXFP4), the rest of its linears F16; the report has the differences (`Report.errors`).

        For folders also ``"gptq-w4-g128"``, ``"awq-w4-g64"``, ``"w4a16-g128"``, ``"w8a16"`` ..., as `quantize_checkpoint` takes them:
        the quantized linears of `src` go over code by code where that grid contains theirs, and are rounded elsewhere.
    max_shard_bytes : int
        Size of each safetensors file of a folder; a larger tensor gets a file of its own.
    base : path-like, optional
        Folder of the base model, when `src` is the folder of an adapter of PEFT; `dst` is then a GGUF file that llama.cpp can add to a
        model.
    pre, arch, lora, threads, force, resume, watcher
        As `quantize_checkpoint` takes them.

    Returns
    -------
    Report

    Raises
    ------
    UsageError, InputError, FormatError
        The job cannot be done; nothing is left behind.
    FileError
        Reading or writing failed. What is done so far is kept for `resume`.
    """
    started = time.perf_counter()
    scheme = _scheme(to)
    watcher = watcher or Watcher()
    to_gguf = os.fspath(dst).lower().endswith(".gguf")
    if scheme is not None:
        from quantrs.quantizing.repack import repack

        _check_for_folder(scheme, dst, to_gguf=to_gguf, lora=lora, base=base)
        return repack(
            src,
            Path(dst),
            scheme,
            pre=pre,
            arch=arch,
            max_shard_bytes=max_shard_bytes,
            threads=thread_counts.checked(threads),
            force=force,
            resume=resume,
            watcher=watcher,
        )
    if not (Path(src) / "adapter_config.json").is_file():
        if base is not None:
            raise UsageError(f"{src}: --base is for adapters, but there is no adapter_config.json; leave it out")
        if lora and not to_gguf:
            raise UsageError("--lora: adapters are added when a GGUF file is written; give DST a name that ends in .gguf")
        model = opened(os.fspath(src), Path(dst), pre=pre, arch=arch, lora=lora)
    else:
        model = nullcontext(_adapter(Path(src), base, to_gguf))
    with model as source:
        was_packed = any(is_packed(tensor) for tensor in source.tensors)
        keeps_blocks = was_packed and to is None and to_gguf
        has_blocks = any(is_quantized(tensor.type_name or "") for tensor in source.tensors)
        to = (to or _usual_type(source)).upper()
        if to_gguf:
            options = QuantizeOptions(
                to="COPY" if keeps_blocks else to,
                packed_to="F16" if keeps_blocks else None,
                override_kv=("general.file_type=int:1",) if keeps_blocks and not has_blocks else (),
                allow_requantize=True,
                keep_shapes=True,
                pre=pre,
                arch=arch,
                lora=tuple(lora),
            )
            return write_gguf(
                source,
                Path(dst),
                options,
                started=started,
                threads=threads,
                force=force,
                resume=resume,
                measure=was_packed,
                watcher=watcher,
            )
        if was_packed:
            from quantrs.huggingface.dequantize import write_dequantized

            return write_dequantized(
                Path(src),
                Path(dst),
                to=to,
                max_shard_bytes=max_shard_bytes,
                started=started,
                threads=threads,
                force=force,
                resume=resume,
                watcher=watcher,
            )
        if Path(src).is_dir():
            raise InputError(f"{src}: is a checkpoint folder already, and {dst} would be one; give DST a name that ends in .gguf")
        from quantrs.huggingface.write_folder import write_folder

        return write_folder(
            source,
            Path(dst),
            to=to,
            max_shard_bytes=max_shard_bytes,
            started=started,
            threads=threads,
            force=force,
            resume=resume,
            watcher=watcher,
        )


def _scheme(to: str | None) -> FolderScheme | None:
    """What a quantized folder is to hold; None where matrices become floats, or stay as they are."""
    if to is None or to.upper() in FLOATS:
        return None
    scheme = folder_scheme(to)
    if scheme is None:
        raise UsageError(
            f"to: found {to!r}, expected one of {', '.join(FLOATS)}, or for folders gptq-w4-g128, awq-w4-g128, w4a16-g128 and the like; "
            "quantize writes the types of GGUF files"
        )
    return scheme


def _check_for_folder(
    scheme: FolderScheme, dst: "str | PathLike[str]", *, to_gguf: bool, lora: Sequence[str], base: "str | PathLike[str] | None"
) -> None:
    if to_gguf:
        raise UsageError(f"{dst}: {scheme.name} is what checkpoint folders hold; give DST another name, or leave --to out")
    if lora or base is not None:
        raise UsageError(f"--{'lora' if lora else 'base'}: adapters are of floats, but --to {scheme.name} takes codes over; leave it out")


def _adapter(folder: Path, base: "str | PathLike[str] | None", to_gguf: bool) -> "Gguf":
    from quantrs.huggingface.config import Config
    from quantrs.huggingface.lora import Adapter
    from quantrs.huggingface.lora_gguf import assemble_adapter

    if base is None:
        raise UsageError(f"{folder}: is an adapter; name the folder of its base model with --base, or add it to that model with --lora")
    if not to_gguf:
        raise UsageError(f"{folder}: an adapter is written as a GGUF file; give DST a name that ends in .gguf")
    return assemble_adapter(Adapter.open(folder), Config.read(Path(base) / "config.json"))


def _usual_type(source: "Gguf") -> str:
    """Of most weights that are floats; linears of a quantized checkpoint are what they become."""
    weights: Counter[str] = Counter()
    for tensor in source.tensors:
        if len(tensor.dims) > 1 and not is_packed(tensor):
            weights[tensor.type_name if tensor.type_name in FLOATS else "F16"] += prod(tensor.dims)
    return weights.most_common(1)[0][0] if weights else "F16" if any(map(is_packed, source.tensors)) else "F32"
