"""A model under evaluation: what it is, with its filter and without."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from torch import nn

from st_embfilter._compat import Dense
from st_embfilter.encoding.checks import Embeddings
from st_embfilter.encoding.loading import load_model, without_filter
from st_embfilter.errors import MisuseError
from st_embfilter.files import digest_file
from st_embfilter.hub.download import artifact_folder, refuse_part
from st_embfilter.layout.manifest import Manifest
from st_embfilter.layout.names import MODULES_FILE, PROVENANCE_FILE

# What a model computes doesn't depend on these. Hidden files aren't published either.
NOT_THE_MODEL = re.compile(rf"README\.md|.*\.png|(.*/)?\..*|{PROVENANCE_FILE}|o(nnx|penvino)/.*")


@dataclass(frozen=True)
class Evaluated:
    """A model under evaluation.

    Attributes:
        name: ``org/name``, as mteb wants it; ``local/folder`` for one that is on no hub.
        revision: The hub's commit, or for a local folder the digest of its content.
        folder: Its files.
        model: The whole model.
        filter: The filter at its end, or None if it is not an artifact of this package.
        manifest: An artifact's, else None.
    """

    name: str
    revision: str
    folder: Path
    model: SentenceTransformer
    filter: nn.Module | None
    manifest: Manifest | None

    @property
    def matrix(self) -> Embeddings | None:
        """The filter's rows ``(k, d)``."""
        if self.filter is None:
            return None
        weight: torch.Tensor = self.filter.linear.weight  # type: ignore[assignment, union-attr]
        return weight.detach().float().cpu().numpy()

    def unfiltered(self) -> SentenceTransformer:
        """The model without its filter: the raw embeddings of the language model."""
        if self.filter is None:
            return self.model
        return without_filter(self.model)

    def apply_filter(self, raw: Embeddings) -> Embeddings:
        """What the whole model makes of raw embeddings ``(n, d)``, in the dtype it runs in."""
        assert self.filter is not None
        like = next(self.model.parameters())
        with torch.inference_mode():
            rows = torch.from_numpy(raw).to(like.device, like.dtype)
            filtered = self.filter({"sentence_embedding": rows})["sentence_embedding"]
        result: Embeddings = filtered.float().cpu().numpy()
        return result


def load_evaluated(
    name: str, *, max_seq_length: int | None = None, device: str | None = None
) -> Evaluated:
    """Load a model to evaluate.

    Args:
        name: A folder, or ``org/name`` or ``org/name@revision`` on the hub.
        max_seq_length: The limit in tokens, if not the model's own.
        device: As in ``SentenceTransformer``.

    Raises:
        SourceNotFoundError: If it isn't there, or can't be loaded.
        MisuseError: If it is no embedding model.
    """
    folder = artifact_folder(name).resolve()
    if Path(name).is_dir():
        label, revision = f"local/{folder.name}", fingerprint(folder)
    else:
        label, revision = name.partition("@")[0], folder.name
    if not (folder / MODULES_FILE).is_file():
        refuse_part(name, MODULES_FILE)
        raise MisuseError(
            f"{name} is not an embedding model: it has no modules.json. Of a causal language "
            f"model, `st-embfilter build {name} --ratio 1 --out DIR` makes one"
        )
    model = load_model(folder, device=device)
    if max_seq_length is not None:
        model.max_seq_length = max_seq_length
    manifest = None
    last = list(model)[-1]
    if (folder / PROVENANCE_FILE).is_file() and isinstance(last, Dense):
        manifest = Manifest.read(folder)
    return Evaluated(label, revision, folder, model, last if manifest else None, manifest)


def fingerprint(folder: Path) -> str:
    """A digest of the files that a model's embeddings depend on, 40 hexadecimal digits."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder).as_posix()
        if file.is_file() and not NOT_THE_MODEL.fullmatch(name):
            digest.update(f"{name}\0{file.stat().st_size}\0".encode())
            digest_file(digest, file)
    return digest.hexdigest()[:40]
