"""The thin form: a few kilobytes that name a language model on the hub, and the same embeddings."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from transformers import AutoModel

from st_embfilter import build_model, save_pretrained, verify
from st_embfilter.artifact import thin as thin_form
from st_embfilter.artifact.thin import ADAPTER_WEIGHTS, write_adapter
from st_embfilter.checkpoint.causal_config import TRANSFORMERS_MAJOR
from st_embfilter.checkpoint.checkpoint import Checkpoint
from st_embfilter.checkpoint.source import Source
from st_embfilter.errors import MisuseError, VerificationError
from support.families import FAMILIES, save_tiny
from support.hub_runs import check_failure, run
from support.hub_server import Hub, serve
from support.hub_store import Repository
from support.other_interpreter import TEXTS, embed

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def thin(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Hub, Path]]:
    """A thin artifact built by the command line from a hub, and that hub."""
    home = tmp_path_factory.mktemp("thin")
    with serve({"org/llm": tiny}) as hub:
        hub.tokens["hf_writes"] = ("org",)
        command = (
            "build",
            "--band",
            "edge",
            "org/llm",
            "--thin",
            "--device",
            "cpu",
            "--out",
            home / "model",
        )
        built = run(hub, home / "home", *command)
        assert built.returncode == 0, built.stderr
        yield hub, home / "model"


def test_gives_the_same_embeddings_bit_for_bit(
    thin: tuple[Hub, Path], tiny_model: SentenceTransformer, plain_python: Path
) -> None:
    hub, folder = thin
    hub.repositories["org/model"] = Repository.of_folder(folder)
    found, _ = embed(plain_python, folder, hub=hub)
    assert np.array_equal(found, tiny_model.encode(TEXTS))


def test_revision_may_be_named(
    thin: tuple[Hub, Path], tiny_model: SentenceTransformer, plain_python: Path
) -> None:
    """A commit of this repository is none of the base's."""
    hub, folder = thin
    repository = Repository.of_folder(folder)
    hub.repositories["org/model"] = repository
    commit = repository.commit("main", dict(repository.head))
    found, _ = embed(plain_python, folder, hub=hub, revision=commit)
    assert np.array_equal(found, tiny_model.encode(TEXTS))


def test_holds_no_weights_of_the_language_model(
    thin: tuple[Hub, Path], tiny_artifact: Path
) -> None:
    _, folder = thin
    assert not (folder / "model.safetensors").exists() and not (folder / "config.json").exists()
    tensors = load_file(folder / ADAPTER_WEIGHTS)
    assert len(tensors) == 2 and not any(tensor.any() for tensor in tensors.values())
    assert (folder / ADAPTER_WEIGHTS).stat().st_size < 2000
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "org/llm" and len(config["revision"]) == 40
    card = (folder / "README.md").read_text()
    assert "pip install peft" in card and "base_model_relation: adapter" in card
    assert "vllm serve" not in card and "--thin --out" in card


def test_is_verified_and_published(thin: tuple[Hub, Path], tmp_path: Path) -> None:
    hub, folder = thin
    published = run(hub, tmp_path, "publish", folder, "org/thin", "--json")
    assert published.returncode == 0, published.stderr
    revision = json.loads(published.stdout)["revision"]
    checked = run(hub, tmp_path, "verify", f"org/thin@{revision}")
    assert checked.returncode == 0 and "off by at most 0.0e+00" in checked.stderr, checked.stderr


def test_changed_base_is_noticed(thin: tuple[Hub, Path], tiny: Path, tmp_path: Path) -> None:
    hub, folder = thin
    shutil.copytree(tiny, tmp_path / "changed")
    weights = load_file(tiny / "model.safetensors")
    save_file(
        {name: 1.1 * tensor for name, tensor in weights.items()},
        tmp_path / "changed" / "model.safetensors",
        metadata={"format": "pt"},
    )
    before = hub.repositories["org/llm"]
    hub.repositories["org/llm"] = Repository.of_folder(tmp_path / "changed")
    try:
        changed = run(hub, tmp_path / "home", "verify", folder)
    finally:
        hub.repositories["org/llm"] = before
    check_failure(changed, 1, "not a sound artifact")
    assert "has the base model changed" in " ".join(changed.stderr.split())


def test_adapter_that_adds_something_is_no_artifact(thin: tuple[Hub, Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(thin[1], folder)
    tensors = load_file(folder / ADAPTER_WEIGHTS)
    next(iter(tensors.values()))[0, 0] = 1e-3
    save_file(tensors, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(VerificationError, match="not all zeros"):
        verify(folder)


def test_other_base_than_the_filters_is_no_artifact(thin: tuple[Hub, Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(thin[1], folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "../../elsewhere"
    (folder / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(VerificationError, match=r"names \.\./\.\./elsewhere"):
        verify(folder)


def test_needs_a_language_model_on_the_hub(
    tiny_model: SentenceTransformer, tiny: Path, tmp_path: Path
) -> None:
    with pytest.raises(MisuseError, match="not a hub repository"):
        save_pretrained(tiny_model, tmp_path / "thin", thin=True)
    exact = build_model(tiny, band="edge", format="exact", device="cpu")
    with pytest.raises(MisuseError, match="portable, not exact"):
        save_pretrained(exact, tmp_path / "thin", thin=True)
    assert not list(tmp_path.iterdir())


def test_other_dtype_is_refused(thin: tuple[Hub, Path], tmp_path: Path) -> None:
    command = (
        "build",
        "--band",
        "edge",
        "org/llm",
        "--thin",
        "--dtype",
        "bfloat16",
        "--out",
        tmp_path / "model",
    )
    refused = run(thin[0], tmp_path / "home", *command)
    check_failure(refused, 2, "stored in torch.float32", "Leave out the dtype")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    "family", ["Llama 3", "GPT-2", "Mixtral", "Gemma 2", "OPT", "Bloom", "Mamba", "Qwen3"]
)
def test_loads_of_every_kind_of_layer(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GPT-2's matrices lie the other way round, Mamba has no attention."""
    if TRANSFORMERS_MAJOR < 5 and "rope_parameters" in str(FAMILIES[family]):
        pytest.skip("written for transformers 5 here")
    save_tiny(family, tmp_path / "llm")
    backbone = AutoModel.from_pretrained(tmp_path / "llm").eval()
    folder = tmp_path / "thin"
    folder.mkdir()
    source = Source(str(tmp_path / "llm"), tmp_path / "llm", revision="0" * 40)
    monkeypatch.setattr(thin_form, "newest_revision", lambda name: "0" * 40)
    write_adapter(backbone, Checkpoint(source), folder)
    loaded = AutoModel.from_pretrained(folder).eval()
    assert any("lora" in name for name, _ in loaded.named_parameters())
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        assert torch.equal(loaded(ids)[0], backbone(ids)[0])


def test_gated_base(thin: tuple[Hub, Path], tmp_path: Path) -> None:
    hub, folder = thin
    hub.gated |= {("org/llm", name) for name in ("config.json", "model.safetensors")}
    try:
        refused = run(hub, tmp_path / "home", "verify", folder)
        built = run(
            hub,
            tmp_path / "home",
            "build",
            "--band",
            "edge",
            "org/llm",
            "--thin",
            "--out",
            tmp_path / "new",
        )
    finally:
        hub.gated.clear()
    check_failure(refused, 1, "not a sound artifact")
    assert "gated" in refused.stderr or "restricted" in refused.stderr
    check_failure(built, 1, "org/llm", "gated")


def test_older_revision_is_refused(thin: tuple[Hub, Path], tiny: Path, tmp_path: Path) -> None:
    hub, _ = thin
    repository = Repository.of_folder(tiny)
    old = repository.refs["main"]
    repository.commit("main", dict(repository.head))
    hub.repositories["org/moved"] = repository
    command = (
        "build",
        "--band",
        "edge",
        "org/moved",
        "--revision",
        old,
        "--thin",
        "--out",
        tmp_path / "model",
    )
    refused = run(hub, tmp_path / "home", *command)
    check_failure(refused, 2, "org/moved", "not the newest revision")
