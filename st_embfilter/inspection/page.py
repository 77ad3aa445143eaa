"""A report on disk: one HTML page that is complete in itself, its figures as JSON, its pictures."""

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from string import Template

from st_embfilter.files import atomic_output
from st_embfilter.inspection.figures import Inspection, Sample, Shares, Token, TopTokens
from st_embfilter.inspection.plots import draw
from st_embfilter.inspection.reading import Finding, read
from st_embfilter.spectral.bands import AUTO

TEMPLATE = Path(__file__).with_name("page.html")
# What a picture shows, for those who don't see it.
ALTERNATIVES = {
    "spectrum": "Singular values of W_U on a logarithmic scale, with the kept directions shaded",
    "energy": "Cumulated energy of average token, mean embedding and variance along the spectrum",
    "shift-by-direction": "Logit shift by direction for frequent, rare and random tokens",
    "shift-by-band": "Mean change of the logits by band for frequent, rare and random tokens",
}


def write_report(inspection: Inspection, out: Path) -> list[Finding]:
    """Write ``report.html``, ``report.json`` and the pictures to a new folder.

    Returns:
        What the figures say.

    Raises:
        OutputExistsError: If ``out`` exists.
        OutputWriteError: If it can't be written.
    """
    findings = read(inspection)
    with atomic_output(out, folder=True) as folder:
        pictures = {}
        for name, figure in draw(inspection).items():
            picture = io.BytesIO()
            figure.savefig(picture, format="png", dpi=120)
            pictures[name] = picture.getvalue()
            (folder / f"{name}.png").write_bytes(pictures[name])
        content = {**asdict(inspection), "reading": [asdict(finding) for finding in findings]}
        (folder / "report.json").write_text(
            json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n",
            encoding="utf-8",
        )
        (folder / "report.html").write_text(
            render(inspection, findings, pictures), encoding="utf-8"
        )
    return findings


def render(inspection: Inspection, findings: Sequence[Finding], pictures: dict[str, bytes]) -> str:
    """The page. Of what comes from a model or a user, all is escaped."""
    images = {
        name.replace("-", "_"): _picture_html(name, content) for name, content in pictures.items()
    }
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        images,
        title=escape(f"What {inspection.unembedding['source']} writes"),
        facts=_facts_html(inspection),
        reading="\n".join(_finding_html(finding) for finding in findings),
        filter=_filter_words(inspection),
        set_size=inspection.token_sets[0].size,
        band_heads="".join(
            f'<th class="number">without<br>{escape(band.name)}</th>' for band in inspection.bands
        ),
        token_sets=_token_sets_html(inspection),
        examples="\n".join(
            f"<dt>{tokens.name}</dt><dd>{tokens_html(tokens.examples)} …</dd>"
            for tokens in inspection.token_sets
        ),
        top=inspection.top,
        texts=f"{inspection.texts:,}",
        most_frequent=f"{inspection.most_frequent:,}",
        shares="\n".join(
            (
                _shares_html("by logit", inspection.by_logit),
                _shares_html("by cosine", inspection.by_cosine),
            )
        ),
        samples="\n".join(
            _sample_html(sample, inspection.most_frequent) for sample in inspection.samples
        ),
        directions=_directions_html(inspection),
        version=escape(inspection.version),
    )


def _filter_words(inspection: Inspection) -> str:
    width = len(inspection.singular_values)
    if inspection.band == AUTO:
        return (
            f"The band auto weighs each of {width} directions, and gives {inspection.dimensions} "
            f"numbers. The heavier half is shaded, and counts as kept where a band is spoken of."
        )
    return f"The filter keeps the shaded directions: {len(inspection.kept)} of {width}."


def _facts_html(inspection: Inspection) -> str:
    matrix = inspection.unembedding
    facts = {
        "W_U": "{} × {}, {} ({})".format(*matrix["shape"], matrix["tensor"], matrix["dtype"]),
        "revision": matrix["revision"],
        "prompt": inspection.prompt or "none: an embedding model, used as it is",
        "texts": f"{inspection.texts:,}",
        "frequencies": inspection.distribution,
    }
    return "\n".join(
        f"<dt>{name}</dt><dd>{escape(str(value))}</dd>" for name, value in facts.items() if value
    )


def _picture_html(name: str, content: bytes) -> str:
    data = base64.b64encode(content).decode()
    return f'<figure><img src="data:image/png;base64,{data}" alt="{ALTERNATIVES[name]}"></figure>'


def _finding_html(finding: Finding) -> str:
    """A finding with its verdict in words."""
    kind = finding.verdict.replace(" ", "-") + ("" if finding.figures else " conclusion")
    step = f"Step {finding.step}. " if finding.step else ""
    return (
        f'<li class="{kind}"><strong>{step}{escape(finding.claim)}</strong>: '
        f'<span class="verdict">{finding.verdict}</span><br>{escape(finding.text)}</li>'
    )


def _token_sets_html(inspection: Inspection) -> str:
    """The sets of tokens, with what removing each band does to their logits."""
    return "\n".join(
        f'<tr><th>{tokens.name}</th><td class="number">{tokens.mean_logit:.2f}</td>'
        + "".join(
            f'<td class="number">{shift.mean:+.2f}<br><small>Δπ {shift.relative:.2f}</small></td>'
            for shift in tokens.by_band
        )
        + "</tr>"
        for tokens in inspection.token_sets
    )


def _shares_html(name: str, shares: Shares) -> str:
    values = (
        shares.frequent.before,
        shares.frequent.after,
        shares.own.before,
        shares.own.after,
    )
    cells = "".join(f'<td class="number">{value:.1%}</td>' for value in values)
    return f"<tr><th>{name}</th>{cells}</tr>"


def _sample_html(sample: Sample, most_frequent: int) -> str:
    def rows(name: str, tokens: TopTokens) -> str:
        return "".join(
            f'<tr><th>{name}, {when}</th><td class="tokens">{tokens_html(row, most_frequent)}'
            f"</td></tr>"
            for when, row in (("before", tokens.before), ("after", tokens.after))
        )

    return (
        f'<h3>{escape(sample.text)}</h3><table class="stack"><tbody>'
        f"{rows('by logit', sample.by_logit)}{rows('by cosine', sample.by_cosine)}</tbody></table>"
    )


def _directions_html(inspection: Inspection) -> str:
    return "\n".join(
        f"<tr><th>{direction.index} <small>(singular value {direction.singular_value:.1f})</small>"
        f'</th><td class="tokens">{tokens_html(direction.along)}</td>'
        f'<td class="tokens">{tokens_html(direction.against)}</td></tr>'
        for direction in inspection.directions
    )


def tokens_html(tokens: Sequence[Token], most_frequent: int = 0) -> str:
    """Tokens as a person can tell them apart; with their ranks if it is said what is frequent."""
    parts = []
    for token in tokens:
        kinds = ["token", token.kind] + ["frequent"] * (token.rank <= most_frequent)
        # Control characters and the like, which a page doesn't show, as they are escaped.
        text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in token.text)
        shown = escape(text) if token.kind != "none" else f"row {token.id}"
        rank = f" <small>{token.rank:,}</small>" if most_frequent else ""
        parts.append(f'<span class="{" ".join(kinds)}"><code>{shown}</code>{rank}</span>')
    return " ".join(parts)
