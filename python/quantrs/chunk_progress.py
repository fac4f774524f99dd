"""What work in many like steps tells while it runs: how far it is, and what it has found so far."""

import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quantrs.evaluation import EvaluationStep

__all__ = ["ChunkProgress", "StepLine"]

_QUIET_SECONDS = 1.0
_TERMINAL_EVERY_SECONDS = 0.1
_LINE_EVERY_SECONDS = 5.0
_ERASE = "\r\x1b[K"


class StepLine:
    """Shows steps on standard error: one line that changes on a terminal, else a line now and then. Short work says nothing."""

    def __init__(self) -> None:
        self._terminal = sys.stderr is not None and sys.stderr.isatty()
        self._started = time.monotonic()
        self._next = _QUIET_SECONDS
        self._shown = False

    def show(self, n_done: int, n_all: int, found: str) -> None:
        """So many are done, and this was found."""
        seconds = time.monotonic() - self._started
        if seconds < self._next or n_done == n_all:
            return
        self._next = seconds + (_TERMINAL_EVERY_SECONDS if self._terminal else _LINE_EVERY_SECONDS)
        left = seconds / n_done * (n_all - n_done)
        line = f"chunk {n_done} of {n_all}, {found}, {left:.0f} s left"
        print(f"{_ERASE}{line}" if self._terminal else line, end="" if self._terminal else "\n", file=sys.stderr, flush=True)
        self._shown = True

    def close(self) -> None:
        """Take the line off the terminal."""
        if self._shown and self._terminal:
            print(_ERASE, end="", file=sys.stderr, flush=True)


class ChunkProgress(StepLine):
    """Shows the steps of an evaluation."""

    def __call__(self, step: "EvaluationStep") -> None:
        """A chunk is done."""
        found = f"perplexity {step.perplexity:.4f}" + (f", KL divergence {step.kl_mean:.6f}" if step.kl_mean is not None else "")
        self.show(step.n_done, step.n_chunks, found)
