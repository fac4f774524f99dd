"""The quantize command's promises: never half a file, nothing lost, nothing overwritten. The bytes are compared with ggml's own files."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import quantrs as qr
from conftest import GOLDEN, Ran, run_python
from gguf_bytes import gguf, llama, write_llama
from quantrs.journal import journal_path, part_path

TINY = GOLDEN / "ggml" / "tiny"
posix = pytest.mark.skipif(os.name == "nt", reason="POSIX signals and limits")


def quantize(*args: str | Path, **kw: object) -> Ran:
    return run_python("-m", "quantrs", "quantize", *args, **kw)  # type: ignore[arg-type]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def names(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()}


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2 MB of float16."""
    return write_llama(tmp_path_factory.mktemp("small") / "small.gguf")


@pytest.fixture(scope="session")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough work to be interrupted: some 45 MB of float16."""
    return write_llama(tmp_path_factory.mktemp("slow") / "slow.gguf", n_layers=7, hidden=512, ffn=1280, vocab=256)


# ------------------------------------------------------------------------------------------------ the written file
@pytest.mark.parametrize(
    ("file_type", "extra", "want"),
    [
        ("Q4_K_M", (), "tiny-Q4_K_M.gguf"),
        ("q3_k_s", ("--imatrix", "tiny.imatrix.gguf"), "tiny-Q3_K_S-imat.gguf"),
        ("11", ("--imatrix", "tiny.imatrix.gguf"), "tiny-Q3_K_S-imat.gguf"),
    ],
)
def test_the_whole_file_equals_the_one_that_llama_quantize_wrote(file_type: str, extra: tuple[str, ...], want: str, tmp_path: Path) -> None:
    ran = quantize("tiny-f16.gguf", tmp_path / "o.gguf", "--to", file_type, *extra, cwd=TINY)
    assert ran.code == 0, ran.err
    assert (tmp_path / "o.gguf").read_bytes() == (TINY / want).read_bytes()
    assert names(tmp_path) == {"o.gguf"}


def test_the_bytes_do_not_depend_on_threads_or_on_measuring(small: Path, tmp_path: Path) -> None:
    for i, extra in enumerate((("--threads", "1"), ("--threads", "3"), ("--error",))):
        assert quantize(small, tmp_path / f"{i}.gguf", "--to", "Q4_K_M", *extra).code == 0
    assert len({digest(p) for p in tmp_path.iterdir()}) == 1


@posix
def test_the_written_file_has_the_permissions_that_the_umask_gives(small: Path, tmp_path: Path) -> None:
    code = "import os, runpy, sys; os.umask(0o027); runpy.run_module('quantrs', run_name='__main__')"
    ran = run_python("-c", code, "quantize", small, tmp_path / "o.gguf", "--to", "Q8_0")
    assert ran.code == 0, ran.err
    assert (tmp_path / "o.gguf").stat().st_mode & 0o777 == 0o640


# ------------------------------------------------------------------------------------------------ what is printed
def test_json_is_one_value_on_standard_output(small: Path, tmp_path: Path) -> None:
    ran = quantize(small, tmp_path / "o.gguf", "--to", "Q4_K_M", "--json", "--error")
    report = json.loads(ran.out)
    assert report["file_bytes"] == (tmp_path / "o.gguf").stat().st_size
    assert report["file_type"] == "Q4_K_M"
    groups = {row["group"]: row for row in report["errors"]}
    assert {"attn_q", "ffn_down", "output", "token_embd"} <= groups.keys()
    assert groups["attn_q"]["tensors"] == 2
    assert 20 < groups["attn_q"]["sqnr_db"] < 30


def test_error_per_group_agrees_with_the_values_in_both_files(small: Path, tmp_path: Path) -> None:
    report = qr.quantize_checkpoint(small, tmp_path / "o.gguf", scheme="Q4_K_S", measure=True)
    with qr.open(small) as source, qr.open(tmp_path / "o.gguf") as written:
        pairs = [(source.tensors[n].dequantize(), written.tensors[n].dequantize()) for n in source.tensors if ".ffn_up." in n]
    squared_error = sum(((a.astype(np.float64) - b) ** 2).sum() for a, b in pairs)
    squared = sum((a.astype(np.float64) ** 2).sum() for a, _ in pairs)
    found = next(e for e in report.errors if e.group == "ffn_up")
    assert found.relative == pytest.approx((squared_error / squared) ** 0.5, rel=1e-6)


def test_the_plan_and_the_sizes_are_shown_to_people(small: Path, tmp_path: Path) -> None:
    ran = quantize(small, tmp_path / "o.gguf", "--to", "Q4_K_M")
    assert "Q6_K" in ran.err
    assert "bits per weight" in ran.out
    assert "MB/s" in ran.out


# ------------------------------------------------------------------------------------------------ refusals
REFUSALS = [
    (("absent.gguf", "o.gguf", "--to", "Q4_0"), 1, "absent.gguf"),
    (("small.gguf", "o.gguf", "--to", "Q9_Z"), 2, "Q9_Z"),
    (("small.gguf", "o.gguf"), 2, "--to"),
    (("small.gguf", "o.gguf", "--to", "Q4_0", "--threads", "0"), 2, "threads"),
    (("small.gguf", "o.gguf", "--to", "Q4_0", "--output-tensor-type", "zz"), 2, "zz"),
    (("small.gguf", "o.gguf", "--to", "Q4_0", "--tensor-type", "attn_v"), 2, "PATTERN=TYPE"),
    (("small.gguf", "o.gguf", "--to", "Q4_0", "--override-kv", "a=int:x"), 2, "integer"),
    (("small.gguf", "o.gguf", "--to", "Q4_0", "--imatrix", "absent.dat"), 1, "absent.dat"),
    (("small.gguf", "no/such/folder/o.gguf", "--to", "Q4_0"), 1, "no folder"),
    (("small.gguf", "folder", "--to", "Q4_0"), 1, "folder"),
    (("small.gguf", "small.gguf", "--to", "Q4_0", "--force"), 1, "same file"),
    (("small.gguf", "link.gguf", "--to", "Q4_0", "--force"), 1, "same file"),
    (("q8.gguf", "o.gguf", "--to", "Q4_0"), 1, "--allow-requantize"),
    (("nan.gguf", "o.gguf", "--to", "Q4_0"), 1, "blk.1.ffn_up.weight"),
    (("unknown.gguf", "o.gguf", "--to", "Q4_0"), 1, "77"),
    (("cut.gguf", "o.gguf", "--to", "Q4_0"), 1, "cut.gguf"),
]


@pytest.fixture(scope="session")
def refused_sources(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("refused")
    tensors, metadata = llama()
    (folder / "small.gguf").write_bytes(gguf(tensors, metadata))
    (folder / "unknown.gguf").write_bytes(gguf(tensors, metadata, type_ids={"blk.0.attn_q.weight": 77}))
    (folder / "cut.gguf").write_bytes(gguf(tensors, metadata)[:-5000])
    tensors["blk.1.ffn_up.weight"][3, 7] = np.nan
    (folder / "nan.gguf").write_bytes(gguf(tensors, metadata))
    (folder / "folder").mkdir()
    (folder / "link.gguf").symlink_to("small.gguf")
    assert quantize("small.gguf", "q8.gguf", "--to", "Q8_0", cwd=folder).code == 0
    return folder


@pytest.mark.parametrize(("args", "code", "word"), REFUSALS, ids=[" ".join(r[0])[:60] for r in REFUSALS])
def test_a_refusal_is_one_readable_message_and_leaves_nothing(args: tuple[str, ...], code: int, word: str, refused_sources: Path) -> None:
    before = {p.name: digest(p) for p in refused_sources.iterdir() if p.is_file()}
    ran = quantize(*args, cwd=refused_sources)
    assert ran.code == code, ran.err
    assert word in ran.err
    assert "Traceback" not in ran.err
    assert {p.name: digest(p) for p in refused_sources.iterdir() if p.is_file()} == before


def test_debug_shows_where_an_error_came_from(small: Path, tmp_path: Path) -> None:
    assert "Traceback" in quantize(tmp_path / "absent.gguf", tmp_path / "o.gguf", "--to", "Q4_0", "--debug").err


def test_an_existing_output_is_only_replaced_with_force(small: Path, tmp_path: Path) -> None:
    output = tmp_path / "o.gguf"
    output.write_bytes(b"precious")
    ran = quantize(small, output, "--to", "Q8_0")
    assert (ran.code, output.read_bytes()) == (1, b"precious")
    assert "--force" in ran.err
    assert names(tmp_path) == {"o.gguf"}
    assert quantize(small, output, "--to", "Q8_0", "--force").code == 0
    assert output.stat().st_size > 1000


@posix
def test_a_dangling_link_counts_as_an_existing_output(small: Path, tmp_path: Path) -> None:
    (tmp_path / "o.gguf").symlink_to(tmp_path / "nowhere")
    assert quantize(small, tmp_path / "o.gguf", "--to", "Q8_0").code == 1
    assert not (tmp_path / "nowhere").exists()


@posix
def test_a_device_is_never_replaced(small: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    ran = quantize(small, tmp_path / "pipe", "--to", "Q8_0", "--force")
    assert (ran.code, names(tmp_path)) == (1, {"pipe"})


def test_an_output_that_is_the_importance_matrix_is_refused(tmp_path: Path) -> None:
    imatrix = tmp_path / "i.gguf"
    imatrix.write_bytes((TINY / "tiny.imatrix.gguf").read_bytes())
    before = digest(imatrix)
    assert quantize(TINY / "tiny-f16.gguf", imatrix, "--to", "Q4_0", "--imatrix", imatrix, "--force").code == 1
    assert digest(imatrix) == before


# ------------------------------------------------------------------------------------------------ room
def test_a_disk_without_room_is_refused_before_the_work(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from quantrs import output

    monkeypatch.setattr(output, "_free_bytes", lambda folder: 1000)
    with pytest.raises(qr.InputError, match=r"not enough disk space.*1\.00 kB are free"):
        qr.quantize_checkpoint(small, tmp_path / "o.gguf", scheme="Q4_0")
    assert names(tmp_path) == set()


@posix
def test_a_file_size_limit_is_a_clear_error_and_leaves_no_output(small: Path, tmp_path: Path) -> None:
    code = (
        "import resource, runpy, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); runpy.run_module('quantrs', run_name='__main__')"
    )
    ran = run_python("-c", code, "quantize", small, tmp_path / "o.gguf", "--to", "Q4_0")
    assert ran.code == 1
    assert "Traceback" not in ran.err
    assert any(word in ran.err.lower() for word in ("too large", "limit", "space")), ran.err
    assert names(tmp_path) == set()


# ------------------------------------------------------------------------------------------------ killed and resumed
def start(*args: str | Path) -> subprocess.Popen[str]:
    """Begin at the slowest CPU level, so that there is time to interfere; what finishes the job runs at the fastest."""
    command = [sys.executable, "-m", "quantrs", "quantize", *map(str, args)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "QUANTRS_LEVEL": "scalar"}
    )


def records(output: Path) -> int:
    try:
        return max(0, journal_path(output).read_bytes().count(b"\n") - 1)
    except OSError:
        return 0


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, f"it ended before it could be interrupted: {process.stderr and process.stderr.read()}"
        assert time.monotonic() < deadline
        time.sleep(0.001)


ARGS = ("--to", "Q4_K_M", "--threads", "1")


@pytest.fixture(scope="session")
def uninterrupted(slow: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Hash of the whole file."""
    output = tmp_path_factory.mktemp("whole") / "o.gguf"
    assert quantize(slow, output, *ARGS).code == 0
    return digest(output)


@pytest.mark.slow
@posix
def test_killed_at_random_moments_the_resumed_file_is_the_same(slow: Path, uninterrupted: str, tmp_path: Path) -> None:
    rng = random.Random(5)
    caught = 0
    for i in range(12):
        output = tmp_path / f"{i}.gguf"
        process = start(slow, output, *ARGS)
        enough, moment = rng.randrange(-10, 60), rng.random() * 0.03
        while process.poll() is None and records(output) < enough:
            time.sleep(0.001)
        time.sleep(moment)
        process.kill()
        process.communicate()
        caught += process.returncode == -signal.SIGKILL
        assert not output.exists() or digest(output) == uninterrupted
        ran = quantize(slow, output, *ARGS, "--resume")
        assert ran.code == 0, ran.err
        assert digest(output) == uninterrupted
        assert names(tmp_path) == {output.name}
        output.unlink()
    assert caught >= 6


@posix
def test_what_was_done_is_not_done_again(slow: Path, uninterrupted: str, tmp_path: Path) -> None:
    output = tmp_path / "o.gguf"
    process = start(slow, output, *ARGS)
    wait_for(lambda: records(output) >= 20, process)
    process.kill()
    process.communicate()
    done = records(output)
    ran = quantize(slow, output, *ARGS, "--resume", "--json")
    assert json.loads(ran.out)["resumed_tensors"] == done
    assert digest(output) == uninterrupted


@posix
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_keeps_the_work_and_prints_how_to_go_on(
    number: signal.Signals, code: int, slow: Path, uninterrupted: str, tmp_path: Path
) -> None:
    output = tmp_path / "o.gguf"
    process = start(slow, output, *ARGS)
    wait_for(lambda: records(output) >= 5, process)
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert out == ""
    assert names(tmp_path) == {part_path(output).name, journal_path(output).name}
    line = next(text.strip() for text in err.splitlines() if "--resume" in text)
    resumed = run_python("-m", *line.split())
    assert resumed.code == 0, resumed.err
    assert digest(output) == uninterrupted


@posix
def test_bytes_that_a_power_failure_lost_are_written_again(slow: Path, uninterrupted: str, tmp_path: Path) -> None:
    output = tmp_path / "o.gguf"
    process = start(slow, output, *ARGS)
    wait_for(lambda: records(output) >= 10, process)
    process.kill()
    process.communicate()
    with part_path(output).open("r+b") as part:
        part.seek(40_000)
        part.write(bytes(100_000))
    assert quantize(slow, output, *ARGS, "--resume").code == 0
    assert digest(output) == uninterrupted


@posix
def test_unfinished_work_is_neither_lost_nor_mixed_up(slow: Path, uninterrupted: str, tmp_path: Path) -> None:
    output = tmp_path / "o.gguf"
    process = start(slow, output, *ARGS)
    wait_for(lambda: records(output) >= 5, process)
    process.kill()
    process.communicate()
    before = journal_path(output).read_bytes()
    for extra, word in (
        ((), "--resume goes on"),
        (("--pure",), "another job"),
        (("--pure", "--resume"), "another job"),
        (("--pure", "--resume", "--force"), "another job"),
    ):
        ran = quantize(slow, output, *ARGS, *extra)
        assert (ran.code, word in ran.err) == (1, True), ran.err
        assert journal_path(output).read_bytes() == before
    ran = quantize(slow, output, "--to", "Q8_0", "--resume")
    assert "Q4_K_M there, Q8_0 here" in ran.err
    assert quantize(slow, output, "--to", "Q8_0", "--force").code == 0
    assert names(tmp_path) == {"o.gguf"}
    assert digest(output) != uninterrupted


@posix
def test_a_changed_source_is_another_job(small: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "s.gguf", tmp_path / "o.gguf"
    write_llama(source)
    leave_unfinished(source, output)
    write_llama(source, seed=1)
    ran = quantize(source, output, "--to", "Q4_0", "--resume")
    assert (ran.code, "source" in ran.err) == (1, True)


def leave_unfinished(source: Path, output: Path) -> None:
    """Stop the job of quantizing to Q4_0 as a crash would, right before the renaming."""
    code = "import os, sys; from quantrs import output, cli, writer\nwriter.publish = lambda *a, **k: os._exit(9)\ncli.main()"
    assert run_python("-c", code, "quantize", source, output, "--to", "Q4_0").code == 9
    assert names(output.parent) >= {part_path(output).name, journal_path(output).name}


def test_a_crash_before_the_renaming_costs_nothing(small: Path, tmp_path: Path) -> None:
    output = tmp_path / "o.gguf"
    leave_unfinished(small, output)
    report = json.loads(quantize(small, output, "--to", "Q4_0", "--resume", "--json").out)
    assert report["resumed_tensors"] == report["tensors"]
    assert names(tmp_path) == {"o.gguf"}


def test_a_crash_after_the_renaming_leaves_a_journal_that_resume_clears_away(small: Path, tmp_path: Path) -> None:
    output = tmp_path / "o.gguf"
    leave_unfinished(small, output)
    part_path(output).rename(output)
    before = digest(output)
    ran = quantize(small, output, "--to", "Q4_0", "--resume")
    assert (ran.code, names(tmp_path), digest(output)) == (0, {"o.gguf"}, before)
    assert "complete already" in ran.out


def test_resume_with_nothing_to_resume_starts_afresh_and_with_all_done_says_so(small: Path, tmp_path: Path) -> None:
    output = tmp_path / "o.gguf"
    assert quantize(small, output, "--to", "Q4_0", "--resume").code == 0
    stamp = output.stat().st_mtime_ns
    ran = quantize(small, output, "--to", "Q4_0", "--resume", "--json")
    assert ran.code == 0
    assert json.loads(ran.out)["already_complete"] is True
    assert output.stat().st_mtime_ns == stamp
    assert quantize(small, output, "--to", "Q8_0", "--resume").code == 1
    assert output.stat().st_mtime_ns == stamp


@posix
def test_of_two_runs_on_one_output_the_second_is_refused(slow: Path, uninterrupted: str, tmp_path: Path) -> None:
    output = tmp_path / "o.gguf"
    process = start(slow, output, *ARGS)
    wait_for(lambda: records(output) >= 1, process)
    for extra in ((), ("--resume",), ("--force",)):
        second = quantize(slow, output, *ARGS, *extra)
        if process.poll() is None:
            assert second.code == 1
            assert "another quantrs process" in second.err
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert digest(output) == uninterrupted


def test_an_output_that_appears_meanwhile_is_not_overwritten(small: Path, tmp_path: Path) -> None:
    output = tmp_path / "o.gguf"
    leave_unfinished(small, output)
    output.write_bytes(b"precious")
    ran = quantize(small, output, "--to", "Q4_0", "--resume")
    assert (ran.code, output.read_bytes()) == (1, b"precious")
    assert journal_path(output).exists()
    assert quantize(small, output, "--to", "Q4_0", "--resume", "--force").code == 0
    assert names(tmp_path) == {"o.gguf"}


def test_a_source_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    source = write_llama(tmp_path / "s.gguf")
    code = (
        "import os, sys; from quantrs import cli, journal\nadd = journal.Journal.add\n"
        "journal.Journal.add = lambda self, record: (os.utime(sys.argv[2], (1, 1)), add(self, record))[1]\ncli.main()"
    )
    ran = run_python("-c", code, "quantize", source, tmp_path / "o.gguf", "--to", "Q4_0")
    assert ran.code == 1
    assert "changed while it was being read" in ran.err
    assert names(tmp_path) == {"s.gguf"}


def test_a_read_error_keeps_the_work(tmp_path: Path) -> None:
    source, output = write_llama(tmp_path / "s.gguf"), tmp_path / "o.gguf"
    code = (
        "import sys; from quantrs import cli, errors, journal\nadd = journal.Journal.add\n"
        "def failing(self, record):\n"
        "    if len(self.records) == 4: raise errors.FileError('s.gguf: Input/output error')\n"
        "    add(self, record)\n"
        "journal.Journal.add = failing\ncli.main()"
    )
    ran = run_python("-c", code, "quantize", source, output, "--to", "Q4_0")
    assert ran.code == 1
    assert "Input/output error" in ran.err
    assert "--resume" in ran.err
    report = json.loads(quantize(source, output, "--to", "Q4_0", "--resume", "--json").out)
    assert report["resumed_tensors"] == 4


def test_a_split_job_is_resumed_between_two_renamings(tmp_path: Path) -> None:
    source = TINY / "split-00001-of-00003.gguf"
    args = ("--to", "Q8_0", "--keep-split")
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    assert quantize(source, tmp_path / "whole" / "o.gguf", *args).code == 0
    wanted = {p.name: digest(p) for p in (tmp_path / "whole").iterdir()}
    assert set(wanted) == {f"o-{i:05}-of-00003.gguf" for i in (1, 2, 3)}
    code = (
        "import os; from pathlib import Path; from quantrs import cli\nreplace, calls = Path.replace, []\n"
        "def once(self, target):\n    if calls: os._exit(9)\n    calls.append(1)\n    return replace(self, target)\n"
        "Path.replace = once\ncli.main()"
    )
    assert run_python("-c", code, "quantize", source, tmp_path / "cut" / "o.gguf", *args).code == 9
    assert len(names(tmp_path / "cut")) == 4
    ran = quantize(source, tmp_path / "cut" / "o.gguf", *args, "--resume")
    assert ran.code == 0, ran.err
    assert {p.name: digest(p) for p in (tmp_path / "cut").iterdir()} == wanted


# ------------------------------------------------------------------------------------------------ as a function
def test_quantize_checkpoint_tells_its_watcher_and_cancels_cleanly(slow: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from quantrs import progress
    from quantrs.progress import Watcher

    monkeypatch.setattr(progress, "_LOOK_EVERY_SECONDS", 0.001)  # the whole job takes little more than one look

    class Impatient(Watcher):
        def __init__(self) -> None:
            self.files: tuple[Path, ...] = ()
            self.totals: list[int] = []
            self.stops = 0

        def start(self, total_bytes: int) -> None:
            self.totals.append(total_bytes)

        def update(self, done_bytes: int) -> None:
            if done_bytes:
                raise KeyboardInterrupt

        def stop(self) -> None:
            self.stops += 1

        def kept(self, files: tuple[Path, ...]) -> None:
            self.files = files

    output, watcher = tmp_path / "o.gguf", Impatient()
    with pytest.raises(KeyboardInterrupt):
        qr.quantize_checkpoint(slow, output, scheme="Q4_K_M", threads=1, watcher=watcher)
    assert {p.name for p in watcher.files} == names(tmp_path)
    assert watcher.stops == 1
    assert 0 < watcher.totals[0] < slow.stat().st_size
    report = qr.quantize_checkpoint(slow, output, scheme="Q4_K_M", resume=True)
    assert report.file_bytes == output.stat().st_size
    assert names(tmp_path) == {"o.gguf"}
