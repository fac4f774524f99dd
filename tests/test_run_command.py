"""`quantrs run` and `quantrs chat`: what goes where, how they end, what Ctrl-C does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from conftest import Ran
from gguf_bytes import gguf, llama
from speaking_model import HI, ids_of, write_speaker

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and pipes as POSIX has them")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_speaker(tmp_path / "m.gguf", "abcdefg")


@pytest.fixture
def greeter(tmp_path: Path) -> Path:
    return write_speaker(tmp_path / "m.gguf", HI)


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    """Says one letter for ever, in chat too."""
    return write_speaker(tmp_path / "m.gguf", "\nx", then=ord("x"), n_ctx=10**7)


def start(*args: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "quantrs", *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=0,
    )


def talk(model: Path, text: str, *args: str) -> Ran:
    with start("chat", model, "--temp", "0", *args) as process:
        out, err = process.communicate(text, timeout=60)
    return Ran(process.returncode, out, err)


def test_the_text_goes_to_standard_output_and_the_speed_to_standard_error(model: Path, command: Callable[..., Ran]) -> None:
    ran = command("run", model, "-p", "ab", "--temp", "0")
    assert (ran.code, ran.out) == (0, "cdefg")
    assert "prompt 2 tokens" in ran.err
    assert "text 5 tokens" in ran.err
    assert "the model ended the text" in ran.err


def test_quiet_says_nothing_about_speed(model: Path, command: Callable[..., Ran]) -> None:
    assert command("run", model, "-p", "ab", "--temp", "0", "--quiet").err == ""


def test_json_is_one_value(model: Path, command: Callable[..., Ran]) -> None:
    ran = command("run", model, "-p", "ab", "-n", "2", "--temp", "0", "--json")
    found = json.loads(ran.out)
    assert (found["text"], found["ending"], found["prompt_tokens"], found["tokens"]) == ("cd", "length", 2, 2)
    assert ran.err == ""


def test_a_prompt_comes_from_a_file_without_its_last_line_end(model: Path, tmp_path: Path, command: Callable[..., Ran]) -> None:
    (tmp_path / "p.txt").write_text("ab\n")
    assert command("run", model, "-f", tmp_path / "p.txt", "--temp", "0").out == "cdefg"


def test_a_prompt_comes_from_standard_input(model: Path) -> None:
    with start("run", model, "-f", "-", "--temp", "0") as process:
        assert process.communicate("ab\n", timeout=60)[0] == "cdefg"


def test_stop_strings_and_sampling_options_reach_the_model(model: Path, command: Callable[..., Ran]) -> None:
    assert command("run", model, "-p", "a", "--temp", "0", "--stop", "xx", "--stop", "ef").out == "bcd"
    filters = ["--temp", "30", "--top-k", "200", "--top-p", "1", "--min-p", "0", "--typical", "1"]
    penalties = ["--repeat-penalty", "1.1", "--presence-penalty", "0.1", "--frequency-penalty", "0.1", "--repeat-last-n", "8"]
    texts = [command("run", model, "-p", "a", "-n", "20", *filters, *penalties, "--seed", seed, "--json").out for seed in ("5", "5", "6")]
    text = [json.loads(x)["text"] for x in texts]
    assert text[0] == text[1] != text[2]


def test_engine_options_are_taken(model: Path, command: Callable[..., Ran]) -> None:
    ran = command("run", model, "-p", "a", "--temp", "0", "--threads", "1", "--ctx", "3", "--kv-type", "f32", "--activations", "float")
    assert ran.out == "bcd"
    assert "context is full" in ran.err


def test_the_end_may_be_ignored(model: Path, command: Callable[..., Ran]) -> None:
    found = json.loads(command("run", model, "-p", "a", "--temp", "0", "-n", "9", "--ignore-eos", "--json").out)
    assert (found["tokens"], found["ending"]) == (9, "length")


def test_a_prompt_longer_than_the_context_names_both_and_the_option(model: Path, command: Callable[..., Ran]) -> None:
    ran = command("run", model, "-p", "abcdef", "--ctx", "4")
    assert (ran.code, ran.out) == (1, "")
    assert "found 6 tokens, but the context holds 4" in ran.err
    assert "--ctx" in ran.err


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("-p", ""), 1, "found no tokens"),
        (("-f", "nonesuch.txt"), 1, "nonesuch.txt: cannot be read"),
        ((), 2, "required"),
        (("-p", "a", "-f", "b"), 2, "not allowed with"),
        (("-p", "a", "-n", "-1"), 2, "expected a number of 0 or more"),
        (("-p", "a", "--temp", "-1"), 2, "temperature"),
        (("-p", "a", "--top-p", "x"), 2, "top-p"),
        (("-p", "a", "--stop", ""), 2, "empty string"),
        (("-p", "a", "--seed", "-1"), 2, "seed"),
        (("-p", "a", "--kv-type", "q8_0"), 1, "kv_type Q8_0"),
        (("-p", "a", "--kv-type", "q1"), 2, "kv-type"),
    ],
)
def test_wrong_requests_are_refused_in_a_line(
    args: tuple[str, ...], code: int, message: str, model: Path, command: Callable[..., Ran]
) -> None:
    ran = command("run", model, *args)
    assert ran.code == code
    assert message in ran.err
    assert "Traceback" not in ran.err


def test_a_file_that_is_not_text_is_refused_with_the_place(model: Path, tmp_path: Path, command: Callable[..., Ran]) -> None:
    (tmp_path / "p.txt").write_bytes(b"ab\xff")
    ran = command("run", model, "-f", tmp_path / "p.txt")
    assert ran.code == 1
    assert "p.txt: byte 2 is not UTF-8" in ran.err


def test_weights_that_are_nan_end_with_an_error(tmp_path: Path, command: Callable[..., Ran]) -> None:
    tensors, metadata = llama(vocab=64)
    tensors["output.weight"][:] = np.nan
    metadata |= {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2", "tokenizer.ggml.bos_token_id": 1}
    metadata |= {"tokenizer.ggml.add_bos_token": True, "llama.context_length": 64, "llama.attention.layer_norm_rms_epsilon": 1e-5}
    (tmp_path / "m.gguf").write_bytes(gguf(tensors, metadata))
    ran = command("run", tmp_path / "m.gguf", "-p", "", "-n", "2")
    assert ran.code == 1
    assert "output.weight: the result is not finite" in ran.err


def test_a_reader_that_goes_away_ends_it_quietly(endless: Path) -> None:
    with start("run", endless, "-p", "\n", "--temp", "0") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(3) == "xxx"
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_text_that_is_on_its_way(number: signal.Signals, code: int, endless: Path) -> None:
    with start("run", endless, "-p", "\n", "--temp", "0") as process:
        assert process.stdout is not None
        assert process.stdout.read(3) == "xxx"
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in err


def test_message_is_answered_once(greeter: Path, command: Callable[..., Ran]) -> None:
    ran = command("chat", greeter, "--message", "Hello", "--temp", "0")
    assert (ran.code, ran.out) == (0, "Hi!\n")
    assert "no chat template" in ran.err


def test_every_line_is_a_message_and_the_end_of_input_leaves(greeter: Path) -> None:
    ran = talk(greeter, "Hello\n\nAnd you?\n")
    assert (ran.code, ran.out) == (0, "Hi!\nHi!\n")


def test_the_history_and_the_system_message_reach_the_template(tmp_path: Path) -> None:
    """The template refuses, and so shows, what it was given."""
    show = "{% if messages[-1].content == 'show' %}{{ raise_exception(messages|map(attribute='content')|join('|')) }}{% endif %}x\n\n"
    model = write_speaker(tmp_path / "m.gguf", HI, metadata={"tokenizer.chat_template": show})
    lines = ["one", "show", "/system S", "show", "/reset", "show", "/system", "show", "/nonesuch", " /nonesuch", "/help", "/quit", "never"]
    ran = talk(model, "\n".join(lines) + "\n", "--system", "first")
    shown = [line.split(": ")[-1] for line in ran.err.splitlines() if "chat_template" in line]
    assert shown == ["first|one|Hi!|show", "S|one|Hi!|show", "S|show", "show"]
    assert ran.out == "Hi!\nHi!\n"
    assert "/nonesuch: no such command" in ran.err
    assert "Ctrl-C stops an answer" in ran.err
    assert ran.code == 1


def test_lines_that_end_in_a_backslash_are_one_message(greeter: Path) -> None:
    assert talk(greeter, "a\\\nb\n").out == "Hi!\n"


def test_a_template_that_is_no_good_is_an_error_before_the_first_message(tmp_path: Path, command: Callable[..., Ran]) -> None:
    model = write_speaker(tmp_path / "m.gguf", HI, metadata={"tokenizer.chat_template": "{{ ''.__class__.__mro__ }}"})
    for ran in (command("chat", model, "--message", "Hello"), talk(model, "Hello\n")):
        assert (ran.code, ran.out) == (1, "")
        assert "tokenizer.chat_template" in ran.err
        assert "Traceback" not in ran.err


def test_a_full_context_is_said_with_what_helps(greeter: Path) -> None:
    ran = talk(greeter, "Hello\nHello again\n/reset\nHello\n", "--ctx", "40")
    assert ran.out == "Hi!\nHi!\n"
    assert "but the context holds 40" in ran.err
    assert "/reset starts the conversation over" in ran.err


def test_an_answer_that_fills_the_context_is_said(endless: Path) -> None:
    ran = talk(endless, "Hello\n", "--ctx", "40")
    assert ran.code == 0
    assert ran.out.startswith("xxx")
    assert "the context of 40 tokens is full; /reset" in ran.err


def test_ctrl_c_stops_an_answer_and_the_next_line_is_answered(endless: Path) -> None:
    with start("chat", endless, "--temp", "0") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for _ in range(2):
            process.stdin.write("Hello\n")
            assert process.stdout.read(3) == "xxx"
            process.send_signal(signal.SIGINT)
            while (char := process.stdout.read(1)) == "x":
                pass
            assert char == "\n"
        out, err = process.communicate("/quit\n", timeout=60)
    assert (process.returncode, out) == (0, "")
    assert err.count("stopped") == 2


def test_ctrl_c_without_an_answer_says_how_to_leave_and_then_leaves(greeter: Path) -> None:
    with start("chat", greeter, "--temp", "0") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write("Hello\n")
        assert process.stdout.read(4) == "Hi!\n"
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        while "again leaves" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
        assert "Traceback" not in process.stderr.read()
    assert process.returncode == 130


def test_a_terminal_gets_control_characters_escaped_and_pasted_lines_stay_together(tmp_path: Path) -> None:
    import pty

    model = write_speaker(tmp_path / "m.gguf", [10, *ids_of("H\x1bi")])
    primary, secondary = pty.openpty()
    env = {**os.environ, "TERM": "dumb", "INPUTRC": os.devnull}
    process = subprocess.Popen(
        [sys.executable, "-m", "quantrs", "chat", str(model), "--temp", "0"], stdin=secondary, stdout=secondary, stderr=secondary, env=env
    )
    os.close(secondary)
    seen = b""
    while b"> " not in seen:
        seen += os.read(primary, 1000)
    os.write(primary, b"one\ntwo\n")
    while b"i\r\n" not in seen.split(b"two")[-1]:
        seen += os.read(primary, 1000)
    os.write(primary, b"/quit\n")
    assert process.wait(timeout=60) == 0
    os.close(primary)
    assert seen.count(b"H\\x1bi") == 1
    assert b"\x1bi" not in seen
