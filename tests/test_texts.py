import io
import sys
from pathlib import Path

import pytest

from st_embfilter.errors import MisuseError
from st_embfilter.texts import read_lines, read_sample


def test_every_line_has_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = "one\r\n\n  \nOù ?\x85 two\nthree".encode()
    (tmp_path / "texts.txt").write_bytes(content)
    expected = ["one", "", "  ", "Où ?\x85 two", "three"]
    assert read_lines(tmp_path / "texts.txt") == read_lines(str(tmp_path / "texts.txt")) == expected
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert read_lines("-") == expected


def test_no_line_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "texts.txt").write_bytes(b"")
    with pytest.raises(MisuseError, match=r"texts.txt holds no text"):
        read_lines(tmp_path / "texts.txt")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    with pytest.raises(MisuseError, match="standard input holds no text"):
        read_lines("-")


def test_lines_that_are_not_blank(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_bytes("one\r\n\n  \nOù ?\x85 two\nthree".encode())
    assert list(read_sample(path)) == ["one", "Où ?\x85 two", "three"]


def test_texts_that_can_not_be_read(tmp_path: Path) -> None:
    def refused(content: bytes, words: str) -> None:
        (tmp_path / "texts.txt").write_bytes(content)
        with pytest.raises(MisuseError, match=words):
            list(read_sample(tmp_path / "texts.txt"))

    refused(b"", "holds no text")
    refused(b" \n\n", "holds no text")
    refused(b"fine\ncaf\xe9\n", "not UTF-8")
    refused("text".encode("utf-16"), "not UTF-8")
    with pytest.raises(MisuseError, match="can't be read: No such file"):
        list(read_sample(tmp_path / "missing.txt"))
    with pytest.raises(MisuseError, match="can't be read: Is a directory"):
        list(read_sample(tmp_path))


def test_a_byte_order_mark_is_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = "\ufeffone\r\n\ufefftwo\n".encode()
    (tmp_path / "texts.txt").write_bytes(content)
    assert read_lines(tmp_path / "texts.txt") == ["one", "\ufefftwo"]
    assert list(read_sample(tmp_path / "texts.txt")) == ["one", "\ufefftwo"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert read_lines("-") == ["one", "\ufefftwo"]
