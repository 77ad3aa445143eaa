"""The demonstration: what the filter does to a real language model, in a terminal and a picture."""

import json
from pathlib import Path

from rich.console import Console
from sentence_transformers import SentenceTransformer

from st_embfilter.artifact.saving import save_pretrained
from st_embfilter.checkpoint.unembedding import Unembedding
from st_embfilter.demo.comparison import compare_search, compare_tokens
from st_embfilter.demo.smollm2 import find_smollm2
from st_embfilter.demo.tables import show_search, show_sizes, show_tokens
from st_embfilter.encoding.loading import without_filter
from st_embfilter.errors import MissingDependencyError
from st_embfilter.files import atomic_output
from st_embfilter.pipeline.building import build_model
from st_embfilter.pipeline.filter_module import FilterModule

TEXTS = Path(__file__).with_name("texts.json")


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
        built = build_model(source, band="edge", progress=True)
        save_pretrained(built, artifact)
        filter_module = built[2]
        assert isinstance(filter_module, FilterModule)

        console.print("[bold]2. Load[/bold] it again with plain sentence-transformers")
        filtered_model = SentenceTransformer(str(artifact), device="cpu")
        raw_model = without_filter(filtered_model)

        console.print("[bold]3. Compare[/bold]\n")
        matrix = filter_module.linear.weight
        lens = compare_tokens(raw_model, matrix, Unembedding.from_pretrained(source), texts["lens"])
        search = compare_search(raw_model, filtered_model, texts["documents"], texts["queries"])
        show_tokens(console, lens)
        show_search(console, search)
        show_sizes(console, matrix.shape[1])
        draw_picture(folder / "demo.png", filter_module.provenance, lens, search)
    console.print(f"The picture: {out / 'demo.png'}\nThe model:   {out / artifact.name}")
