"""The words of the command line: commands, options, help. Made with argparse, which starts in a few milliseconds."""

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from quantrs.errors import UsageError
from quantrs.options import QuantizeOptions, parse_prune_layers, parse_tensor_type, read_tensor_type_file

if TYPE_CHECKING:
    from quantrs.calibration.options import CalibrationOptions

__all__ = ["Command", "build_parser", "calibration_options", "quantize_options"]

_LEAST_CTX = 8
"""`quantrs.evaluation.MIN_CTX`, which is not imported here because start-up counts."""

_MODEL = "GGUF model (of a split one, the first file) or checkpoint folder"

_CALIBRATION = {
    "sequences": "--calib-sequences",
    "length": "--calib-length",
    "seed": "--calib-seed",
    "memory_budget": "--calib-memory",
    "sequential": "--no-sequential",
    "min_coverage": "--min-coverage",
}
"""Fields of `CalibrationOptions`, and the flags that set them."""
_TEXTS = "plain text, *.jsonl with text or messages, or *.npy of token ids; a text that comes with quantrs unless given"

Command = Callable[[argparse.Namespace], int]
"""Does the work of a command, and returns the exit code."""


def build_parser(version: str, commands: dict[str, Command]) -> argparse.ArgumentParser:
    """The parser; the namespace it returns has the chosen one of `commands` as ``command``."""
    parser = argparse.ArgumentParser(
        prog="quantrs",
        description="Quantize language models on any CPU: every byte as llama-quantize writes it, several times faster.",
        epilog="Exit codes: 0 done, 1 failed or found something, 2 wrong usage, 130 and 143 stopped by a signal.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"quantrs {version}", help="print the version and exit")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, summary: str, *, details: str = "", examples: str) -> argparse.ArgumentParser:
        sub = subparsers.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.\n\n{details}".rstrip(),
            epilog="\n".join(["Example:", *(f"  quantrs {line}" for line in examples.split("\n"))]),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        sub.set_defaults(command=commands[name])
        return sub

    sub = add(
        "quantize",
        "quantize a model",
        details=(
            "SRC is a GGUF file or a checkpoint folder (config.json, *.safetensors, tokenizer), which is read in one pass.\n"
            "DST appears under its name only when it is whole. A run that was broken off leaves\n"
            ".DST.quantrs-part and .DST.quantrs-journal beside it, and goes on from there with --resume."
        ),
        examples=(
            "quantize model-f16.gguf model-q4_k_m.gguf --to Q4_K_M --imatrix model.imatrix.gguf\n"
            "quantize SmolLM2-135M/ model-q4_k_m.gguf --to Q4_K_M"
        ),
    )
    sub.add_argument("src", metavar="SRC", help=_MODEL)
    sub.add_argument("dst", metavar="DST", help="file to write")
    _add_plan_options(sub)
    _add_source_options(sub)
    _add_lora(sub)
    _add_writing(sub)
    _add_calibration(sub)
    sub.add_argument("--error", action="store_true", help="measure the error of every tensor group against the source")
    _add_output(sub)

    sub = add(
        "convert",
        "convert between GGUF and checkpoint folders",
        details=(
            "A DST that ends in .gguf is written as GGUF, any other is made a folder: config.json, *.safetensors, tokenizer.\n"
            "Quantized tensors become floats where DST has no type that holds their values, or --to is a type of floats. With --to\n"
            "gptq-w4-g128 and the like, quantized linears become those of another format: code by code where its grid contains theirs,\n"
            "else rounded, and the loss is printed. Models of floats are quantized by quantize."
        ),
        examples=(
            "convert SmolLM2-135M/ model-bf16.gguf\n"
            "convert model-q4_k_m.gguf SmolLM2-135M-again/ --to F16\n"
            "convert model-awq/ model-gptq/ --to gptq-w4-g128-asym-v2"
        ),
    )
    sub.add_argument("src", metavar="SRC", help=_MODEL)
    sub.add_argument("dst", metavar="DST", help="file.gguf or folder to write")
    sub.add_argument(
        "--to",
        metavar="TYPE",
        help="F32, F16 or BF16 matrices; or of a quantized SRC gptq-w4-g128, awq-w4-g64, w4a16-g128, w8a16 ...; the source's unless given",
    )
    sub.add_argument("--base", metavar="DIR", help="checkpoint folder of the base model, when SRC is an adapter to be written as GGUF")
    sub.add_argument(
        "--max-shard-size", metavar="SIZE", type=_byte_count, default=5 * 10**9, help="of each *.safetensors, 5GB unless given"
    )
    _add_source_options(sub)
    _add_lora(sub)
    _add_writing(sub)
    _add_output(sub)

    sub = add(
        "imatrix",
        "compute an importance matrix",
        details=(
            "Runs MODEL over a text and sums the squares of what each column of a weight is multiplied with: entries and files are those\n"
            "of llama-imatrix. An OUT that ends in .dat is written in the legacy form. Without MODEL, files are merged."
        ),
        examples=(
            "imatrix model-f16.gguf --text calibration.txt -o model.imatrix.gguf\n"
            "imatrix --merge a.imatrix.gguf --merge b.imatrix.gguf -o both.imatrix.gguf"
        ),
    )
    sub.add_argument("model", metavar="MODEL", nargs="?", help=_MODEL)
    sub.add_argument("-o", "--out", metavar="OUT", required=True, help="file to write")
    sub.add_argument("--text", metavar="FILE", help=_TEXTS)
    sub.add_argument("--ctx", metavar="N", type=_count_from(_LEAST_CTX), default=512, help="tokens per chunk, 512 unless given")
    sub.add_argument("--chunks", metavar="N", type=_count_from(1), help="stop after so many chunks")
    sub.add_argument("--process-output", action="store_true", help="also the output matrix, where the model has one of its own")
    sub.add_argument("--merge", metavar="FILE", action="append", default=[], help="matrix to add, of either form; may be repeated")
    _add_coverage(sub)
    sub.add_argument("--pre", metavar="NAME", help="pre-tokenizer of a checkpoint folder, where its own is not recognised")
    _add_threads(sub)
    sub.add_argument("--force", action="store_true", help="replace OUT if it exists")
    sub.add_argument("--resume", action="store_true", help="go on with a run that was broken off")
    _add_output(sub)

    sub = add(
        "plan",
        "show what quantize would do",
        details="The type of each tensor, why, and the exact size of the file. What quantize would refuse is said on standard error.",
        examples="plan model-f16.gguf --to Q4_K_M --tensor-type attn_v=q8_0",
    )
    sub.add_argument("src", metavar="SRC", help=_MODEL)
    _add_plan_options(sub)
    _add_source_options(sub)
    _add_output(sub)

    sub = add("inspect", "show what a GGUF file holds", details="Metadata, tensors, bits per weight.", examples="inspect model.gguf --json")
    sub.add_argument("file", metavar="FILE", help="GGUF file; of a split model, the first one")
    sub.add_argument("--all", action="store_true", help="show long metadata arrays and strings in full")
    _add_output(sub)

    sub = add(
        "verify",
        "look for damage in a model, or compare two",
        details=(
            "One MODEL: bounds, overlaps, sizes, types, strings, and scales or values that are infinite or NaN.\n"
            "Two: tensors are equal within what their types round, hyperparameters are equal, and so are the token ids of hard texts;\n"
            "what differs besides is listed. Exit code 1 when something is found."
        ),
        examples="verify model.gguf\nverify SmolLM2-135M/ model-q4_k_m.gguf",
    )
    sub.add_argument("file", metavar="MODEL", help=_MODEL)
    sub.add_argument("other", metavar="OTHER", nargs="?", help="model to compare it with")
    _add_source_options(sub)
    _add_threads(sub)
    _add_output(sub)

    sub = add(
        "size",
        "show how large a model becomes as each type, and where it fits",
        details=(
            "From its parameter count; or exactly, from its file, its folder or its config.json alone: the file of each type, and what\n"
            "running it takes: weights, keys and values, buffers. An eighth of --ram and a sixteenth of --vram are left to others."
        ),
        examples="size 70B\nsize model-f16.gguf --context 8192 --ram 32GiB\nsize Qwen3-8B/config.json --vram 24GiB --hardware mac",
    )
    sub.add_argument("what", metavar="COUNT|MODEL", help="parameter count (70B, 135M, 7e9), GGUF model, checkpoint folder or config.json")
    sub.add_argument(
        "--context", metavar="N", type=_count_from(1), help="tokens per sequence; what the model was made for, at most 4096, unless given"
    )
    sub.add_argument("--batch", metavar="N", type=_count_from(1), default=1, help="sequences at once, 1 unless given")
    sub.add_argument(
        "--kv-type", choices=("f32", "f16", "q8_0", "q4_0"), default="f16", help="type of keys and values in the totals, f16 unless given"
    )
    sub.add_argument("--ram", metavar="SIZE", type=_byte_count, help="memory of the machine, such as 32GiB: mark the types that fit")
    sub.add_argument("--vram", metavar="SIZE", type=_byte_count, help="likewise, memory of a graphics card")
    sub.add_argument(
        "--hardware", metavar="NAME", nargs="?", const="", help="name the best type for devices of this name; for all known ones without it"
    )
    _add_source_options(sub)
    _add_output(sub)

    sub = add(
        "run",
        "write what follows a prompt",
        details=(
            "The text goes to standard output as it is made, how fast it was to standard error. It ends where the model ends it,\n"
            "at a --stop string, after -n tokens, or when the context is full."
        ),
        examples='run model.Q4_K_M.gguf -p "Once upon a time" -n 100\nrun model.Q4_K_M.gguf -f - --temp 0 < prompt.txt',
    )
    sub.add_argument("model", metavar="MODEL", help=_MODEL)
    prompt = sub.add_mutually_exclusive_group(required=True)
    prompt.add_argument("-p", "--prompt", metavar="TEXT", help="what to go on with")
    prompt.add_argument(
        "-f", "--file", metavar="FILE", help="the same from a UTF-8 file, - for standard input; one newline at its end is dropped"
    )
    _add_generation(sub)
    sub.add_argument("--ignore-eos", action="store_true", default=argparse.SUPPRESS, help="never let the model end the text")
    _add_context(sub)
    _add_engine_options(sub)
    sub.add_argument("--quiet", action="store_true", help="do not say how fast it was")
    _add_output(sub)

    sub = add(
        "chat",
        "talk with a model",
        details=(
            "Reads messages line by line and answers them, in the form of the model's chat template. /help lists the commands within.\n"
            "Ctrl-C stops an answer, not the program."
        ),
        examples='chat model.Q4_K_M.gguf --system "Answer in one sentence."\nchat model.Q4_K_M.gguf --message "What is a tensor?" -n 200',
    )
    sub.add_argument("model", metavar="MODEL", help=_MODEL)
    sub.add_argument("--message", metavar="TEXT", help="answer this, and leave")
    sub.add_argument("--system", metavar="TEXT", help="the system message")
    _add_generation(sub)
    _add_context(sub)
    _add_engine_options(sub)
    _add_debug(sub)

    sub = add(
        "eval",
        "measure how well a model predicts a text",
        details=(
            "Perplexity as llama-perplexity defines it: chunks of --ctx tokens, the second half of each is scored.\n"
            "With --reference also the Kullback-Leibler divergence from that model, token by token; both run in step."
        ),
        examples="eval model.Q4_K_M.gguf --text wiki.test.raw\neval model.Q4_K_M.gguf --text wiki.test.raw --reference model-f16.gguf",
    )
    sub.add_argument("model", metavar="MODEL", help=_MODEL)
    sub.add_argument("--text", metavar="FILE", required=True, help="plain text, UTF-8, of at least twice --ctx tokens")
    sub.add_argument("--reference", metavar="MODEL", help="model to compare with, of the same vocabulary")
    sub.add_argument("--ctx", metavar="N", type=_count_from(_LEAST_CTX), default=512, help="tokens per chunk, 512 unless given")
    sub.add_argument("--chunks", metavar="N", type=_count_from(1), help="stop after so many chunks")
    _add_engine_options(sub)
    _add_output(sub)

    sub = add(
        "bench",
        "measure how fast a model runs",
        details=(
            "ppN: a prompt of N tokens at once. tgN: N tokens one by one. Tokens are random. Also measures how fast memory is read,\n"
            "and says which part of that text generation reaches. N may be a list such as 128,512; 0 leaves a test out."
        ),
        examples="bench model.Q4_K_M.gguf -p 512 -n 128 -r 5",
    )
    sub.add_argument("model", metavar="MODEL", help=_MODEL)
    sub.add_argument("-p", "--n-prompt", metavar="N", type=_counts, default=(512,), help="lengths of prompts, 512 unless given")
    sub.add_argument("-n", "--n-gen", metavar="N", type=_counts, default=(128,), help="tokens to generate, 128 unless given")
    sub.add_argument("-d", "--depth", metavar="N", type=_counts, default=(0,), help="tokens in the context before, 0 unless given")
    sub.add_argument(
        "-r", "--repetitions", metavar="N", type=_count_from(1), default=5, help="times that each test is repeated, 5 unless given"
    )
    _add_engine_options(sub)
    _add_output(sub)

    sub = add(
        "doctor",
        "show CPU level, threads and versions",
        details="QUANTRS_LEVEL=scalar, or another of the levels, forces a lower level for any command.",
        examples="doctor",
    )
    _add_output(sub)
    return parser


def quantize_options(args: argparse.Namespace) -> QuantizeOptions:
    """Read the option texts that `_add_plan_options` took.

    Raises
    ------
    UsageError
        A text is malformed; the message shows what is expected.
    FileError
        The tensor type file cannot be read.
    """
    from_file = read_tensor_type_file(args.tensor_type_file) if args.tensor_type_file else ()
    return QuantizeOptions(
        to=args.to,
        method=args.method,
        skip=tuple(args.skip),
        smooth_alpha=args.smooth_alpha,
        damp_percent=args.damp_percent,
        mse=args.mse,
        imatrix=args.imatrix,
        include_weights=tuple(args.include_weights),
        exclude_weights=tuple(args.exclude_weights),
        pure=args.pure,
        leave_output_tensor=args.leave_output_tensor,
        output_tensor_type=args.output_tensor_type,
        token_embedding_type=args.token_embedding_type,
        tensor_types=(*map(parse_tensor_type, args.tensor_type), *from_file),
        recipe=None if args.recipe is None else Path(args.recipe),
        override_kv=tuple(args.override_kv),
        prune_layers=parse_prune_layers(args.prune_layers) if args.prune_layers is not None else (),
        keep_split=args.keep_split,
        allow_requantize=args.allow_requantize,
        pre=args.pre,
        arch=args.arch,
        lora=tuple(getattr(args, "lora", ())),
    )


def calibration_options(args: argparse.Namespace) -> "CalibrationOptions | None":
    """Read what `_add_calibration` took; None without ``--calib``.

    Raises
    ------
    UsageError
        A value is out of range, or there is one without ``--calib``.
    """
    from quantrs.calibration.options import CalibrationOptions

    given = {name: getattr(args, name) for name in _CALIBRATION if hasattr(args, name)}
    if args.calib is None:
        if given:
            raise UsageError(
                f"{', '.join(_CALIBRATION[name] for name in given)}: say how to calibrate; add --calib FILE, or --calib default"
            )
        return None
    return CalibrationOptions(text=None if args.calib == "default" else args.calib, **given)


def _add_calibration(sub: argparse.ArgumentParser) -> None:
    """Fields of `CalibrationOptions` by their names; what is not given stays out of the namespace."""

    def option(flag: str, name: str, kind: Callable[[str], object], text: str, metavar: str = "N") -> None:
        sub.add_argument(flag, dest=name, metavar=metavar, type=kind, default=argparse.SUPPRESS, help=text)

    sub.add_argument(
        "--calib",
        metavar="FILE",
        help="calibrate with this: plain text, *.jsonl, *.npy of token ids, or 'default': a text that comes with quantrs",
    )
    option("--calib-sequences", "sequences", _count_from(1), "sequences to use, spread over the text")
    option("--calib-length", "length", _count_from(_LEAST_CTX), "tokens of a sequence, 512 unless given")
    option("--calib-seed", "seed", _count_from(0, 2**64), "of the choice of sequences, 0 unless given")
    option("--calib-memory", "memory_budget", _byte_count, "hidden states held in memory, 1GiB unless given; more go to a file", "SIZE")
    sub.add_argument(
        "--no-sequential",
        dest="sequential",
        action="store_false",
        default=argparse.SUPPRESS,
        help="calibrate every block on what the original ones before it give",
    )
    _add_coverage(sub)


def _add_coverage(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--min-coverage",
        metavar="X",
        type=float,
        default=argparse.SUPPRESS,
        help="fail when a smaller part of the experts, 0 to 1, saw enough tokens; those that did not are listed otherwise",
    )


def _add_plan_options(sub: argparse.ArgumentParser) -> None:
    def option(name: str, metavar: str, text: str, *, required: bool = False) -> None:
        sub.add_argument(name, metavar=metavar, help=text, required=required)

    def repeated(name: str, metavar: str, text: str) -> None:
        sub.add_argument(name, metavar=metavar, help=f"{text}; may be repeated", action="append", default=[])

    option(
        "--to", "TYPE", "GGUF: Q4_K_M, Q8_0, IQ4_XS, F16 ...; folder: gptq-w4-g128, awq-w4-g128, w4a16-g128, w8a8, fp8 ...", required=True
    )
    option("--method", "NAME", "folder: gptq, awq, smoothquant or rtn (round to nearest); what suits the type unless given")
    repeated("--skip", "PATTERN", "folder: leave linears as they are in whose name the regular expression is found")
    sub.add_argument(
        "--damp-percent", metavar="X", type=_share, default=0.01, help="of gptq: added to the Hessian's diagonal, as a part of its mean"
    )
    sub.add_argument(
        "--mse", metavar="P", type=_positive, help="folder: search each group's range for the least error to this power, 2.4 as a rule"
    )
    sub.add_argument(
        "--smooth-alpha", metavar="X", type=_share, default=0.5, help="of smoothquant, 0 to 1: how much moves into the weights"
    )
    option("--imatrix", "FILE", "importance matrix, GGUF or .dat")
    repeated("--include-weights", "NAME", "use importance only of tensors whose name contains this")
    repeated("--exclude-weights", "NAME", "use no importance of tensors whose name contains this")
    repeated("--tensor-type", "PATTERN=TYPE", "tensor type where the regular expression is found in the name, the first wins")
    option("--tensor-type-file", "FILE", "PATTERN=TYPE entries separated by white space")
    option("--output-tensor-type", "TYPE", "tensor type of output.weight")
    option("--token-embedding-type", "TYPE", "tensor type of token_embd.weight")
    option("--recipe", "FILE.toml", "ordered rules, the first that matches a tensor decides")
    repeated("--override-kv", "KEY=TYPE:VALUE", "metadata to write instead, TYPE is int, float, bool or str")
    option("--prune-layers", "N,N,...", "layers to leave out")
    sub.add_argument("--pure", action="store_true", help="give every tensor the type that --to is named after")
    sub.add_argument("--leave-output-tensor", action="store_true", help="copy output.weight")
    sub.add_argument("--keep-split", action="store_true", help="write as many files as the source has")
    sub.add_argument("--allow-requantize", action="store_true", help="accept a source that is quantized already")


def _add_source_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--pre", metavar="NAME", help="pre-tokenizer of a checkpoint folder, where its own is not recognised")
    sub.add_argument(
        "--arch", metavar="NAME", choices=("generic",), help="generic: keep a folder's tensors as they are called, whatever model it is"
    )


def _add_lora(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--lora", metavar="DIR[:SCALE]", action="append", default=[], help="adapter of PEFT to add to a folder's weights; may be repeated"
    )


def _add_writing(sub: argparse.ArgumentParser) -> None:
    _add_threads(sub)
    sub.add_argument("--force", action="store_true", help="replace DST if it exists")
    sub.add_argument("--resume", action="store_true", help="go on with a run that was broken off")


def _add_threads(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--threads", metavar="N", type=_thread_count, help="by default all CPUs that the process may use")


def _add_engine_options(sub: argparse.ArgumentParser) -> None:
    _add_threads(sub)
    sub.add_argument(
        "--activations",
        choices=("int8", "float"),
        default="int8",
        help="int8: inputs of quantized weights are quantized too (the default); float: none is",
    )
    sub.add_argument(
        "--kv-type",
        choices=("f16", "f32", "q8_0", "q4_0"),
        help="how keys and values are kept; f16 unless given, f32 for models that are all float32 and with float activations",
    )


def _add_context(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--ctx",
        metavar="N",
        type=_count_from(1),
        help="tokens that the context holds; what the model was made for, at most 4096, unless given",
    )


def _add_generation(sub: argparse.ArgumentParser) -> None:
    """Arguments of `Session.generate` by their names there; what is not given stays out of the namespace."""

    def option(flag: str, name: str, kind: Callable[[str], object], text: str, metavar: str = "X") -> None:
        sub.add_argument(flag, dest=name, metavar=metavar, type=kind, default=argparse.SUPPRESS, help=text)

    sub.add_argument(
        "-n", "--n-predict", dest="max_tokens", metavar="N", type=_count_from(0), default=argparse.SUPPRESS, help="at most N tokens"
    )
    option("--temp", "temperature", float, "temperature, 0.8 unless given; 0 always takes the most likely token")
    option("--top-k", "top_k", _count_from(0), "keep that many tokens, 40 unless given; 0 keeps all", "N")
    option("--top-p", "top_p", float, "keep the most likely tokens up to this sum, 0.95 unless given; 1 keeps all")
    option("--min-p", "min_p", float, "keep tokens this times as likely as the most likely one, 0.05 unless given; 0 keeps all")
    option("--typical", "typical_p", float, "keep tokens of typical surprise up to this sum; 1, the default, keeps all")
    option("--repeat-penalty", "repeat_penalty", float, "divides the logits of recent tokens; 1, the default, changes nothing")
    option("--presence-penalty", "presence_penalty", float, "subtracted from the logits of recent tokens")
    option("--frequency-penalty", "frequency_penalty", float, "subtracted for each time that a token came recently")
    option("--repeat-last-n", "penalty_last_n", _count_from(0), "how many tokens are recent, 64 unless given", "N")
    option("--seed", "seed", _count_from(0, 2**64), "the same seed gives the same text; a new one each time unless given", "N")
    sub.add_argument(
        "--stop", metavar="TEXT", action="append", default=argparse.SUPPRESS, help="end before this text comes; may be repeated"
    )


def _add_output(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--json", action="store_true", help="print one JSON value; notices and progress go to standard error")
    _add_debug(sub)


def _add_debug(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--debug", action="store_true", help="show where an error came from")


def _thread_count(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 2**16:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a number of 1 or more")
    return int(text)


def _count_from(least: int, end: int = 2**31) -> Callable[[str], int]:
    def count(text: str) -> int:
        if not (text.isascii() and text.isdecimal()) or not least <= int(text) < end:
            raise argparse.ArgumentTypeError(f"found {text!r}, expected a number of {least} or more")
        return int(text)

    return count


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 16:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a number above 0, at most 16")
    return value


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a number from 0 to 1")
    return value


def _byte_count(text: str) -> int:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([KMGT]?)(i?)B?", text, re.IGNORECASE)
    n_bytes = int(float(match[1]) * (1024 if match[3] else 1000) ** " KMGT".index(match[2].upper() or " ")) if match else 0
    if n_bytes < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a size such as 5GB, 500MB or 4GiB")
    return n_bytes


def _counts(text: str) -> tuple[int, ...]:
    return tuple(map(_count_from(0), text.split(",")))
