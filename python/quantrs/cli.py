"""The ``quantrs`` command. Nothing heavy is imported before a command needs it: start-up counts."""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from quantrs.cli_parser import Command, build_parser, calibration_options, quantize_options
from quantrs.errors import InputError, QuantrsError, UsageError

if TYPE_CHECKING:
    from quantrs.progress import StderrWatcher

__all__ = ["COMMANDS", "main"]

_DONE, _FAILED, _USAGE = 0, 1, 2


def run(args: argparse.Namespace) -> int:
    """Write what follows a prompt."""
    from quantrs import text_commands

    generation = text_commands.run(args)
    if args.json:
        _show(args, lambda: text_commands.run_json(generation), str)
    return _DONE


def chat(args: argparse.Namespace) -> int:
    """Talk with a model."""
    from quantrs import text_commands

    return text_commands.chat(args, lambda text: print(text, file=sys.stderr, flush=True))


def quantize(args: argparse.Namespace) -> int:
    """Write a quantized model."""
    from quantrs import progress
    from quantrs.pipeline import quantize_model

    watcher = progress.for_stderr()
    with _telling_how_to_resume(args, watcher):
        report = quantize_model(
            args.src,
            args.dst,
            quantize_options(args),
            calibration=calibration_options(args),
            threads=args.threads,
            force=args.force,
            resume=args.resume,
            measure=args.error,
            watcher=watcher,
        )
    _show(args, report.to_json, lambda: str(report))
    return _DONE


def convert(args: argparse.Namespace) -> int:
    """Write a model of floats in the other container."""
    from quantrs import progress
    from quantrs.conversion import convert as convert_model

    watcher = progress.for_stderr()
    with _telling_how_to_resume(args, watcher):
        report = convert_model(
            args.src,
            args.dst,
            to=args.to,
            max_shard_bytes=args.max_shard_size,
            pre=args.pre,
            arch=args.arch,
            lora=args.lora,
            base=args.base,
            threads=args.threads,
            force=args.force,
            resume=args.resume,
            watcher=watcher,
        )
    _show(args, report.to_json, lambda: str(report))
    return _DONE


@contextmanager
def _telling_how_to_resume(args: argparse.Namespace, watcher: "StderrWatcher") -> Iterator[None]:
    try:
        yield
    except BaseException:
        if watcher.kept_files:
            _complain(f"what is done so far is kept beside {args.dst}; go on with:\n  {_resume_line()}")
        raise


def imatrix(args: argparse.Namespace) -> int:
    """Write an importance matrix."""
    from quantrs.calibration.imatrix import make_imatrix
    from quantrs.chunk_progress import StepLine

    line = StepLine()
    try:
        made = make_imatrix(
            args.model,
            args.out,
            text=args.text,
            ctx=args.ctx,
            chunks=args.chunks,
            process_output=args.process_output,
            merge=args.merge,
            min_coverage=getattr(args, "min_coverage", None),
            pre=args.pre,
            threads=args.threads,
            force=args.force,
            resume=args.resume,
            watch=lambda n_done, n_all: line.show(n_done, n_all, "summing squares"),
        )
    finally:
        line.close()
    for text in made.coverage.notices():
        _complain(text)
    _show(args, made.to_json, lambda: str(made))
    return _DONE


def plan(args: argparse.Namespace) -> int:
    """Show the plan, also of a job that `quantize` would refuse."""
    from quantrs.open_model import open_model
    from quantrs.plan import Plan
    from quantrs.plan_text import plan_text
    from quantrs.quantizing.schemes import folder_scheme

    options = quantize_options(args)
    scheme = folder_scheme(options.to)
    options.check_for(folder=scheme is not None)
    if scheme is not None:
        from quantrs.quantizing.folder import planned_folder

        folder_plan = planned_folder(args.src, scheme, options)
        _show(args, folder_plan.to_json, lambda: plan_text(folder_plan))
        return _DONE
    source = open_model(args.src, pre=options.pre, arch=options.arch)
    planned = Plan.for_gguf(source, options)
    for text in (*source.notices, *planned.notices, *(f"quantize would refuse: {text}" for text in planned.refusals)):
        _complain(text)
    _show(args, planned.to_json, lambda: plan_text(planned))
    return _DONE


def inspect(args: argparse.Namespace) -> int:
    """Show a header."""
    from quantrs.inspection import Inspection
    from quantrs.open_model import open_model

    inspection = Inspection(open_model(args.file), args.all)
    _show(args, inspection.to_json, lambda: str(inspection))
    return _DONE


def verify(args: argparse.Namespace) -> int:
    """Fail if something is wrong with a file, or if two models are not the same."""
    from quantrs import progress
    from quantrs.text import human_bytes, printable
    from quantrs.verify import verify as verify_file

    watcher = progress.for_stderr()
    if args.other is not None:
        from quantrs.comparison import compare

        compared = compare(args.file, args.other, pre=args.pre, arch=args.arch, threads=args.threads, watcher=watcher)
        for text in (*compared.notices, *(f"{finding.where}: {finding.what}" for finding in compared.findings)):
            _complain(text)
        _show(args, compared.to_json, lambda: str(compared))
        return _FAILED if compared.findings else _DONE
    found = verify_file(args.file, pre=args.pre, arch=args.arch, threads=args.threads, watcher=watcher)
    for text in (*found.notices, *(f"{finding.where}: {finding.what}" for finding in found.findings)):
        _complain(text)
    summary = f"{printable(args.file)}: {len(found.findings) or 'no'} findings; {found.tensors} tensors, {human_bytes(found.nbytes)} read"
    _show(args, found.to_json, lambda: summary)
    return _FAILED if found.findings else _DONE


def size(args: argparse.Namespace) -> int:
    """Show sizes as each type."""
    from quantrs.fitting import SizeRequest
    from quantrs.size_text import size_text
    from quantrs.sizing import ModelSizes
    from quantrs.sizing import size as size_of

    request = SizeRequest(
        n_ctx=args.context,
        batch=args.batch,
        kv_type=args.kv_type,
        ram=args.ram,
        vram=args.vram,
        hardware=args.hardware,
        pre=args.pre,
        arch=args.arch,
    )
    sizes = size_of(args.what, request)
    for notice in sizes.notices if isinstance(sizes, ModelSizes) else ():
        _complain(notice)
    _show(args, sizes.to_json, lambda: size_text(sizes))
    return _DONE


def evaluate(args: argparse.Namespace) -> int:
    """Measure how well a model predicts a text, and how far it is from another one."""
    from quantrs.chunk_progress import ChunkProgress
    from quantrs.engine import Session
    from quantrs.evaluation import kl_divergence, perplexity
    from quantrs.whole_files import read_text

    text = read_text(args.text)

    def session(path: str) -> Session:
        return Session(path, threads=args.threads, activations=args.activations, kv_type=args.kv_type, n_ctx=args.ctx)

    model = session(args.model)
    reference = None if args.reference is None else session(args.reference)
    progress = ChunkProgress()
    try:
        if reference is None:
            found = perplexity(model, text, ctx=args.ctx, max_chunks=args.chunks, watch=progress)
        else:
            found = kl_divergence(model, reference, text, ctx=args.ctx, max_chunks=args.chunks, watch=progress)
    finally:
        progress.close()
    _show(args, found.to_json, lambda: str(found))
    return _DONE


def bench(args: argparse.Namespace) -> int:
    """Time a model."""
    from quantrs.model_bench import bench_model

    found = bench_model(
        args.model,
        n_prompts=args.n_prompt,
        n_gens=args.n_gen,
        depths=args.depth,
        repetitions=args.repetitions,
        threads=args.threads,
        activations=args.activations,
        kv_type=args.kv_type,
    )
    _show(args, found.to_json, lambda: str(found))
    return _DONE


def doctor(args: argparse.Namespace) -> int:
    """Show what this installation runs on."""
    from quantrs import doctor as doctor_module

    found = doctor_module.diagnose()
    _show(args, lambda: found, lambda: doctor_module.to_text(found))
    return _DONE


COMMANDS: dict[str, Command] = {
    "quantize": quantize,
    "convert": convert,
    "imatrix": imatrix,
    "plan": plan,
    "inspect": inspect,
    "verify": verify,
    "size": size,
    "run": run,
    "chat": chat,
    "eval": evaluate,
    "bench": bench,
    "doctor": doctor,
}


class _Signalled(BaseException):
    """SIGINT or SIGTERM has come; not an Exception, so that nothing takes it for an ordinary failure."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def main(arguments: list[str] | None = None) -> None:
    """Run the command and exit: 0 done, 1 failed or found something, 2 wrong usage, 130 and 143 stopped by a signal."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:  # names that the terminal's encoding lacks are shown escaped
            reconfigure(errors="backslashreplace")
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _raise_signalled)
    sys.exit(_run(sys.argv[1:] if arguments is None else arguments))


def _raise_signalled(number: int, frame: FrameType | None) -> None:
    raise _Signalled(number)


def _run(arguments: list[str]) -> int:
    from quantrs import _native

    args = build_parser(_native.__version__, COMMANDS).parse_args(arguments)
    command: Command = args.command
    try:
        _check_level()
        code = command(args)
        sys.stdout.flush()
        return code
    except _Signalled as caught:
        _complain(f"stopped by {caught}")
        return 128 + caught.number
    except BrokenPipeError:  # the reader has gone: there is nobody to tell, and nothing left to flush
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _FAILED
    except Exception as error:
        if args.debug:
            import traceback

            traceback.print_exc()
        return _explain(error)


def _check_level() -> None:
    from quantrs import _native

    try:
        _native.level()
    except InputError as error:
        raise UsageError(str(error)) from error


def _explain(error: Exception) -> int:
    """Print the one line that a user needs, and return the exit code."""
    if isinstance(error, QuantrsError | OSError):
        _complain(str(error))
        return _USAGE if isinstance(error, UsageError) else _FAILED
    if isinstance(error, MemoryError):
        _complain("out of memory; --threads 1 needs the least")
    else:
        _complain(f"internal error, please report it (--debug shows more): {type(error).__name__}: {error}")
    return _FAILED


def _complain(text: str) -> None:
    from quantrs.text import printable

    print("quantrs: " + "\n".join(map(printable, text.split("\n"))), file=sys.stderr)


def _show(args: argparse.Namespace, value: Callable[[], object], text: Callable[[], str]) -> None:
    if not args.json:
        print(text())
        return
    import json

    print(json.dumps(value(), indent=1, allow_nan=False))


def _resume_line() -> str:
    import shlex

    arguments = sys.argv[1:]
    return shlex.join(["quantrs", *arguments, *([] if "--resume" in arguments else ["--resume"])])
