"""What is read of an artifact's manifest."""

import json
from pathlib import Path

from st_embfilter.layout.manifest import Manifest
from st_embfilter.layout.names import PROVENANCE_FILE


def test_what_is_written_is_read(tiny_artifact: Path) -> None:
    content = json.loads((tiny_artifact / PROVENANCE_FILE).read_text(encoding="utf-8"))
    manifest = Manifest.read(tiny_artifact)
    assert manifest.to_json() == content and list(manifest.to_json()) == list(content)


def test_keys_of_later_releases_are_passed_over(tiny_artifact: Path, tmp_path: Path) -> None:
    content = json.loads((tiny_artifact / PROVENANCE_FILE).read_text(encoding="utf-8"))
    content["probes"]["later"] = content["later"] = 1
    (tmp_path / PROVENANCE_FILE).write_text(json.dumps(content))
    assert Manifest.read(tmp_path) == Manifest.read(tiny_artifact)
