"""Outputs are one run's at a time."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from st_embfilter.errors import MisuseError, OutputExistsError, OutputWriteError
from st_embfilter.files import alone, atomic_output

KILLED_INSIDE = """
import os, signal, sys
from st_embfilter.files import atomic_output

with atomic_output(sys.argv[1], folder=True) as folder:
    (folder / "half").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_second_run_is_refused_and_the_first_is_not_disturbed(tmp_path: Path) -> None:
    out = tmp_path / "folder" / "out"
    with atomic_output(out, folder=True) as folder:
        (folder / "first").touch()
        with (
            pytest.raises(MisuseError, match="out is being written by another run"),
            atomic_output(out, folder=True),
        ):
            pass
        (folder / "second").touch()
    assert sorted(file.name for file in out.iterdir()) == ["first", "second"]
    assert list(out.parent.iterdir()) == [out]


def test_a_run_that_was_killed_keeps_nobody_out(tmp_path: Path) -> None:
    out = tmp_path / "out"
    killed = subprocess.run([sys.executable, "-c", KILLED_INSIDE, str(out)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not out.exists()
    with atomic_output(out, folder=True) as folder:
        (folder / "whole").touch()
    assert [file.name for file in out.iterdir()] == ["whole"]
    assert list(tmp_path.iterdir()) == [out]


def test_a_run_that_failed_keeps_nobody_out(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(OutputWriteError), atomic_output(out):
        raise OSError
    with atomic_output(out) as file:
        file.touch()
    assert list(tmp_path.iterdir()) == [out]
    with pytest.raises(OutputExistsError), atomic_output(out):
        pass
    assert list(tmp_path.iterdir()) == [out]


def test_other_outputs_are_other_locks(tmp_path: Path) -> None:
    with alone(tmp_path / "a", tmp_path / ".a"), alone(tmp_path / "b", tmp_path / ".b"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(OutputWriteError, match="could not be written"),
        atomic_output(tmp_path / "file" / "out"),
    ):
        pass
