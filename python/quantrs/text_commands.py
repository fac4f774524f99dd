"""The commands ``run`` and ``chat``: from options to a session, from pieces of text to the terminal."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from quantrs.engine import Session
from quantrs.errors import FileError
from quantrs.generation import Generation
from quantrs.text import printable, visible

__all__ = ["chat", "run", "run_json"]

_OPTIONS = """
    max_tokens stop ignore_eos temperature top_k top_p min_p typical_p
    repeat_penalty presence_penalty frequency_penalty penalty_last_n seed
"""
"""Arguments of `Session.generate` and `Session.chat`; those that were not given are not in the namespace."""

_ENDINGS = {
    "end": "the model ended the text",
    "stop": "a stop string came",
    "length": "-n is reached",
    "context": "the context is full, --ctx N makes more room",
}


def run(args: argparse.Namespace) -> Generation:
    """Write what follows a prompt; with ``--json`` leave that to the caller."""
    prompt = args.prompt if args.file is None else _read_prompt(args.file)
    generation = _session(args).generate(prompt, **_options(args))
    show = _ignore if args.json else _shower()
    for piece in generation:
        show(piece)
    if not args.json:
        if sys.stdout.isatty():
            show("\n")
        if not args.quiet:
            print(f"\n{_summary(generation)}", file=sys.stderr)
    return generation


def run_json(generation: Generation) -> dict[str, object]:
    """What ``run --json`` prints."""
    return {
        "text": generation.text,
        "ending": generation.ending,
        "prompt_tokens": len(generation.prompt_ids),
        "tokens": len(generation.ids),
        "prompt_tokens_per_second": generation.prompt_rate,
        "tokens_per_second": generation.rate,
    }


def chat(args: argparse.Namespace, tell: Callable[[str], None]) -> int:
    """Answer one message, or talk until the user leaves; the exit code."""
    from quantrs.chat import Conversation, Talk
    from quantrs.chat_terminal import converse

    session = _session(args)
    if session.chat_template.is_fallback:
        tell("quantrs: the model carries no chat template; ChatML is used, which it may not know")
    options = _options(args)
    conversation = Conversation(lambda messages: session.chat(messages, **options), system=args.system)
    show = _shower()
    if args.message is not None:
        for piece in conversation.say(args.message):
            show(piece)
        show("\n")
        return 0
    session.chat_template.render(conversation.messages("Hello"))  # a template that is no good is known before the first message
    return converse(Talk(conversation, show=show, tell=tell), tell)


def _session(args: argparse.Namespace) -> Session:
    return Session(args.model, threads=args.threads, activations=args.activations, n_ctx=args.ctx, kv_type=args.kv_type)


def _options(args: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(args, name) for name in _OPTIONS.split() if hasattr(args, name)}


def _read_prompt(path: str) -> str:
    """Text of a file or of standard input, without one newline at its end: editors put it there, and models would go on after it."""
    where = "standard input" if path == "-" else printable(path)
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise FileError(f"{where}: cannot be read: {error.strerror or error}") from error
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise FileError(f"{where}: byte {error.start} is not UTF-8; convert the text to UTF-8") from error
    return text.removesuffix("\n").removesuffix("\r")


def _shower() -> Callable[[str], None]:
    """Writes pieces to standard output at once. A model may say anything: to a terminal, control characters go escaped."""
    out = sys.stdout
    shown = visible if out.isatty() else str

    def show(piece: str) -> None:
        out.write(shown(piece))
        out.flush()

    return show


def _ignore(piece: str) -> None:
    pass


def _summary(generation: Generation) -> str:
    speed = f", {generation.rate:.1f} t/s" if generation.rate else ""
    return (
        f"quantrs: prompt {len(generation.prompt_ids)} tokens, {generation.prompt_rate:.1f} t/s;"
        f" text {len(generation.ids)} tokens{speed}; {_ENDINGS[str(generation.ending)]}"
    )
