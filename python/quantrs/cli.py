"""The ``quantrs`` command. Nothing heavy is imported before a command needs it: start-up counts."""

import json
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from quantrs.cli_options import (
    AllowRequantize,
    Debug,
    ExcludeWeights,
    File,
    Imatrix,
    IncludeWeights,
    Json,
    KeepSplit,
    LeaveOutputTensor,
    OutputTensorType,
    OverrideKv,
    PruneLayers,
    Pure,
    Recipe,
    Source,
    TensorType,
    TensorTypeFile,
    Threads,
    To,
    TokenEmbeddingType,
    quantize_options,
)
from quantrs.errors import QuantrsError, UsageError

__all__ = ["app", "main"]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)

_FOUND_SOMETHING = 1


@app.callback()
def _every_command(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=lambda on: _version(on))
    ] = False,
    debug: Debug = False,
) -> None:
    """Quantize language models on any CPU: every byte as llama-quantize writes it, several times faster."""
    from quantrs import _native
    from quantrs.errors import InputError

    try:
        _native.level()
    except InputError as error:
        raise UsageError(str(error)) from error


@app.command()
def quantize(
    src: Source,
    dst: Annotated[Path, typer.Argument(metavar="DST", help="File to write.", show_default=False)],
    to: To,
    imatrix: Imatrix = None,
    include_weights: IncludeWeights = None,
    exclude_weights: ExcludeWeights = None,
    pure: Pure = False,
    leave_output_tensor: LeaveOutputTensor = False,
    output_tensor_type: OutputTensorType = None,
    token_embedding_type: TokenEmbeddingType = None,
    tensor_type: TensorType = None,
    tensor_type_file: TensorTypeFile = None,
    recipe: Recipe = None,
    override_kv: OverrideKv = None,
    prune_layers: PruneLayers = None,
    keep_split: KeepSplit = False,
    allow_requantize: AllowRequantize = False,
    threads: Threads = None,
    force: Annotated[bool, typer.Option("--force", help="Replace DST if it exists.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was broken off.")] = False,
    error: Annotated[bool, typer.Option("--error", help="Measure the error of every tensor group against the source.")] = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Quantize a GGUF model.

    DST appears under its name only when it is whole. A run that was broken off leaves .DST.quantrs-part and
    .DST.quantrs-journal beside it, and goes on from there with --resume.

    \b
    Example:
      quantrs quantize model-f16.gguf model-q4_k_m.gguf --to Q4_K_M --imatrix model.imatrix.gguf
    """
    from quantrs import progress
    from quantrs.pipeline import quantize_gguf

    options = quantize_options(
        to=to,
        imatrix=imatrix,
        include_weights=include_weights,
        exclude_weights=exclude_weights,
        pure=pure,
        leave_output_tensor=leave_output_tensor,
        output_tensor_type=output_tensor_type,
        token_embedding_type=token_embedding_type,
        tensor_type=tensor_type,
        tensor_type_file=tensor_type_file,
        recipe=recipe,
        override_kv=override_kv,
        prune_layers=prune_layers,
        keep_split=keep_split,
        allow_requantize=allow_requantize,
    )
    watcher = progress.for_stderr()
    try:
        report = quantize_gguf(src, dst, options, threads=threads, force=force, resume=resume, measure=error, watcher=watcher)
    finally:
        if watcher.kept_files:
            _complain(f"what is done so far is kept beside {dst}; go on with:\n  {_resume_line()}")
    _show(json_output, report.to_json, lambda: str(report))


@app.command()
def plan(
    src: Source,
    to: To,
    imatrix: Imatrix = None,
    include_weights: IncludeWeights = None,
    exclude_weights: ExcludeWeights = None,
    pure: Pure = False,
    leave_output_tensor: LeaveOutputTensor = False,
    output_tensor_type: OutputTensorType = None,
    token_embedding_type: TokenEmbeddingType = None,
    tensor_type: TensorType = None,
    tensor_type_file: TensorTypeFile = None,
    recipe: Recipe = None,
    override_kv: OverrideKv = None,
    prune_layers: PruneLayers = None,
    keep_split: KeepSplit = False,
    allow_requantize: AllowRequantize = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Show what quantize would do: the type of each tensor, why, and the exact size of the file.

    Exit code 1 when quantize would refuse.

    \b
    Example:
      quantrs plan model-f16.gguf --to Q4_K_M --tensor-type attn_v=q8_0
    """
    from quantrs import _native
    from quantrs.plan import Plan
    from quantrs.plan_text import plan_text

    options = quantize_options(
        to=to,
        imatrix=imatrix,
        include_weights=include_weights,
        exclude_weights=exclude_weights,
        pure=pure,
        leave_output_tensor=leave_output_tensor,
        output_tensor_type=output_tensor_type,
        token_embedding_type=token_embedding_type,
        tensor_type=tensor_type,
        tensor_type_file=tensor_type_file,
        recipe=recipe,
        override_kv=override_kv,
        prune_layers=prune_layers,
        keep_split=keep_split,
        allow_requantize=allow_requantize,
    )
    source = _native.Gguf.open(src)
    planned = Plan.for_gguf(source, options)
    for text in (*source.notices, *planned.notices):
        _complain(text)
    _show(json_output, planned.to_json, lambda: plan_text(planned))
    planned.check()


@app.command()
def inspect(
    file: File,
    whole_arrays: Annotated[bool, typer.Option("--all", help="Show long metadata arrays and strings in full.")] = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Show what a GGUF file holds: metadata, tensors, bits per weight.

    \b
    Example:
      quantrs inspect model.gguf --json
    """
    from quantrs import _native
    from quantrs.inspection import Inspection

    inspection = Inspection(_native.Gguf.open(file), whole_arrays)
    _show(json_output, inspection.to_json, lambda: str(inspection))


@app.command()
def verify(file: File, threads: Threads = None, json_output: Json = False, debug: Debug = False) -> None:
    """Look for damage: bounds, sizes, types, strings, and scales or values that are infinite or NaN.

    Exit code 1 when something is found.

    \b
    Example:
      quantrs verify model.gguf
    """
    from quantrs import progress
    from quantrs.text import human_bytes, printable
    from quantrs.verify import verify as verify_file

    found = verify_file(file, threads=threads, watcher=progress.for_stderr())
    for text in (*found.notices, *(f"{finding.where}: {finding.what}" for finding in found.findings)):
        _complain(text)
    summary = f"{printable(str(file))}: {len(found.findings) or 'no'} findings; {found.tensors} tensors, {human_bytes(found.nbytes)} read"
    _show(json_output, found.to_json, lambda: summary)
    if found.findings:
        raise typer.Exit(_FOUND_SOMETHING)


@app.command()
def doctor(json_output: Json = False, debug: Debug = False) -> None:
    """Show CPU level, threads and versions.

    QUANTRS_LEVEL=scalar (or another of the levels) forces a lower level.

    \b
    Example:
      quantrs doctor
    """
    from quantrs import doctor as doctor_module

    found = doctor_module.diagnose()
    _show(json_output, lambda: found, lambda: doctor_module.to_text(found))


def main(arguments: list[str] | None = None) -> None:
    """Run the command; exits with 0 (done), 1 (failed, or found something), 2 (wrong usage), 130 or 143 (signals)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
    with_signals = {signal.SIGINT: _raise_signalled, signal.SIGTERM: _raise_signalled}
    for number, handler in with_signals.items():
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)
    sys.exit(_run(arguments))


class _Signalled(BaseException):
    """SIGINT or SIGTERM has come; not an Exception, so that nothing takes it for an ordinary failure."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def _raise_signalled(number: int, frame: FrameType | None) -> None:
    raise _Signalled(number)


def _run(arguments: list[str]) -> int:
    try:
        code = app(args=arguments, prog_name="quantrs", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except _Signalled as caught:
        _complain(f"stopped by {caught}")
        return 128 + caught.number
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has gone: nothing left to flush
        return 1
    except Exception as error:
        if "--debug" in arguments:
            traceback.print_exc()
        return _explain(error)


def _explain(error: Exception) -> int:
    """Print the one line that a user needs, and return the exit code."""
    show, exit_code = getattr(error, "show", None), getattr(error, "exit_code", None)
    if callable(show) and isinstance(exit_code, int):  # a usage error of the command line parser
        show()
        return exit_code
    if isinstance(error, UsageError):
        _complain(str(error))
        return 2
    if isinstance(error, QuantrsError | OSError):
        _complain(str(error))
    elif isinstance(error, MemoryError):
        _complain("out of memory; --threads 1 needs the least")
    else:
        _complain(f"internal error, please report it (--debug shows more): {type(error).__name__}: {error}")
    return 1


def _complain(text: str) -> None:
    from quantrs.text import printable

    print("quantrs: " + "\n".join(map(printable, text.split("\n"))), file=sys.stderr)


def _show(as_json: bool, value: Callable[[], dict[str, object]], text: Callable[[], str]) -> None:
    print(json.dumps(value(), indent=1, allow_nan=False) if as_json else text())


def _resume_line() -> str:
    arguments = sys.argv[1:]
    return shlex.join(["quantrs", *arguments, *([] if "--resume" in arguments else ["--resume"])])


def _version(asked: bool) -> None:
    if asked:
        from quantrs import _native

        print(f"quantrs {_native.__version__}")
        raise typer.Exit
