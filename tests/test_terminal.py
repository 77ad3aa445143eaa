"""How the commands speak where there is a terminal, and where there is none."""

import sys

import pytest
from huggingface_hub.utils import tqdm as hub_tqdm
from tqdm import tqdm

from st_embfilter.commands import terminal
from st_embfilter.commands.terminal import progress_for_log


@pytest.mark.parametrize("bar", [tqdm, hub_tqdm])
def test_progress_in_a_log_is_lines(
    bar: type, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "0")
    seconds = iter(range(10**6))
    monkeypatch.setattr(terminal.time, "monotonic", lambda: next(seconds))
    with progress_for_log():
        # A state a second: lines at 0, 30, 60, 90 and at the end.
        for _ in bar(range(100), desc="Step", mininterval=0, leave=True):
            pass
        with bar(total=3, desc="Inner", leave=False) as inner:
            inner.update(3)
    said = capsys.readouterr().err
    lines = said.splitlines()
    assert "\r" not in said and said.endswith("\n")
    assert [line.partition(":")[0] for line in lines] == ["Step"] * 5 + ["Inner"]
    assert " 0/100" in lines[0] and "100/100" in lines[4] and "0/3" in lines[5]


def test_progress_in_a_terminal_is_a_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress_for_log(), tqdm(total=2, desc="Step") as bar:
        bar.update(2)
    assert capsys.readouterr().err.count("\rStep") >= 2
