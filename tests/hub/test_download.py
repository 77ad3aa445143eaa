"""What is loaded of a repository of which only a part was fetched before."""

import subprocess
import sys
from pathlib import Path

import pytest

from support.hub_runs import NAME, check_failure, client_environment, run, send
from support.hub_server import Hub
from support.prefork import prefork

pytestmark = pytest.mark.slow

FETCH = """
import sys, huggingface_hub
for name in huggingface_hub.list_repo_files(sys.argv[1]):
    if name != sys.argv[2]:
        huggingface_hub.hf_hub_download(sys.argv[1], name)
"""


def offline(hub: Hub, home: Path, *command: object) -> subprocess.CompletedProcess[str]:
    environment = {**client_environment(hub, home), "HF_HUB_OFFLINE": "1"}
    return prefork(sys.executable).run("-m", "st_embfilter", *command, env=environment)


@pytest.mark.parametrize("missing", ["modules.json", "2_Dense/model.safetensors"])
def test_a_part_in_the_cache_is_called_so(
    hub: Hub, home: Path, tiny_artifact: Path, missing: str
) -> None:
    send(hub, home, tiny_artifact)
    environment = client_environment(hub, home)
    subprocess.run([sys.executable, "-c", FETCH, NAME, missing], env=environment, check=True)
    texts = home / "texts.txt"
    texts.write_text("A man eats.\n")
    check_failure(offline(hub, home, "verify", NAME), 1, "only partly", missing, "hf download")
    encoded = offline(hub, home, "encode", NAME, texts, "--out", home / "texts.npy")
    check_failure(encoded, 1, NAME, Path(missing).name)


def test_a_whole_repository_in_the_cache_needs_no_hub(
    hub: Hub, home: Path, tiny_artifact: Path
) -> None:
    send(hub, home, tiny_artifact)
    assert run(hub, home, "verify", NAME).returncode == 0
    again = offline(hub, home, "verify", NAME)
    assert again.returncode == 0, again.stderr
