"""What a long job tells while it runs. Work that ends within a second says nothing."""

import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from quantrs import _native
from quantrs.chunk_progress import StepLine
from quantrs.errors import Cancelled
from quantrs.plan_text import plan_summary
from quantrs.text import human_bytes, printable

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

    from quantrs.plan import Plan

__all__ = ["JobProgress", "StderrWatcher", "Watcher", "for_stderr", "run_watched"]

_T = TypeVar("_T")


class _Cancellable(Protocol):
    """What `run_watched` needs of a progress counter; `JobProgress` and `quantrs._native.Progress` are two."""

    @property
    def done(self) -> int: ...
    def cancel(self) -> None: ...


_QUIET_SECONDS = 1.0
_LINE_EVERY_SECONDS = 5.0
_LOOK_EVERY_SECONDS = 0.1


class JobProgress:
    """What a job has done: in the native module, or in Python between its calls.

    With `makes`, a method makes tensors. What is merely copied takes no time beside that and is not counted: it comes first, and would
    make the rest look short.
    """

    def __init__(self, *, makes: bool = False) -> None:
        self._makes = makes
        self.native = _native.Progress()
        """For native calls."""
        self._made_bytes = 0.0
        self._cancelled = False

    @property
    def done(self) -> int:
        """Source bytes finished so far."""
        return round(self._made_bytes) if self._makes else self.native.done

    def add(self, n_bytes: float) -> None:
        """Count work, as the source bytes that it stands for.

        Raises
        ------
        Cancelled
            `cancel` was called meanwhile.
        """
        self._made_bytes += n_bytes
        if self._cancelled:
            raise Cancelled("stopped before the end")

    def cancel(self) -> None:
        """Make running native calls and the next `add` raise `Cancelled`."""
        self._cancelled = True
        self.native.cancel()


class Watcher:
    """Is told what happens; this one says nothing. Subclass it to show progress in your own program."""

    def planned(self, plan: "Plan") -> None:
        """The plan stands, and nothing speaks against it."""

    def notice(self, text: str) -> None:
        """Something that the user should know but that does not stop the work."""

    def calibrated(self, n_done: int, n_all: int) -> None:
        """So many of the sequences of a calibration have been run."""

    def start(self, total_bytes: int) -> None:
        """The work begins; `total_bytes` of source data will be read."""

    def update(self, done_bytes: int) -> None:
        """Called some ten times a second from the thread that called `quantize_checkpoint`."""

    def stop(self) -> None:
        """The work has ended, one way or the other."""

    def kept(self, files: tuple[Path, ...]) -> None:
        """The work was broken off, and `files` hold what is done so far: resuming goes on from there."""


class StderrWatcher(Watcher, ABC):
    """Tells people, on standard error; silent about progress in the first second."""

    def __init__(self) -> None:
        self.kept_files: tuple[Path, ...] = ()
        self._total_bytes = 0
        self._started = 0.0
        self._calibration: StepLine | None = None

    def notice(self, text: str) -> None:
        """Print it."""
        print(f"quantrs: {printable(text)}", file=sys.stderr)

    def calibrated(self, n_done: int, n_all: int) -> None:
        """Show it, after a second."""
        if self._calibration is None:
            self._calibration = StepLine()
        self._calibration.show(n_done, n_all, "calibrating")
        if n_done == n_all:
            self._calibration.close()
            self._calibration = None

    def planned(self, plan: "Plan") -> None:
        """Print what the types add up to."""
        print(plan_summary(plan), file=sys.stderr, flush=True)

    def kept(self, files: tuple[Path, ...]) -> None:
        """Remember the files; how to go on is the command's to say."""
        self.kept_files = files

    def start(self, total_bytes: int) -> None:
        """Take the time."""
        self._total_bytes = total_bytes
        self._started = time.monotonic()

    def update(self, done_bytes: int) -> None:
        """Show progress, after a second."""
        seconds = time.monotonic() - self._started
        if seconds >= _QUIET_SECONDS:
            self._show(done_bytes, seconds)

    @abstractmethod
    def _show(self, done_bytes: int, seconds: float) -> None:
        """Tell where the work is after `seconds`."""


class _Lines(StderrWatcher):
    """For files and pipes: a line now and then."""

    def start(self, total_bytes: int) -> None:
        """Take the time."""
        super().start(total_bytes)
        self._next_line = _QUIET_SECONDS

    def _show(self, done_bytes: int, seconds: float) -> None:
        if seconds < self._next_line or not self._total_bytes:
            return
        self._next_line = seconds + _LINE_EVERY_SECONDS
        rate = done_bytes / seconds
        left = f", {(self._total_bytes - done_bytes) / rate:.0f} s left" if rate else ""
        print(
            f"{100 * done_bytes / self._total_bytes:3.0f} %  {human_bytes(done_bytes)} of {human_bytes(self._total_bytes)}, "
            f"{human_bytes(rate)}/s{left}",
            file=sys.stderr,
            flush=True,
        )


class _Bar(StderrWatcher):
    """For terminals: a bar that vanishes at the end."""

    def start(self, total_bytes: int) -> None:
        """Take the time."""
        super().start(total_bytes)
        self._rich: RichProgress | None = None
        self._task: TaskID | None = None

    def _show(self, done_bytes: int, seconds: float) -> None:
        if self._rich is None or self._task is None:
            self._rich, self._task = self._begin()
        self._rich.update(self._task, completed=done_bytes, rate=f"{human_bytes(done_bytes / seconds)}/s")

    def _begin(self) -> "tuple[RichProgress, TaskID]":
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        rich = Progress(
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:3.0f} %"),
            DownloadColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=Console(stderr=True),
            transient=True,
        )
        rich.start()
        return rich, rich.add_task("", total=self._total_bytes, rate="")

    def stop(self) -> None:
        """Take the bar away."""
        if self._rich is not None:
            self._rich.stop()


def for_stderr() -> StderrWatcher:
    """A bar when standard error is a terminal, else plain lines."""
    return _Bar() if sys.stderr is not None and sys.stderr.isatty() else _Lines()


def run_watched(work: Callable[[], _T], *, watcher: Watcher, progress: _Cancellable, total_bytes: int) -> _T:
    """Run `work` in a thread of its own, so that this one can show progress and take signals.

    An exception in this thread (KeyboardInterrupt, say) cancels `progress`, waits until `work` has put things in order,
    and goes on its way.
    """
    results: list[_T] = []
    errors: list[BaseException] = []
    finished = threading.Event()

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # handed over to the waiting thread
            errors.append(error)
        finally:
            finished.set()

    thread = threading.Thread(target=run, name="quantrs-work")
    watcher.start(total_bytes)
    thread.start()
    try:
        while not finished.wait(_LOOK_EVERY_SECONDS):
            watcher.update(progress.done)
    except BaseException:
        progress.cancel()
        finished.wait()
        raise
    finally:
        watcher.stop()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
