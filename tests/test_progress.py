"""Progress: silent at first, then a bar or lines, and work that can be broken off."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from quantrs import progress
from quantrs.progress import Watcher, run_watched


class Counter:
    """Stands in for the native progress counter."""

    def __init__(self) -> None:
        self.done = 0
        self.cancelled = threading.Event()

    def cancel(self) -> None:
        self.cancelled.set()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])

    def advance(seconds: float) -> None:
        now[0] += seconds

    return advance


def test_work_that_ends_within_a_second_says_nothing(clock: Callable[[float], None], capsys: pytest.CaptureFixture[str]) -> None:
    watcher = progress.for_stderr()
    watcher.start(1000)
    clock(0.9)
    watcher.update(900)
    watcher.stop()
    assert capsys.readouterr() == ("", "")


def test_without_a_terminal_there_is_a_plain_line_every_few_seconds(
    clock: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    watcher = progress.for_stderr()
    watcher.start(10_000_000)
    for done_bytes in range(1_000_000, 10_000_000, 1_000_000):
        clock(1.0)
        watcher.update(done_bytes)
    watcher.stop()
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        " 10 %  1.00 MB of 10.0 MB, 1.00 MB/s, 9 s left",
        " 60 %  6.00 MB of 10.0 MB, 1.00 MB/s, 4 s left",
    ]


def test_on_a_terminal_a_bar_shows_rate_and_time_left_and_vanishes(python: Callable[..., object]) -> None:
    pty = pytest.importorskip("pty")
    import os
    import subprocess
    import sys

    code = (
        "import time; from quantrs import progress\nw = progress.for_stderr(); w.start(10_000_000)\n"
        "for i in range(16):\n    time.sleep(0.1); w.update(i * 500_000)\nw.stop(); print('rich' in __import__('sys').modules)"
    )
    ours, theirs = pty.openpty()
    ran = subprocess.run(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
        check=True,
    )
    os.close(theirs)
    shown = os.read(ours, 1 << 20).decode()
    os.close(ours)
    assert ran.stdout.strip() == b"True"
    assert "MB/s" in shown
    assert "left" in shown
    # Which of the sixteen steps are drawn depends on the clock.
    assert re.search(r"\b(5|[1-7][05]) %", shown)


def test_notices_cannot_carry_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    progress.for_stderr().notice("a\x1b[2J")
    assert capsys.readouterr().err == "quantrs: a\\x1b[2J\n"


def test_the_result_and_the_error_of_the_work_come_through() -> None:
    assert run_watched(lambda: 7, watcher=Watcher(), progress=Counter(), total_bytes=1) == 7

    def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError, match="x"):
        run_watched(fail, watcher=Watcher(), progress=Counter(), total_bytes=1)


def test_an_error_of_the_watcher_cancels_the_work_and_waits_for_its_end() -> None:
    counter, events = Counter(), []

    class Impatient(Watcher):
        def update(self, done_bytes: int) -> None:
            raise KeyboardInterrupt

        def stop(self) -> None:
            events.append("stopped")

    def work() -> None:
        counter.cancelled.wait(20)
        time.sleep(0.05)
        events.append("cleaned up")

    with pytest.raises(KeyboardInterrupt):
        run_watched(work, watcher=Impatient(), progress=counter, total_bytes=1)
    assert events == ["cleaned up", "stopped"]


def test_the_watcher_remembers_what_is_kept() -> None:
    watcher = progress.for_stderr()
    assert watcher.kept_files == ()
    watcher.kept((Path("a"),))
    assert watcher.kept_files == (Path("a"),)
