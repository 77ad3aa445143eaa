"""The report's files: drawn and written from its figures alone, whole, escaped, or not there."""

import json
import re
import shutil
import subprocess
import typing
from dataclasses import asdict, is_dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest

from st_embfilter.errors import OutputExistsError, OutputWriteError
from st_embfilter.inspection import page
from st_embfilter.inspection.figures import Inspection, Token
from st_embfilter.inspection.page import render, tokens_html, write_report
from st_embfilter.inspection.plots import draw
from st_embfilter.inspection.reading import read
from support.markup import NASTY


def restore(kind: Any, value: Any) -> Any:
    """A dataclass from its JSON."""
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        return typing.cast(Any, kind)(**{n: restore(hints[n], value[n]) for n in hints})
    if get_origin(kind) is list:
        return [restore(get_args(kind)[0], part) for part in value]
    return value


def test_all_is_drawn_and_written_from_the_json(inspection: Inspection, tmp_path: Path) -> None:
    findings = write_report(inspection, tmp_path / "report")
    content = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    assert content.pop("reading") == [asdict(finding) for finding in findings]
    again = restore(Inspection, content)
    assert again == inspection
    write_report(again, tmp_path / "again")
    files = sorted(file.name for file in (tmp_path / "report").iterdir())
    assert len([name for name in files if name.endswith(".png")]) == len(draw(inspection)) == 4
    for name in files:
        one, two = ((tmp_path / folder / name).read_bytes() for folder in ("report", "again"))
        assert one == two, name


class Checker(HTMLParser):
    """Every tag is closed in order, and nothing is loaded from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.images = 0

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "iframe", "object")
        for name, value in attributes:
            assert name != "src" or (value or "").startswith("data:image/png;base64,")
            assert name != "href" or value == "https://arxiv.org/abs/2606.07502"
            assert not name.startswith("on")
        self.images += tag == "img"
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_page_is_whole_and_escaped(inspection: Inspection, tmp_path: Path) -> None:
    nasty = replace(
        inspection,
        unembedding={**inspection.unembedding, "source": NASTY, "tensor": NASTY},
        prompt=NASTY,
        distribution=NASTY,
    )
    write_report(nasty, tmp_path / "report")
    html = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    checker = Checker()
    checker.feed(html)
    assert not checker.open and checker.images == 4
    # In title, heading, three facts, the first finding and the first sample.
    assert checker.text.count(NASTY) == 7
    assert "url(" not in html and "@import" not in html
    for finding in read(nasty):
        assert finding.claim in checker.text and finding.text in checker.text


def test_tokens_on_a_page() -> None:
    tokens = [Token(7, "\t<b>\x00", 3, "ordinary"), Token(9, "", 5000, "none")]
    html = tokens_html(tokens, 10)
    assert r"<code>\t&lt;b&gt;\x00</code> <small>3</small>" in html
    assert 'class="token ordinary frequent"' in html and 'class="token none"' in html
    assert "<code>row 9</code> <small>5,000</small>" in html
    assert "small" not in tokens_html(tokens)


def test_nothing_is_left_of_a_report_that_failed(
    inspection: Inspection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(OutputExistsError):
        write_report(inspection, tmp_path / "there")

    def full(*_: object) -> str:
        raise OSError("No space left on device")

    monkeypatch.setattr(page, "render", full)
    with pytest.raises(OutputWriteError, match="No space"):
        write_report(inspection, tmp_path / "new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["there"]


@pytest.mark.parametrize("width", [500, 1000])
def test_page_fits_the_screen(inspection: Inspection, tmp_path: Path, width: int) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium or chromium-browser is found (Debian: apt-get install chromium)")
    pictures = {name: b"" for name in draw(inspection)}
    html = render(inspection, read(inspection), pictures)
    measure = "[document.documentElement.scrollWidth, innerWidth]"
    script = f"<script>document.title = 'measured ' + {measure}</script></body>"
    path = tmp_path / "page.html"
    path.write_text(html.replace("</body>", script), encoding="utf-8")
    command = [chromium, "--headless", "--no-sandbox", f"--window-size={width},900", "--dump-dom"]
    shown = subprocess.run([*command, path.as_uri()], capture_output=True, text=True, timeout=60)
    measured = re.search(r"measured (\d+),(\d+)", shown.stdout)
    if measured is None:
        pytest.skip(f"chromium doesn't run here: {shown.stderr[-200:]}")
    content, screen = map(int, measured.groups())
    assert content <= screen <= width
