"""The flow on one screen: a checkpoint, a plan, an output that is never half there, a report."""

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from quantrs import _native, output
from quantrs import threads as thread_counts
from quantrs.errors import InputError, UsageError
from quantrs.fingerprint import fingerprint
from quantrs.journal import Journal, part_path
from quantrs.open_model import open_model
from quantrs.options import QuantizeOptions
from quantrs.plan import Plan, is_packed
from quantrs.progress import JobProgress, Watcher, run_watched
from quantrs.quantizing.schemes import folder_scheme
from quantrs.report import Report, group_errors
from quantrs.writer import Key, Writer

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from os import PathLike

    from quantrs.calibration.options import CalibrationOptions
    from quantrs.journal import Job, Record
    from quantrs.plan import TensorPlan
    from quantrs.writer import Maker

__all__ = ["carry_out", "opened", "quantize_checkpoint", "quantize_model", "write_gguf"]


def quantize_checkpoint(
    src: "str | PathLike[str]",
    dst: "str | PathLike[str]",
    *,
    scheme: str,
    method: str | None = None,
    skip: Sequence[str] = (),
    smooth_alpha: float = 0.5,
    damp_percent: float = 0.01,
    mse: float | None = None,
    imatrix: "str | PathLike[str] | None" = None,
    include_weights: Sequence[str] = (),
    exclude_weights: Sequence[str] = (),
    pure: bool = False,
    leave_output_tensor: bool = False,
    output_tensor_type: str | None = None,
    token_embedding_type: str | None = None,
    tensor_types: Sequence[tuple[str, str]] = (),
    recipe: "str | PathLike[str] | None" = None,
    override_kv: Sequence[str] = (),
    prune_layers: Sequence[int] = (),
    keep_split: bool = False,
    allow_requantize: bool = False,
    pre: str | None = None,
    arch: str | None = None,
    lora: Sequence[str] = (),
    calibration: "CalibrationOptions | None" = None,
    threads: int | None = None,
    force: bool = False,
    resume: bool = False,
    measure: bool = False,
    watcher: Watcher | None = None,
) -> Report:
    """Quantize a model into a GGUF file or a checkpoint folder: what ``quantrs quantize`` does, as one call.

    Parameters
    ----------
    src, dst : path-like
        The model, a GGUF file (of a split one, the first) or a checkpoint folder, and the file or folder to write. Nothing has its final
        name before it is whole.
    scheme : str
        In any letter case: a file type of GGUF (``"Q4_K_M"``, ``"IQ4_XS"``, ``"F16"``, ``"COPY"`` ...), or what a folder is to hold:
        ``"gptq-w4-g128"``, ``"awq-w4-g128"``, ``"w4a16-g128"``, ``"w8a8"``, ``"fp8"`` ...
    method : {"gptq", "awq", "smoothquant", "rtn"}, optional
        For folders: how integers are found; what suits the format when not given.
    skip : sequence of str
        For folders: regular expressions; linears in whose name one is found stay as they are.
    smooth_alpha : float
        Of SmoothQuant: 0 leaves inputs as they are, 1 moves their whole range into the weights.
    damp_percent, mse : float
        Of `quantrs.gptq` and `quantrs.quantize_groups`.
    imatrix : path-like, optional
        Importance matrix, of either format. The written file names it as given here.
    include_weights, exclude_weights : sequence of str
        Use only, or leave out, importance entries whose name contains one of these.
    pure : bool
        All tensors get the type that `scheme` is named after.
    leave_output_tensor : bool
        Copy ``output.weight``.
    output_tensor_type, token_embedding_type : str, optional
        Tensor types of ``output.weight`` and ``token_embd.weight``.
    tensor_types : sequence of (str, str)
        Regular expression and tensor type; the first that is found in a tensor's name decides.
    recipe : path-like, optional
        TOML file of ordered rules.
    override_kv : sequence of str
        ``KEY=TYPE:VALUE``: metadata to write instead of the source's.
    prune_layers : sequence of int
        Layers to leave out.
    keep_split : bool
        Write as many files as the source has.
    allow_requantize : bool
        Accept a source that is quantized already.
    pre : str, optional
        Name of the pre-tokenizer, for a checkpoint folder whose own cannot be recognised.
    arch : str, optional
        ``"generic"``: keep the tensors of a checkpoint folder as they are called, whatever model they belong to.
    lora : sequence of str
        ``DIR`` or ``DIR:SCALE``: adapters of PEFT to add to the weights of a checkpoint folder first.
    calibration : CalibrationOptions, optional
        For a GGUF file: compute the importance matrix from a text, which the file names. For a folder: which text the method sees; the
        one that comes with the package when not given.
    threads : int, optional
        By default all CPUs that the process may use. The bytes do not depend on it.
    force : bool
        Replace `dst` if it exists, and drop unfinished work on it unless `resume` is given.
    resume : bool
        Go on from an earlier call that was broken off. With nothing to resume the work starts afresh; with `dst` already
        complete nothing is done.
    measure : bool
        Compare each converted tensor with its source (`Report.errors`).
    watcher : Watcher, optional
        Is told about progress and notices.

    Returns
    -------
    Report

    Raises
    ------
    UsageError, InputError, FormatError
        The job cannot be done; nothing is left behind.
    FileError
        Reading or writing failed. What is done so far is kept for `resume`.

    Examples
    --------
    >>> import quantrs as qr
    >>> report = qr.quantize_checkpoint("model.gguf", "model-q4_k_m.gguf", scheme="Q4_K_M")
    >>> report.file_type, report.already_complete
    ('Q4_K_M', False)
    """
    options = QuantizeOptions(
        to=scheme,
        method=method,
        skip=tuple(skip),
        smooth_alpha=smooth_alpha,
        damp_percent=damp_percent,
        mse=mse,
        imatrix=None if imatrix is None else os.fspath(imatrix),
        include_weights=tuple(include_weights),
        exclude_weights=tuple(exclude_weights),
        pure=pure,
        leave_output_tensor=leave_output_tensor,
        output_tensor_type=output_tensor_type,
        token_embedding_type=token_embedding_type,
        tensor_types=tuple((pattern.lower(), type_name) for pattern, type_name in tensor_types),
        recipe=None if recipe is None else Path(recipe),
        override_kv=tuple(override_kv),
        prune_layers=tuple(prune_layers),
        keep_split=keep_split,
        allow_requantize=allow_requantize,
        pre=pre,
        arch=arch,
        lora=tuple(lora),
    )
    return quantize_model(
        src,
        dst,
        options,
        calibration=calibration,
        threads=threads,
        force=force,
        resume=resume,
        measure=measure,
        watcher=watcher or Watcher(),
    )


def quantize_model(
    src: "str | PathLike[str]",
    dst: "str | PathLike[str]",
    options: QuantizeOptions,
    *,
    calibration: "CalibrationOptions | None" = None,
    threads: int | None,
    force: bool,
    resume: bool,
    measure: bool,
    watcher: Watcher,
) -> Report:
    """`quantize_checkpoint` with its options as one record."""
    scheme = folder_scheme(options.to)
    options.check_for(folder=scheme is not None)
    if scheme is not None:
        from quantrs.quantizing.folder import quantize_folder

        if measure:
            raise UsageError("--error: is for GGUF files; eval --reference measures a folder against its source")
        if not os.fspath(dst):  # which would be the current folder
            raise UsageError("the output has an empty name; give the folder one, such as model-" + scheme.name)
        return quantize_folder(
            src,
            Path(dst),
            scheme,
            options,
            calibration=calibration,
            threads=thread_counts.checked(threads),
            force=force,
            resume=resume,
            watcher=watcher,
        )
    started, dst = time.perf_counter(), Path(dst)
    threads = thread_counts.checked(threads)
    with opened(os.fspath(src), dst, pre=options.pre, arch=options.arch, lora=options.lora) as source, ExitStack() as stack:
        if calibration is not None:
            from quantrs.calibration.for_gguf import with_imatrix

            options = stack.enter_context(
                with_imatrix(source, dst, options, calibration, threads=threads, force=force, resume=resume, watcher=watcher)
            )
        return write_gguf(
            source, dst, options, started=started, threads=threads, force=force, resume=resume, measure=measure, watcher=watcher
        )


def opened(src: str, dst: Path, *, pre: str | None, arch: str | None, lora: Sequence[str]) -> "AbstractContextManager[_native.Gguf]":
    """The source of a job that writes `dst`, for as long as the block runs."""
    if lora:
        from quantrs.lora_source import open_with_lora

        return open_with_lora(src, lora, dst, pre=pre)
    return nullcontext(open_model(src, pre=pre, arch=arch))


def write_gguf(
    source: "_native.Gguf",
    dst: Path,
    options: QuantizeOptions,
    *,
    started: float,
    threads: int | None,
    force: bool,
    resume: bool,
    measure: bool,
    watcher: Watcher,
) -> Report:
    """Plan a GGUF file of an open model, and write it; `started` is where the report's clock begins."""
    plan = Plan.for_gguf(source, options, os.fspath(dst))
    output.check_names(plan, [*source.files, *(path for path in (options.imatrix, options.recipe) if path)])
    return carry_out(source, plan, dst, started=started, threads=threads, force=force, resume=resume, measure=measure, watcher=watcher)


def carry_out(
    source: "_native.Gguf",
    plan: Plan,
    dst: Path,
    *,
    started: float,
    threads: int | None,
    force: bool,
    resume: bool,
    measure: bool,
    watcher: Watcher,
    maker: "Maker | None" = None,
    progress: JobProgress | None = None,
) -> Report:
    """Write what is planned, under a journal named after `dst`.

    `maker` computes the tensors of the plan that are not converted, and counts on `progress`.
    """
    threads = thread_counts.checked(threads)
    plan.check()
    for text in (*source.notices, *plan.notices):
        watcher.notice(text)
    watcher.planned(plan)
    job = fingerprint(source, plan)

    with Journal.lock(dst) as journal:
        done = _take_up(journal, job, plan, force=force, resume=resume)
        if done is None:
            return _report(source, plan, started, already_complete=True)
        output.check_room(plan)
        if not done:
            _drop_old_work(journal, plan)
        n_resumed = len(done)
        progress = progress or JobProgress()
        writer = Writer(
            source=source,
            plan=plan,
            job=job,
            journal=journal,
            done=done,
            progress=progress.native,
            threads=threads,
            measure=measure,
            maker=maker,
        )
        try:
            run_watched(lambda: writer.run(force=force), watcher=watcher, progress=progress, total_bytes=writer.todo_bytes())
        except BaseException:
            if journal.is_open:
                watcher.kept((*map(part_path, writer.outputs), journal.path))
            raise
        return _report(source, plan, started, written=writer.written(), resumed_tensors=n_resumed)


def _take_up(journal: Journal, job: "Job", plan: Plan, *, force: bool, resume: bool) -> "dict[Key, Record] | None":
    """Decide what becomes of an earlier run's work: its records to go on from, ``{}`` to start afresh, None if all is done.

    Raises
    ------
    InputError
        The output exists, or unfinished work is another job's, or needs a decision by the user.
    """
    same = journal.job == job
    goes_on = resume and same and bool(journal.records) and _parts_fit(journal, plan)
    if resume and not (goes_on and force) and _nothing_else(journal, same) and output.is_complete(plan):
        if same:
            _drop_old_work(journal, plan)
        return None
    if not same and journal.holds_work and (resume or not force):
        found = f"it differs in: {journal.job.difference(job)}" if journal.job else "another version of quantrs wrote it"
        raise InputError(
            f"{journal.path}: holds the unfinished work of another job ({found}); finish that one, or start afresh with --force "
            "and without --resume"
        )
    if same and journal.holds_work and not (force or resume):
        raise InputError(
            f"{journal.path}: {len(journal.records)} of {len(plan.tensors)} tensors of this very job are done already; "
            "--resume goes on from there, --force starts afresh"
        )
    if not force:
        output.check_absent(file for file in plan.files if not (goes_on and journal.complete and output.is_renamed(file)))
    return {(record.file, record.tensor): record for record in journal.records} if goes_on else {}


def _nothing_else(journal: Journal, same: bool) -> bool:
    return same or not journal.holds_work


def _parts_fit(journal: Journal, plan: Plan) -> bool:
    """Each output is there as a part file of the planned size, or, once all was complete, under its final name."""
    return all(output.has_part(file) or (journal.complete and output.is_renamed(file)) for file in plan.files)


def _drop_old_work(journal: Journal, plan: Plan) -> None:
    names = {Path(file.path) for file in plan.files}
    if journal.job is not None:
        names |= {journal.path.with_name(name) for name, _ in journal.job.outputs}
    output.discard_parts(names)
    journal.forget()


def _report(
    source: "_native.Gguf",
    plan: Plan,
    started: float,
    *,
    written: "Sequence[tuple[TensorPlan, Record]]" = (),
    resumed_tensors: int = 0,
    already_complete: bool = False,
) -> Report:
    n_weights = sum(tensor.n_weights for tensor in plan.tensors)
    return Report(
        files=tuple(file.path for file in plan.files),
        file_type=plan.file_type,
        source_bytes=plan.source_bytes,
        file_bytes=plan.file_bytes,
        source_bits_per_weight=8 * _stored_bytes(plan) / n_weights if n_weights else 0.0,
        bits_per_weight=8 * sum(tensor.nbytes for tensor in plan.tensors) / n_weights if n_weights else 0.0,
        seconds=time.perf_counter() - started,
        already_complete=already_complete,
        tensors=len(plan.tensors),
        resumed_tensors=resumed_tensors,
        clipped_blocks=sum(record.clipped_blocks for _, record in written),
        notices=(*source.notices, *plan.notices),
        errors=group_errors(written),
    )


def _stored_bytes(plan: Plan) -> int:
    """Of the source's tensors. Linears of a quantized folder count as the type that holds their values, the files hold less."""
    tensor_bytes = sum(tensor.source_bytes for tensor in plan.tensors)
    return min(tensor_bytes, plan.source_bytes) if any(is_packed(tensor.source) for tensor in plan.tensors) else tensor_bytes
