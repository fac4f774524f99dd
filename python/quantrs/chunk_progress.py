"""What an evaluation tells while it runs: how far it is, and what it has found so far."""

import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quantrs.evaluation import EvaluationStep

__all__ = ["ChunkProgress"]

_QUIET_SECONDS = 1.0
_TERMINAL_EVERY_SECONDS = 0.1
_LINE_EVERY_SECONDS = 5.0
_ERASE = "\r\x1b[K"


class ChunkProgress:
    """Shows steps on standard error: one line that changes on a terminal, else a line now and then. Short work says nothing."""

    def __init__(self) -> None:
        self._terminal = sys.stderr is not None and sys.stderr.isatty()
        self._started = time.monotonic()
        self._next = _QUIET_SECONDS
        self._shown = False

    def __call__(self, step: "EvaluationStep") -> None:
        """A chunk is done."""
        seconds = time.monotonic() - self._started
        if seconds < self._next or step.n_done == step.n_chunks:
            return
        self._next = seconds + (_TERMINAL_EVERY_SECONDS if self._terminal else _LINE_EVERY_SECONDS)
        left = seconds / step.n_done * (step.n_chunks - step.n_done)
        found = f"perplexity {step.perplexity:.4f}" + (f", KL divergence {step.kl_mean:.6f}" if step.kl_mean is not None else "")
        line = f"chunk {step.n_done} of {step.n_chunks}, {found}, {left:.0f} s left"
        print(f"{_ERASE}{line}" if self._terminal else line, end="" if self._terminal else "\n", file=sys.stderr, flush=True)
        self._shown = True

    def close(self) -> None:
        """Take the line off the terminal."""
        if self._shown and self._terminal:
            print(_ERASE, end="", file=sys.stderr, flush=True)
