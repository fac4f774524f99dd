"""What an evaluation says while it runs."""

from __future__ import annotations

import io

import pytest

from quantrs import chunk_progress
from quantrs.chunk_progress import ChunkProgress
from quantrs.evaluation import EvaluationStep


class Stream(io.StringIO):
    """Standard error that may say that it is a terminal."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.isatty = lambda: terminal  # type: ignore[method-assign]


def shown(monkeypatch: pytest.MonkeyPatch, *, terminal: bool, seconds_per_chunk: float, kl_mean: float | None = None) -> str:
    """What is printed for ten chunks."""
    clock = 0.0
    monkeypatch.setattr(chunk_progress.time, "monotonic", lambda: clock)
    stream = Stream(terminal)
    monkeypatch.setattr("sys.stderr", stream)
    progress = ChunkProgress()
    for i in range(1, 11):
        clock += seconds_per_chunk
        progress(EvaluationStep(i, 10, 12.5, kl_mean))
    progress.close()
    return stream.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_work_of_less_than_a_second_says_nothing(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, terminal=terminal, seconds_per_chunk=0.09) == ""


def test_a_terminal_has_one_line_that_changes_and_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    out = shown(monkeypatch, terminal=True, seconds_per_chunk=1)
    assert "\n" not in out
    first, *_, last = out.removeprefix("\r\x1b[K").split("\r\x1b[K")
    assert first == "chunk 1 of 10, perplexity 12.5000, 9 s left"
    assert last == ""


def test_a_pipe_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    out = shown(monkeypatch, terminal=False, seconds_per_chunk=2, kl_mean=0.25)
    assert out.splitlines() == [f"chunk {i} of 10, perplexity 12.5000, KL divergence 0.250000, {20 - 2 * i} s left" for i in (1, 4, 7)]
