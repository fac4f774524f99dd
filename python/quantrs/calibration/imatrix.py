"""Importance matrices: for every column of a weight, the sum of squares of what it is multiplied with over a text.

As ``llama-imatrix`` computes them (its source, tools/imatrix/imatrix.cpp of llama.cpp, is the reference for chunks, entries and files):
the sums of the same chunks differ in rounding only. Ours are kept in float64, activations and the cache of keys and values in float32.
"""

import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quantrs import _native
from quantrs.calibration.coverage import Coverage
from quantrs.calibration.options import CalibrationOptions
from quantrs.calibration.partial_sums import PartialSums, key_of
from quantrs.calibration.sequences import DEFAULT_TEXT, read_sequences
from quantrs.errors import FileError, FormatError, InputError, UsageError
from quantrs.whole_files import write_whole

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from quantrs._native import Engine, Gguf, ImatrixSums

__all__ = ["ImatrixReport", "add_squares", "dataset_name", "engine_for", "make_imatrix"]

_LEGACY = ".dat"

Watch = Callable[[int, int], None]
"""Is given how many chunks are done, and how many there are."""


@dataclass(frozen=True)
class ImatrixReport:
    """What was written."""

    path: str
    entries: int
    chunks: int
    ctx: int
    datasets: tuple[str, ...]
    coverage: Coverage

    def to_json(self) -> dict[str, object]:
        """A JSON value."""
        return {
            "path": self.path,
            "entries": self.entries,
            "chunks": self.chunks,
            "ctx": self.ctx,
            "datasets": list(self.datasets),
            **self.coverage.to_json(),
        }

    def __str__(self) -> str:
        experts = f"; {self.coverage.part:.1%} of {self.coverage.n_experts} experts saw enough" if self.coverage.n_experts else ""
        return f"{self.path}: {self.entries} entries, {self.chunks} chunks of {self.ctx} tokens{experts}"


def make_imatrix(
    model: "str | os.PathLike[str] | None",
    out: "str | os.PathLike[str]",
    *,
    text: str | None = None,
    ctx: int = 512,
    chunks: int | None = None,
    process_output: bool = False,
    merge: "Sequence[str | os.PathLike[str]]" = (),
    min_coverage: float | None = None,
    pre: str | None = None,
    threads: int | None = None,
    force: bool = False,
    resume: bool = False,
    watch: Watch | None = None,
) -> ImatrixReport:
    """Compute an importance matrix, or merge several: what ``quantrs imatrix`` does, as one call.

    Parameters
    ----------
    model : path-like, optional
        GGUF file or checkpoint folder; None merges alone.
    out : path-like
        The file to write: GGUF, or the legacy form where the name ends in ``.dat``.
    text : str, optional
        A text, JSON lines or token ids: see `quantrs.calibration.sequences.read_sequences`. The one that comes with the package when
        not given.
    ctx : int
        Tokens of a chunk; each starts from nothing.
    chunks : int, optional
        Stop after so many chunks; all when not given.
    process_output : bool
        Also an entry for the output matrix, where the model has one of its own.
    merge : sequence of path-like
        Files of either form to add.
    min_coverage : float, optional
        Fail when a smaller part of the experts, 0 to 1, has seen enough tokens.
    pre : str, optional
        Name of the pre-tokenizer, for a checkpoint folder whose own cannot be recognised.
    threads : int, optional
        One per CPU when not given. The file does not depend on it.
    force : bool
        Replace `out` if it exists.
    resume : bool
        Go on from an earlier call that was broken off, if it was for the same; the file is the same then, byte for byte.
    watch : callable, optional
        Is told how far it is, after each chunk.

    Raises
    ------
    UsageError
        There is neither a model nor anything to merge.
    InputError
        `out` exists, the text is too short or has tokens that the model lacks, a file to merge is of another model, or too few experts
        are covered.
    FormatError
        A file is damaged, or an activation is not finite: which tensor's, and in which chunk.
    FileError
        Reading or writing failed.

    Examples
    --------
    >>> import quantrs as qr
    >>> made = qr.make_imatrix("chat.gguf", "chat.imatrix.gguf", ctx=64, chunks=2)
    >>> made.entries, made.chunks, made.datasets
    (7, 2, ('quantrs default_text.txt',))
    """
    out = Path(out)
    if model is None and not merge:
        raise UsageError("imatrix: found neither a MODEL nor --merge FILE, expected one of them")
    if model is None and text is not None:
        raise UsageError("imatrix: --text needs a MODEL to run on it")
    if not out.parent.is_dir():
        raise InputError(f"{out}: there is no folder {out.parent}; make it first")
    if os.path.lexists(out) and (not force or out.is_dir()):
        raise InputError(f"{out}: exists already; --force overwrites a file, or choose another name")
    options = CalibrationOptions(text=text, length=ctx, min_coverage=min_coverage)
    sums = _native.ImatrixSums(ctx)
    for path in merge:
        sums.merge(path)
    if model is not None:
        from quantrs.open_model import open_model

        source = open_model(model, pre=pre, to_run=True)
        sequences = read_sequences(options, source)[:chunks]
        with_output = process_output and _has_output(source)
        engine = engine_for(source, ctx, threads)
        sums.expect(engine, with_output=with_output)
        partial = PartialSums(out, key_of(source, sequences, with_output, zlib.crc32(sums.state())))
        add_squares(engine, sequences, sums, partial, with_output=with_output, resume=resume, watch=watch)
        sums.add_dataset(dataset_name(options))
        partial.remove()
    coverage = Coverage.of(sums.counts())
    coverage.check(min_coverage)
    write_whole(out, sums.to_bytes(legacy=out.name.lower().endswith(_LEGACY)))
    return ImatrixReport(os.fspath(out), len(sums.counts()), sums.chunk_count, ctx, tuple(sums.datasets), coverage)


def engine_for(source: "Gguf", ctx: int, threads: int | None) -> "Engine":
    """A model for chunks of `ctx` tokens, nothing of it quantized that is not quantized in the file.

    Raises
    ------
    InputError
        The family is not known.
    """
    from quantrs.families import graph_of

    graph, n_ctx = graph_of(source, n_ctx=ctx)
    return _native.Engine.load(source, graph.to_json(), n_ctx=n_ctx, threads=threads, activations="float", kv_type="f32")


def add_squares(
    engine: "Engine",
    sequences: "NDArray[np.int32]",
    sums: "ImatrixSums",
    partial: PartialSums,
    *,
    with_output: bool = False,
    resume: bool = False,
    watch: Watch | None = None,
) -> None:
    """Run all sequences ``[n_sequences, length]`` and add their squares to `sums`, which have room for them.

    Now and then, and when it is stopped, `partial` is saved; with `resume` the work goes on from it.

    Raises
    ------
    FormatError
        A value is not finite; the message names the chunk and the tensor whose input it is.
    """
    first = partial.take_up(sums) if resume else 0
    try:
        for i, ids in enumerate(sequences[first:], first):
            try:
                engine.sum_squares(ids.tolist(), sums, with_output=with_output)
            except FormatError as error:
                partial.remove()
                raise FormatError(f"chunk {i}: {error}") from error
            partial.save(sums)
            if watch is not None:
                watch(i + 1, len(sequences))
    except (FileError, FormatError):
        raise
    except BaseException:  # stopped: between two sequences, for the engine is never broken off in one
        if sums.n_sequences:
            partial.save(sums, at_once=True)
        raise


def dataset_name(options: CalibrationOptions) -> str:
    """What files call the text."""
    return options.text or f"quantrs {DEFAULT_TEXT}"


def _has_output(source: "Gguf") -> bool:
    """The output matrix is one of its own, not the embedding's."""
    return any(tensor.name == "output.weight" for tensor in source.tensors)
