"""The importance matrix of a quantization, computed on the way from a calibration text.

It lies beside the output DST as ``.DST.KEY.quantrs-imatrix`` until DST is whole; KEY tells model, text and options, so that a run that
goes on takes up the matrix of the same job only.
"""

import dataclasses
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from quantrs import _native, output
from quantrs.calibration.coverage import Coverage
from quantrs.calibration.imatrix import add_squares, dataset_name, engine_for
from quantrs.calibration.partial_sums import PartialSums, key_of
from quantrs.calibration.sequences import read_sequences
from quantrs.errors import InputError, UsageError
from quantrs.journal import journal_path
from quantrs.plan import Plan
from quantrs.whole_files import write_whole

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from quantrs._native import Engine, Gguf, ImatrixSums
    from quantrs.calibration.options import CalibrationOptions
    from quantrs.options import QuantizeOptions
    from quantrs.progress import Watcher

__all__ = ["with_imatrix"]

_SUFFIX = ".quantrs-imatrix"


@contextmanager
def with_imatrix(
    source: "Gguf",
    dst: Path,
    options: "QuantizeOptions",
    calibration: "CalibrationOptions",
    *,
    threads: int | None,
    force: bool,
    resume: bool,
    watcher: "Watcher",
) -> "Iterator[QuantizeOptions]":
    """The options with an importance matrix, which is there for as long as the block runs; longer, if the block leaves work to resume.

    Before the text is run, everything is checked that can be known by then: the text, the plan, the disk.

    Raises
    ------
    UsageError
        An importance matrix is given already.
    InputError, FormatError, FileError
        As `read_sequences`, `Plan.check` and `add_squares`; or too few experts are covered.
    """
    if options.imatrix is not None:
        raise UsageError("--calib computes an importance matrix and --imatrix gives one; keep one of them")
    sequences = read_sequences(calibration, source)
    if not dst.parent.is_dir():
        raise InputError(f"{dst}: there is no folder {dst.parent}; make it first")
    key = key_of(source, sequences, dataset_name(calibration))
    path, partial = _path(dst, key), PartialSums(dst, key)
    options = dataclasses.replace(options, imatrix=os.fspath(path), imatrix_label=dataset_name(calibration))
    if not (resume and path.is_file()):
        engine = engine_for(source, calibration.length, threads)
        sums = _empty(engine, calibration)
        sums.assume_sequences(len(sequences))
        # Of another name: should the process end here, nobody must take it for the matrix.
        draft = dataclasses.replace(options, imatrix=os.fspath(_path(dst, "draft")))
        write_whole(_path(dst, "draft"), sums.to_bytes())
        try:
            plan = _checked_plan(source, dst, draft, calibration, force=force, resume=resume)
            if resume and not journal_path(dst).exists() and output.is_complete(plan):
                yield draft
                return
            output.check_room(plan)
        finally:
            _path(dst, "draft").unlink(missing_ok=True)
        write_whole(path, _matrix(engine, sequences, calibration, partial, resume=resume, watcher=watcher))
    try:
        yield options
    except BaseException:
        if not journal_path(dst).exists():
            path.unlink(missing_ok=True)
        raise
    for old in dst.parent.iterdir():
        if old.name.startswith(f".{dst.name}.") and old.name.endswith((_SUFFIX, partial.path.suffix)):
            old.unlink(missing_ok=True)


def _path(dst: Path, key: str) -> Path:
    return dst.with_name(f".{dst.name}.{key}{_SUFFIX}")


def _empty(engine: "Engine", calibration: "CalibrationOptions") -> "ImatrixSums":
    sums = _native.ImatrixSums(calibration.length)
    sums.expect(engine)
    sums.add_dataset(dataset_name(calibration))
    return sums


def _matrix(
    engine: "Engine",
    sequences: "NDArray[np.int32]",
    calibration: "CalibrationOptions",
    partial: PartialSums,
    *,
    resume: bool,
    watcher: "Watcher",
) -> bytes:
    """The file."""
    sums = _empty(engine, calibration)
    try:
        add_squares(engine, sequences, sums, partial, resume=resume, watch=watcher.calibrated)
    except BaseException:
        if partial.path.exists():
            watcher.kept((partial.path,))
        raise
    partial.remove()
    coverage = Coverage.of(sums.counts())
    for text in coverage.notices():
        watcher.notice(text)
    coverage.check(calibration.min_coverage)
    return sums.to_bytes()


def _checked_plan(
    source: "Gguf", dst: Path, options: "QuantizeOptions", calibration: "CalibrationOptions", *, force: bool, resume: bool
) -> Plan:
    """Plan with a matrix that has every entry and knows nothing: header, types and sizes are those of the real one."""
    plan = Plan.for_gguf(source, options, os.fspath(dst))
    output.check_names(plan, [*source.files, *(name for name in (calibration.text, options.recipe) if name)])
    plan.check()
    if not force and not resume:
        output.check_absent(plan.files)
    return plan
