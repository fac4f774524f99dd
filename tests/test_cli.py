"""The command as a whole: help, versions, exit codes, start-up."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import quantrs
from conftest import GOLDEN, Ran
from gguf_bytes import write_llama

TINY = GOLDEN / "ggml" / "tiny" / "tiny-f16.gguf"
COMMANDS = ("quantize", "plan", "inspect", "verify", "size", "run", "chat", "eval", "bench", "doctor")


def test_version_is_the_packages(command: Callable[..., Ran]) -> None:
    ran = command("--version")
    assert (ran.code, ran.out) == (0, f"quantrs {quantrs.__version__}\n")


def test_help_lists_every_command(command: Callable[..., Ran]) -> None:
    out = command("--help").out
    assert all(f"\n    {name} " in out for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_shows_an_example(name: str, command: Callable[..., Ran]) -> None:
    ran = command(name, "--help")
    assert ran.code == 0
    assert "Example:" in ran.out
    assert f"\n  quantrs {name}" in ran.out.split("Example:")[1]


@pytest.mark.parametrize(
    "args", [("nonesuch",), ("quantize",), ("quantize", "a", "b", "--to"), ("inspect", "a", "--nonesuch"), ("plan", TINY)]
)
def test_wrong_usage_exits_with_2_and_says_why(args: tuple[str, ...], command: Callable[..., Ran]) -> None:
    ran = command(*args)
    assert ran.code == 2
    assert ran.err.strip()
    assert ran.out == ""
    assert "Traceback" not in ran.err


def test_doctor_names_level_threads_and_versions(command: Callable[..., Ran]) -> None:
    found = json.loads(command("doctor", "--json", env={"QUANTRS_LEVEL": "scalar"}).out)
    assert found["level"] == "scalar"
    assert "scalar" in found["levels"]
    assert found["threads"] >= 1
    assert found["versions"]["quantrs"] == quantrs.__version__
    assert "scalar" in command("doctor").out


@pytest.mark.parametrize("args", [("doctor",), ("plan", TINY, "--to", "Q4_0"), ("inspect", TINY)])
def test_an_unknown_level_is_wrong_usage_of_every_command(args: tuple[str, ...], command: Callable[..., Ran]) -> None:
    ran = command(*args, env={"QUANTRS_LEVEL": "nonesuch"})
    assert ran.code == 2
    assert "nonesuch" in ran.err


def test_plan_predicts_the_size_and_types_that_quantize_writes(tmp_path: Path, command: Callable[..., Ran]) -> None:
    source = write_llama(tmp_path / "s.gguf")
    for args in (
        ("--to", "Q4_K_M"),
        ("--to", "Q2_K", "--tensor-type", "attn_v=q8_0"),
        ("--to", "Q6_K", "--pure", "--override-kv", "a.b=str:c"),
    ):
        plan = json.loads(command("plan", source, *args, "--json").out)
        assert command("quantize", source, tmp_path / "o.gguf", *args, "--force").code == 0
        assert plan["file_bytes"] == (tmp_path / "o.gguf").stat().st_size
        written = json.loads(command("inspect", tmp_path / "o.gguf", "--json").out)["tensors"]
        assert [(t["name"], t["to"], t["shape"], t["bytes"]) for t in plan["tensors"]] == [
            (t["name"], t["type"], t["shape"], t["bytes"]) for t in written
        ]


def test_plan_says_why_and_adds_up(command: Callable[..., Ran]) -> None:
    out = command("plan", TINY, "--to", "Q4_K_M").out
    header, *rows = out.splitlines()
    assert header.split() == ["tensor", "shape", "from", "to", "why", "bytes"]
    assert any(row.startswith("output_norm.weight") and "kept" in row for row in rows)
    assert "bytes" in rows[-1]


def test_plan_shows_what_quantize_would_refuse_and_says_so(tmp_path: Path, command: Callable[..., Ran]) -> None:
    source = write_llama(tmp_path / "s.gguf")
    quantrs.quantize_checkpoint(source, tmp_path / "q.gguf", scheme="Q8_0")
    ran = command("plan", tmp_path / "q.gguf", "--to", "Q4_0", "--json")
    assert ran.code == 0
    assert "quantize would refuse" in ran.err
    assert "--allow-requantize" in ran.err
    assert json.loads(ran.out)["refusals"]


def test_a_flaw_of_our_own_is_one_line_and_a_traceback_only_with_debug(python: Callable[..., Ran]) -> None:
    code = "from quantrs import cli, inspection\ndef fail(*a): raise RuntimeError('oops')\ninspection.Inspection = fail\ncli.main()"
    ran = python("-c", code, "inspect", TINY)
    assert (ran.code, "internal error" in ran.err, "Traceback" in ran.err) == (1, True, False)
    assert "Traceback" in python("-c", code, "inspect", TINY, "--debug").err


@pytest.mark.parametrize(
    "args",
    [("plan", TINY, "--to", "Q4_K_M"), ("inspect", TINY), ("verify", TINY), ("quantize", TINY, "o.gguf", "--to", "Q4_K_M")],
    ids=lambda a: a[0],
)
def test_commands_start_without_numpy_and_rich(args: tuple[str, ...], python: Callable[..., Ran], tmp_path: Path) -> None:
    code = (
        "import atexit, sys\natexit.register(lambda: print('heavy:', *{'numpy', 'rich', 'asyncio'} & set(sys.modules)))\n"
        "from quantrs.cli import main\nmain()"
    )
    ran = python("-c", code, *args, cwd=tmp_path)
    assert ran.code == 0, ran.err
    assert ran.out.splitlines()[-1] == "heavy:"
