"""The loop of ``quantrs chat``: lines from a terminal or a pipe, and what Ctrl-C means at each moment."""

import select
import signal
import sys
from collections.abc import Callable

from quantrs.chat import Talk

__all__ = ["converse"]

_INTERRUPTED = 128 + signal.SIGINT


def converse(talk: Talk, tell: Callable[[str], None]) -> int:
    """Take lines until there are no more; the exit code.

    Ctrl-C during an answer stops the answer. Without one, the first says how to leave and the second one leaves.
    """
    reconfigure = getattr(sys.stdin, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")
    read = _read_terminal if sys.stdin.isatty() and sys.stdout.isatty() else _read_pipe
    if read is _read_terminal:
        _edit_lines()
        tell("/help lists what you can do here")
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return _loop(talk, tell, read)
    except KeyboardInterrupt:  # another one came while the first was dealt with
        return _INTERRUPTED


def _loop(talk: Talk, tell: Callable[[str], None], read: Callable[[str], str | None]) -> int:
    interrupted = False
    while True:
        try:
            message = _message(read)
            interrupted = False
            if message is None or not talk.take(message):
                return 1 if talk.n_failed and read is _read_pipe else 0
        except KeyboardInterrupt:
            if interrupted:
                return _INTERRUPTED
            interrupted = True
            tell("\nCtrl-C again leaves, and so does /quit")


def _message(read: Callable[[str], str | None]) -> str | None:
    """Lines that belong together; None at the end of input."""
    line = read("> ")
    if line is None:
        return None
    lines = [line]
    while lines[-1].endswith("\\"):
        lines[-1] = lines[-1][:-1]
        more = read(". ")
        if more is None:
            break
        lines.append(more)
    return "\n".join(lines)


def _read_pipe(prompt: str) -> str | None:
    line = sys.stdin.readline()
    return line.rstrip("\r\n") if line else None


def _read_terminal(prompt: str) -> str | None:
    """A line, and with it the lines that are already there: somebody pasted them."""
    try:
        lines = [input(prompt)]
        while _pasted():
            lines.append(input())
    except EOFError:
        print()
        return None
    return "\n".join(lines)


_PASTE_SECONDS = 0.02


def _pasted() -> bool:
    if sys.platform == "win32":  # there only sockets can be asked
        return False
    return bool(select.select([sys.stdin], [], [], _PASTE_SECONDS)[0])


def _edit_lines() -> None:
    """Arrow keys and history in `input`, where the system has them."""
    try:
        import readline  # noqa: F401
    except ImportError:
        return
