"""The report: its figures against direct computation, its reading, its page."""

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
import torch
from models import WIDTH, byte_level_tokenizer
from sentence_transformers import SentenceTransformer
from torch.nn.functional import normalize

from st_embfilter.errors import OutputExistsError, OutputWriteError
from st_embfilter.language_model import load_language_model
from st_embfilter.report import page
from st_embfilter.report.figures import Change, Inspection, Shares, Token
from st_embfilter.report.page import render, tokens_html, write_report
from st_embfilter.report.plots import draw
from st_embfilter.report.reading import Finding, read
from st_embfilter.report.run import SAMPLE_TEXTS, run_inspection
from st_embfilter.report.vocabulary import Vocabulary
from st_embfilter.source import resolve_source
from st_embfilter.unembedding import Unembedding

NASTY = "<script>alert('&amp;')</script> \"dogs\" $title"


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "texts.txt"
    lines = [NASTY, *SAMPLE_TEXTS.read_text(encoding="utf-8").splitlines()[:19]]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def inspection(tiny: Path, texts: Path) -> Inspection:
    return run_inspection(
        str(tiny),
        texts=texts,
        table=None,
        most_texts=500,
        ratio=2,
        k=None,
        band="edge",
        prompt=None,
        revision=None,
        device="cpu",
        say=lambda _: None,
    )


def restore(kind: Any, value: Any) -> Any:
    """A dataclass from its JSON."""
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        return typing.cast(Any, kind)(**{n: restore(hints[n], value[n]) for n in hints})
    if get_origin(kind) is list:
        return [restore(get_args(kind)[0], part) for part in value]
    return value


def test_figures(inspection: Inspection, tiny: Path, texts: Path, tiny_model: Any) -> None:
    raw = SentenceTransformer(modules=list(tiny_model)[:2], device="cpu")
    embeddings = raw.encode(texts.read_text().split("\n"), convert_to_tensor=True).double()
    w = torch.cat(list(Unembedding.from_pretrained(tiny).row_blocks())).double()
    v = torch.linalg.svd(w, full_matrices=False)[2]
    kept = v[WIDTH // 4 : 3 * WIDTH // 4]
    assert inspection.kept == list(range(WIDTH // 4, 3 * WIDTH // 4))
    assert inspection.texts == 20 and len(inspection.samples) < 20
    for states, cosine in (
        (embeddings, inspection.mean_cosine.before),
        (embeddings @ kept.T, inspection.mean_cosine.after),
    ):
        cosines = normalize(states, dim=1) @ normalize(states, dim=1).T
        assert cosine == pytest.approx(float(cosines[~torch.eye(20).bool()].mean()), abs=1e-5)
    centred = embeddings - embeddings.mean(dim=0)
    assert inspection.variance_kept == pytest.approx(
        float((centred @ kept.T).square().sum() / centred.square().sum()), abs=1e-5
    )
    for shares in asdict(inspection.energy).values():
        assert len(shares) == WIDTH and sum(shares) == pytest.approx(1)

    before, after = embeddings @ w.T, embeddings @ kept.T @ kept @ w.T
    first = inspection.samples[0]
    for logits, tokens in ((before, first.by_logit.before), (after, first.by_logit.after)):
        assert [token.id for token in tokens] == logits[0].topk(10).indices.tolist()
    names = [band.name for band in inspection.bands]
    assert names == ["head end", "kept", "tail end"]
    for tokens in inspection.token_sets:
        # All bands removed is all of the logits removed.
        total = sum(shift.mean for shift in tokens.by_band)
        assert total == pytest.approx(-tokens.mean_logit, rel=1e-4)
    frequent, rare, _ = inspection.token_sets
    assert frequent.examples[0].rank == 1
    assert min(token.rank for token in rare.examples) > frequent.size
    for direction in inspection.directions:
        along = int((w @ v[direction.index]).abs().argmax())
        assert along in {direction.along[0].id, direction.against[0].id}


def test_kinds_of_tokens(tiny: Path) -> None:
    tokenizer = load_language_model(resolve_source(tiny), device="cpu")[1]
    vocabulary = Vocabulary(tokenizer, -torch.arange(411.0))
    assert vocabulary.token(1) == Token(1, "<|im_start|>", 2, "special")
    (dogs,) = tokenizer(" dogs", add_special_tokens=False)["input_ids"][-1:]
    assert vocabulary.token(dogs).kind == "ordinary"
    beyond = max(tokenizer.get_vocab().values()) + 1
    assert vocabulary.token(beyond) == Token(beyond, "", beyond + 1, "none")
    (part, _) = tokenizer("é", add_special_tokens=False)["input_ids"]
    assert vocabulary.token(part).text == tokenizer.convert_ids_to_tokens(part) == "Ã"
    sets = vocabulary.sets(50)
    assert all(len(ids) == 50 for ids in sets.values())
    for ids in sets.values():
        assert all(vocabulary.token(token).kind == "ordinary" for token in ids.tolist())
    assert vocabulary.ranks[sets["frequent"]].max() < vocabulary.ranks[sets["rare"]].min()


def test_the_texts_own_tokens() -> None:
    tokenizer = byte_level_tokenizer()
    vocabulary = Vocabulary(tokenizer, -torch.arange(411.0))
    (dog, fox, d) = (tokenizer.get_vocab()[piece] for piece in ("Ġdog", "Ġfox", "d"))
    row = torch.tensor([[dog, fox, d, 1]])
    assert vocabulary.own_share(["Two DOGS run"], row, 1) == 1 / 4
    assert vocabulary.own_share(["Fox and dog."], row, 1) == 2 / 4
    assert vocabulary.own_share(["<|im_start|> hot-dogs"], row, 1) == 1 / 4
    # One of the most frequent isn't informative.
    assert vocabulary.own_share(["Two dogs run"], row, int(vocabulary.ranks[dog])) == 0


def finding(inspection: Inspection, claim: str) -> Finding:
    (found,) = (finding for finding in read(inspection) if claim in finding.claim)
    return found


@pytest.mark.parametrize(
    ("frequent", "cosine", "near", "lowered", "alike", "conclusion"),
    [
        ((0.4, 0.1), (0.9, 0.5), "holds", "holds", "holds", "holds"),
        ((0.4, 0.3), (0.9, 0.5), "holds", "in part", "holds", "in part"),
        ((0.15, 0.05), (0.9, 0.5), "in part", "holds", "holds", "in part"),
        ((0.01, 0.01), (0.1, 0.1), "does not hold", "does not hold", *["does not hold"] * 2),
        ((0.4, 0.1), (0.06, 0.07), "holds", "holds", *["does not hold"] * 2),
        ((0.4, 0.5), (0.15, 0.05), "holds", "does not hold", "in part", "in part"),
    ],
)
def test_reading(
    inspection: Inspection,
    frequent: tuple[float, float],
    cosine: tuple[float, float],
    near: str,
    lowered: str,
    alike: str,
    conclusion: str,
) -> None:
    # The tail end lowers the frequent tokens alone.
    sets = [
        replace(
            tokens,
            by_band=[
                replace(shift, mean=-3.0 if (tokens.name, number) == ("frequent", 2) else -1.0)
                for number, shift in enumerate(tokens.by_band)
            ],
        )
        for tokens in inspection.token_sets
    ]
    changed = replace(
        inspection,
        token_sets=sets,
        by_logit=replace(inspection.by_logit, frequent=Change(*frequent)),
        mean_cosine=Change(*cosine),
    )
    assert finding(changed, "lie near frequent").verdict == near
    assert finding(changed, "lowers frequent").verdict == lowered
    assert finding(changed, "lowers frequent").figures["against random"] == pytest.approx(-2)
    assert finding(changed, "are alike").verdict == alike
    assert finding(changed, "expected to help").verdict == conclusion


@pytest.mark.parametrize(
    ("logit", "cosine", "verdict"),
    [
        ((0.1, 0.2), (0.1, 0.2), "holds"),
        ((0.2, 0.1), (0.1, 0.2), "in part"),
        ((0.2, 0.1), (0.1, 0.105), "does not hold"),
    ],
)
def test_reading_of_own_words(
    inspection: Inspection, logit: tuple[float, float], cosine: tuple[float, float], verdict: str
) -> None:
    same = Change(0.1, 0.1)
    changed = replace(
        inspection,
        by_logit=Shares(same, Change(*logit)),
        by_cosine=Shares(same, Change(*cosine)),
    )
    assert finding(changed, "own words").verdict == verdict


def test_reading_of_the_spectrum(inspection: Inspection) -> None:
    half = WIDTH // 2
    edges = [1.0 if index not in inspection.kept else 0.0 for index in range(WIDTH)]
    share, even = [edge / half for edge in edges], [1 / WIDTH] * WIDTH

    def verdict(
        average_token: list[float], frequent: list[float], random: list[float]
    ) -> list[str]:
        lines = {"frequent": frequent, "rare": even, "random": random}
        changed = replace(
            inspection,
            energy=replace(inspection.energy, average_token=average_token),
            token_sets=[
                replace(tokens, by_direction=lines[tokens.name]) for tokens in inspection.token_sets
            ],
        )
        return [f.verdict for f in read(changed) if f.step == 2]

    mixed = [0.9 * one + 0.1 * other for one, other in zip(share, even, strict=True)]
    assert verdict(mixed, mixed, even) == ["holds", "holds"]
    assert verdict(even, mixed, mixed) == ["does not hold", "in part"]
    assert verdict(even, even, even) == ["does not hold", "does not hold"]
    slightly = [0.2 * one + 0.8 * other for one, other in zip(share, even, strict=True)]
    assert verdict(slightly, even, even)[0] == "in part"


def test_an_embedding_model_is_told_apart(inspection: Inspection) -> None:
    assert "was trained to compare" not in read(inspection)[-1].text
    assert "was trained to compare" in read(replace(inspection, prompt=None))[-1].text


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
        pytest.skip("chromium is not installed")
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
