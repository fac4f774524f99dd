"""Measure quantrs and a peer turn about, in one run, and report the ratio of medians.

A time alone says little: it depends on the machine and on what else runs there. A ratio of two programs that took turns on the
same machine says who is faster. ``make bench`` prints one line per comparison; ``make bench RECORD=1`` also appends them to
``benches/record/<cpu>/<date>.csv``.
"""

from __future__ import annotations

import csv
import datetime
import os
import platform
import re
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

RECORD = Path(__file__).parent / "record"


@dataclass(frozen=True)
class Comparison:
    """One line of the record."""

    what: str
    peer: str
    ours_seconds: float
    peer_seconds: float
    ratio: float
    wanted: float
    note: str
    level: str
    threads: int


COMPARISONS: list[Comparison] = []
Versus = Callable[..., float]


def compare(what: str, ours_seconds: float, peer: str, peer_seconds: float, *, wanted: float, note: str = "") -> None:
    """Report a pair of medians that were taken turn about."""
    from quantrs import _native

    ratio = peer_seconds / ours_seconds
    COMPARISONS.append(Comparison(what, peer, ours_seconds, peer_seconds, ratio, wanted, note, _native.level(), _native.default_threads()))


@pytest.fixture
def versus(benchmark: BenchmarkFixture) -> Versus:
    """``versus(what, ours, peer, theirs, wanted=4, rounds=5, note="")``: time both turn about and return the ratio of medians.

    `theirs` runs in the set-up of each of our rounds, so that both meet the same machine. The first round of each is not counted.
    """

    def measure(
        what: str,
        ours: Callable[[], object],
        peer: str,
        theirs: Callable[[], object],
        *,
        wanted: float,
        rounds: int = 5,
        note: str = "",
    ) -> float:
        peer_seconds: list[float] = []

        def peer_round() -> None:
            start = time.perf_counter()
            theirs()
            peer_seconds.append(time.perf_counter() - start)

        benchmark.pedantic(ours, setup=peer_round, rounds=rounds, warmup_rounds=1)
        ours_median, peer_median = benchmark.stats.stats.median, statistics.median(peer_seconds[1:])
        ratio = peer_median / ours_median
        benchmark.extra_info.update(peer=peer, peer_median=peer_median, ratio=ratio)
        compare(what, ours_median, peer, peer_median, wanted=wanted, note=note)
        return ratio

    return measure


@pytest.fixture(scope="session")
def peers() -> Path:
    """The folder of llama.cpp's programs, from the environment variable QUANTRS_PEERS."""
    folder = os.environ.get("QUANTRS_PEERS")
    if not folder:
        pytest.skip("QUANTRS_PEERS names no folder of llama.cpp's programs")
    return Path(folder)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the ratios, and record them if asked to."""
    if not COMPARISONS:
        return
    terminalreporter.section("ratios (medians, turn about)")
    for c in COMPARISONS:
        verdict = "ok" if c.ratio >= c.wanted else "SHORT"
        times = f"{c.ours_seconds * 1e3:10.2f} ms against {c.peer_seconds * 1e3:10.2f} ms of {c.peer}"
        terminalreporter.write_line(f"{c.ratio:8.2f}x  (wanted {c.wanted:3g}x, {verdict:5})  {c.what:32} {times} {c.note}")
    if os.environ.get("RECORD"):
        terminalreporter.write_line(f"recorded in {record()}")


def record() -> Path:
    """Append the comparisons to today's file of this CPU."""
    path = RECORD / cpu_name() / f"{datetime.date.today().isoformat()}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(Comparison)], lineterminator="\n")
        if new:
            writer.writeheader()
        for c in COMPARISONS:
            writer.writerow({key: f"{value:.4g}" if isinstance(value, float) else value for key, value in asdict(c).items()})
    return path


def cpu_name() -> str:
    """A folder name for this CPU: its model and the number of CPUs that we may use."""
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
        name = found[1] if found else name
        # Clouds hide the model behind a bare brand; the widest instruction set tells such machines apart.
        name += next((f" {x}" for x in ("avx512_vnni", "avx512bw", "avx2") if x in text), "")
    return re.sub(r"[^a-z0-9]+", "-", f"{name} {os.cpu_count()} cpus".lower()).strip("-")
