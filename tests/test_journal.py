"""The journal by itself: what is read back, what a crash leaves, and the lock."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from quantrs.errors import FileError
from quantrs.journal import Job, Journal, Record, journal_path, part_path

JOB = Job(
    version="1.0",
    source=(("/models/a.gguf", 100, 123),),
    source_header="aa",
    type="Q4_K_M",
    options="none",
    imatrix=None,
    outputs=(("o.gguf", 50),),
    output_headers="bb",
)
RECORDS = [
    Record(file=0, tensor="a", crc32=1, clipped_blocks=0, errors=None),
    Record(file=0, tensor="b \udcff", crc32=2**32 - 1, clipped_blocks=3, errors=(0.1, 1e300, 5e-324)),
]


@pytest.fixture
def dst(tmp_path: Path) -> Path:
    return tmp_path / "o.gguf"


def write(dst: Path, *, complete: bool = False) -> Path:
    with Journal.lock(dst) as journal:
        journal.start(JOB)
        for record in RECORDS:
            journal.add(record)
        if complete:
            journal.set_complete(sync=True)
    return journal_path(dst)


def test_the_files_lie_hidden_beside_the_output() -> None:
    assert part_path(Path("d/o.gguf")) == Path("d/.o.gguf.quantrs-part")
    assert journal_path(Path("d/o.gguf")) == Path("d/.o.gguf.quantrs-journal")


@pytest.mark.parametrize("complete", [False, True])
def test_job_and_records_are_read_back_as_they_were_written(complete: bool, dst: Path) -> None:
    write(dst, complete=complete)
    with Journal.lock(dst) as journal:
        assert (journal.job, journal.records, journal.complete, journal.foreign) == (JOB, RECORDS, complete, False)


def test_an_unused_journal_is_removed(dst: Path) -> None:
    with Journal.lock(dst) as journal:
        assert journal_path(dst).exists()
        assert not journal.holds_work
    assert not journal_path(dst).exists()


def test_a_used_journal_is_kept_when_an_error_passes_through(dst: Path) -> None:
    def fail() -> None:
        with Journal.lock(dst) as journal:
            journal.start(JOB)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert journal_path(dst).exists()


def test_every_cut_of_the_file_gives_a_prefix_of_the_records_and_can_be_continued(dst: Path) -> None:
    path = write(dst)
    whole = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for n_bytes in range(len(whole) + 1):
        path.write_bytes(whole[:n_bytes])
        n_lines = sum(end <= n_bytes for end in ends)
        with Journal.lock(dst) as journal:
            assert journal.job == (JOB if n_lines else None)
            assert journal.records == RECORDS[: max(0, n_lines - 1)]
            assert not journal.foreign
            if n_lines:
                journal.resume()
                journal.add(RECORDS[0])
        if n_lines:
            with Journal.lock(dst) as journal:
                assert journal.records == [*RECORDS[: n_lines - 1], RECORDS[0]]
        path.unlink(missing_ok=True)


@pytest.mark.parametrize("line", [b"hello\n", b"[]\n", b'{"quantrs_journal":2}\n', b'{"quantrs_journal":1,"source":3}\n', b"\xff\xfe\n"])
def test_content_of_another_kind_counts_as_work_and_is_kept(line: bytes, dst: Path) -> None:
    journal_path(dst).write_bytes(line)
    with Journal.lock(dst) as journal:
        assert journal.foreign
        assert journal.holds_work
        assert journal.job is None
    assert journal_path(dst).read_bytes() == line


@pytest.mark.parametrize("line", [b'{"file":0}\n', b"garbage\n", b'{"file":"0","tensor":"a","crc32":1}\n'])
def test_a_damaged_line_ends_the_records(line: bytes, dst: Path) -> None:
    path = write(dst)
    first, second, third = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + second + line + third)
    with Journal.lock(dst) as journal:
        assert journal.records == RECORDS[:1]


def test_starting_again_forgets_the_old_job(dst: Path) -> None:
    write(dst)
    other = dataclasses.replace(JOB, type="Q6_K")
    with Journal.lock(dst) as journal:
        journal.start(other)
    with Journal.lock(dst) as journal:
        assert (journal.job, journal.records) == (other, [])


def test_the_difference_of_two_jobs_names_what_differs() -> None:
    other = dataclasses.replace(JOB, type="Q6_K", source=(("/models/a.gguf", 101, 123),))
    assert JOB.difference(other) == "source, type (Q4_K_M there, Q6_K here)"
    assert JOB.difference(JOB) == ""


def test_a_second_process_does_not_get_the_lock(dst: Path) -> None:
    code = "import sys; from pathlib import Path; from quantrs.journal import Journal\nwith Journal.lock(Path(sys.argv[1])): pass"
    with Journal.lock(dst) as journal:
        journal.start(JOB)
        other = subprocess.run([sys.executable, "-c", code, dst], capture_output=True, text=True, check=False)
        assert "another quantrs process is writing it" in other.stderr
        assert "InputError" in other.stderr
    assert subprocess.run([sys.executable, "-c", code, dst], check=False).returncode == 0


def test_the_lock_is_not_taken_on_a_file_that_its_owner_has_removed(dst: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from quantrs import journal as module

    opened: list[int] = []
    try_lock = module._try_lock

    def owner_finishes_first(fd: int) -> bool:
        if not opened:
            journal_path(dst).unlink()
        opened.append(fd)
        return try_lock(fd)

    monkeypatch.setattr(module, "_try_lock", owner_finishes_first)
    with Journal.lock(dst) as journal:
        journal.start(JOB)
        assert len(opened) == 2
    assert journal_path(dst).exists()


@pytest.mark.skipif(os.name == "nt", reason="no such links there")
def test_a_link_planted_in_place_of_the_journal_is_not_followed(dst: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    journal_path(dst).symlink_to(victim)
    with pytest.raises(FileError, match="cannot write beside it"), Journal.lock(dst):
        pass
    assert victim.read_bytes() == b"precious"


def test_a_folder_that_is_not_there_is_a_file_error(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="No such file"), Journal.lock(tmp_path / "absent" / "o.gguf"):
        pass
