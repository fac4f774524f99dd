"""What several test files share: the golden data, the CPU levels, running code or the command in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden"
LEVELS = ("scalar", "sse2", "neon", "avx2", "avx512")


@dataclass(frozen=True)
class Ran:
    """How a process ended."""

    code: int
    out: str
    err: str


def run_python(*args: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None) -> Ran:
    """Run this interpreter with the given arguments."""
    done = subprocess.run(
        [sys.executable, *map(str, args)], env={**os.environ, **(env or {})}, cwd=cwd, capture_output=True, text=True, check=False
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def levels_here() -> list[str]:
    """The CPU levels that this machine can run."""
    from quantrs import _native

    return _native.levels()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes ``level`` runs once per level; those that this CPU lacks are skipped by name.

    ``QUANTRS_TEST_LEVELS=avx2,scalar`` names levels whose absence is a failure: an emulated or hosted CPU that turns out
    smaller than expected must not pass silently.
    """
    if "level" not in metafunc.fixturenames:
        return
    here = levels_here()
    expected = {x for x in os.environ.get("QUANTRS_TEST_LEVELS", "").split(",") if x}
    if expected - set(here):
        pytest.exit(f"QUANTRS_TEST_LEVELS expects {sorted(expected)}, this CPU has {here}", returncode=1)
    metafunc.parametrize(
        "level", [pytest.param(x, marks=() if x in here else pytest.mark.skip(reason=f"this CPU has no {x}")) for x in LEVELS]
    )


@pytest.fixture
def golden() -> Path:
    """The folder of golden files."""
    return GOLDEN


@pytest.fixture
def python() -> Callable[..., Ran]:
    """Run this interpreter in a process of its own: ``python("-c", code, env={...})``."""
    return run_python


@pytest.fixture
def command() -> Callable[..., Ran]:
    """Run the command in a process of its own: ``command("plan", path, "--to", "Q4_K_M")``."""
    return lambda *args, **kw: run_python("-m", "quantrs", *args, **kw)
