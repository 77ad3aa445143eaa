"""The compatibility matrix: what every tool's own process makes of the artifacts on a hub."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from rows import PORTABLE, Row
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer
from table import Line

from support.comparing import relative
from support.hub_server import Hub
from support.hub_store import Repository
from support.paths import SHARED

HERE = Path(__file__).parent
STS13 = SHARED / "data" / "mteb" / "STS13"
# The revision that mteb's task asks for.
STS13_REVISION = "7e90230a92c190f1bf69ae9002b8cea547a64cca"
TOLERANCE = 1e-4
# The first word that is found in a snippet tells where it runs.
SNIPPETS = {
    'backend="onnx"': "onnx",
    'backend="openvino"': "openvino",
    "mteb": "mteb",
    "langchain": "frameworks",
    "llama_index": "frameworks",
    "haystack": "frameworks",
    "sentence_transformers": "st-6.2",
}


class Matrix:
    """The runs, on one hub, and the lines of the table that they give."""

    def __init__(self, environments: Path, hub: Hub, work: Path) -> None:
        self.environments, self.hub, self.work = environments, hub, work
        self.lines: list[Line] = []
        self.failed: list[str] = []

    def environment(self) -> dict[str, str]:
        """Of a process that knows this hub alone, and has fetched nothing yet."""
        dropped = ("proxy", "hf_", "transformers_", "python")
        kept = {k: v for k, v in os.environ.items() if not any(w in k.lower() for w in dropped)}
        return {
            **kept,
            "HF_ENDPOINT": self.hub.url,
            "HF_HOME": tempfile.mkdtemp(dir=self.work),
            "HF_TOKEN": "hf_writes",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def call(self, *command: object, **options: Any) -> "subprocess.CompletedProcess[str]":
        """Run to the end, in a folder and with a cache of its own."""
        environment = self.environment()
        try:
            return subprocess.run(
                [str(part) for part in command],
                env=environment,
                cwd=self.work,
                text=True,
                capture_output=True,
                timeout=3600,
                **options,
            )
        finally:
            shutil.rmtree(environment["HF_HOME"])

    def python(self, environment: str) -> Path:
        return self.environments / environment / "bin" / "python"

    def versions(self, environment: str, packages: tuple[str, ...]) -> str:
        listed = self.call(self.python(environment), "-m", "pip", "list", "--format", "json")
        entries = json.loads(listed.stdout)
        versions = {entry["name"].replace("_", "-"): entry["version"] for entry in entries}
        return ", ".join(f"{package} {versions[package]}" for package in packages)

    def add(self, *line: str, ok: bool) -> None:
        """Keep a line of the table, and show it."""
        mark = "ok" if ok else "**fails**"
        self.lines.append((*line, mark))
        print(" | ".join(self.lines[-1]), flush=True)
        if not ok:
            self.failed.append(line[0])

    def row(self, row: Row, probes: dict[str, Any]) -> None:
        """One row: the client's embeddings of the probes against the stored ones."""
        client = HERE / "clients" / f"{row.client}.py"
        texts, options = json.dumps(probes["texts"]), json.dumps(row.options)
        ran = self.call(self.python(row.environment), client, row.model, texts, options)
        versions = self.versions(row.environment, row.packages)
        if ran.returncode:
            print(ran.stderr[-3000:], file=sys.stderr)
            said = ran.stderr.strip().splitlines()[-1]
            self.add(row.name, versions, row.call, row.model, said, ok=False)
            return
        found = np.array(json.loads(ran.stdout.splitlines()[-1]))
        expected = np.array(probes["embeddings"])[:, : row.dimensions]
        same = found.shape == expected.shape
        error = relative(found, expected) if same else float("inf")
        self.add(row.name, versions, row.call, row.model, f"{error:.1e}", ok=error <= TOLERANCE)

    def mteb_run(self, artifact: Path) -> None:
        """The command `mteb run`, and the score of a few lines of plain sentence-transformers."""
        versions = self.versions("mteb", ("mteb", "sentence-transformers"))
        shown = f"`mteb run -m {PORTABLE} -t STS13`"
        if not STS13.is_dir():
            print(f"{shown}: skipped, its data is not at {STS13}", flush=True)
            return
        repository = Repository.of_folder(STS13)
        repository.refs[STS13_REVISION] = repository.refs["main"]
        self.hub.repositories["datasets/mteb/sts13-sts"] = repository
        command = self.python("mteb").with_name("mteb")
        out = self.work / "mteb-results"
        ran = self.call(command, "run", "-m", PORTABLE, "-t", "STS13", "--output-folder", out)
        if ran.returncode:
            print(ran.stderr[-3000:], file=sys.stderr)
            self.add("mteb run", versions, shown, PORTABLE, "", ok=False)
            return
        (result,) = out.rglob("STS13.json")
        score = json.loads(result.read_text())["scores"]["test"][0]["cosine_spearman"]
        rows = [json.loads(line) for line in (STS13 / "test.jsonl").read_text().splitlines()]
        model = SentenceTransformer(str(artifact), device="cpu")
        left, right = (
            model.encode([row[side] for row in rows], normalize_embeddings=True)
            for side in ("sentence1", "sentence2")
        )
        own = spearmanr((left * right).sum(axis=1), [row["score"] for row in rows]).statistic
        said = f"STS13 {100 * score:.2f}, here {100 * own:.2f}"
        self.add("mteb run", versions, shown, PORTABLE, said, ok=abs(score - own) <= 1e-4)

    def snippets(self, name: str) -> None:
        """Run every Python snippet of a published card, where its packages are."""
        card = self.hub.repositories[name].head["README.md"].read().decode()
        for number, code in enumerate(re.findall(r"```python\n(.*?)```", card, re.DOTALL), 1):
            environment = next(env for word, env in SNIPPETS.items() if word in code)
            ran = self.call(self.python(environment), "-c", code)
            said = "runs" if ran.returncode == 0 else ran.stderr.strip().splitlines()[-1]
            versions = self.versions(environment, Row.packages)
            imported = re.search(r"(?:from|import) (\w+)", code)
            assert imported
            call = f"snippet {number}, `{imported[1]}`"
            self.add("the model card", versions, call, name, said, ok=ran.returncode == 0)
