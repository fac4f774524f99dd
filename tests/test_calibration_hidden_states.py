"""Hidden states in memory and in a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from quantrs.calibration.hidden_states import HiddenStates
from quantrs.errors import InputError

SHAPE = (3, 5, 7)


@pytest.fixture(params=[0, 1 << 20], ids=["in a file", "in memory"])
def budget(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def filled(folder: Path, budget: int, start: float) -> HiddenStates:
    states = HiddenStates(folder / "out", "job", SHAPE, budget)
    for i in range(len(states)):
        states[i] = values(start + i)
    return states


def values(start: float) -> np.ndarray:
    return np.float32(start) + np.arange(35, dtype=np.float32).reshape(5, 7) / 3


def test_what_is_set_is_what_is_got(budget: int, tmp_path: Path) -> None:
    states = filled(tmp_path, budget, 1)
    assert states.in_memory == bool(budget)
    assert all(np.array_equal(states[i], values(1 + i)) for i in range(3))
    states[1] = values(9)
    assert np.array_equal(states[1], values(9))
    states.remove()
    assert not list(tmp_path.iterdir())


def test_work_goes_on_from_the_last_checkpoint(budget: int, tmp_path: Path) -> None:
    states = filled(tmp_path, budget, 1)
    states.checkpoint(4)
    for i in range(3):
        states[i] = values(20 + i)
    states.checkpoint(5)
    states[0] = values(50)  # and broken off
    found = HiddenStates.reopen(tmp_path / "out", "job", SHAPE, budget)
    assert found is not None
    again, block = found
    assert block == 5
    assert all(np.array_equal(again[i], values(20 + i)) for i in range(3))
    states.close()
    again.remove()
    assert not list(tmp_path.iterdir())


def test_what_was_not_set_again_goes_into_the_next_checkpoint(tmp_path: Path) -> None:
    states = filled(tmp_path, 0, 1)
    states.checkpoint(1)
    states[2] = values(30)
    states.checkpoint(2)
    assert [float(states[i][0, 0]) for i in range(3)] == [1.0, 2.0, 30.0]
    states.remove()


@pytest.mark.parametrize(("job", "shape"), [("other", SHAPE), ("job", (3, 5, 8))])
def test_states_of_another_job_are_not_taken_up(job: str, shape: tuple[int, int, int], tmp_path: Path) -> None:
    states = filled(tmp_path, 0, 1)
    states.checkpoint(1)
    states.close()
    assert HiddenStates.reopen(tmp_path / "out", job, shape, 0) is None
    assert HiddenStates.reopen(tmp_path / "elsewhere", "job", SHAPE, 0) is None


def test_a_file_that_was_cut_off_is_not_taken_up(tmp_path: Path) -> None:
    states = filled(tmp_path, 0, 1)
    states.checkpoint(1)
    states.close()
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    assert HiddenStates.reopen(tmp_path / "out", "job", SHAPE, 0) is None


def test_a_disk_without_room_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not enough disk space: hidden states need"):
        HiddenStates(tmp_path / "out", "job", (1 << 20, 1 << 12, 1 << 12), 0)


@pytest.mark.parametrize("bad", [np.zeros((5, 7)), np.zeros((4, 7), np.float32)])
def test_values_of_another_kind_are_refused(bad: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected float32"):
        HiddenStates(tmp_path / "out", "job", SHAPE, 0)[0] = bad
