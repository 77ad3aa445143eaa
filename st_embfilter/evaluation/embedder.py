"""A model under evaluation: what it is, and its embeddings, each text encoded once."""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from torch import nn
from tqdm import tqdm

from st_embfilter._compat import Dense
from st_embfilter.encoding.checks import Embeddings
from st_embfilter.encoding.loading import load_model, without_filter
from st_embfilter.encoding.prefix_encoder import PrefixEncoder, Role
from st_embfilter.errors import MisuseError
from st_embfilter.evaluation.embedding_store import KEY_BYTES, EmbeddingStore, Keys
from st_embfilter.files import digest_file
from st_embfilter.hub.download import artifact_folder, refuse_part
from st_embfilter.layout.manifest import Manifest
from st_embfilter.layout.names import MODULES_FILE, PROVENANCE_FILE

# A prompt is computed once for so many batches, and so many a kill may cost.
BATCHES_AT_ONCE = 4
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


class Embedder:
    """Raw embeddings of texts, from the store where it has them, else from the model.

    Args:
        model: Encodes, without the filter.
        folder: The stores of all models.
        identity: Tells the model from every other.
        batch_size: About so many texts go through the model at a time.
    """

    def __init__(
        self, model: SentenceTransformer, folder: Path, identity: str, batch_size: int = 32
    ) -> None:
        self.model = model
        self.encoder = PrefixEncoder(model)
        self.batch_size = batch_size
        dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
        width = model.encode("a", show_progress_bar=False).shape[-1]
        self.store = EmbeddingStore(
            folder / f"{identity}-{dtype}-{model.max_seq_length}", int(width)
        )

    def __call__(
        self,
        texts: list[str],
        role: Role | None = None,
        prompt: str | None = None,
        describe: str = "Encoding",
    ) -> Embeddings:
        """The embeddings ``(n, d)`` of texts.

        Args:
            texts: Any number; how much memory is used grows with it.
            role: Which of the model's encoding functions is used, as mteb does it.
            prompt: What mteb's rules choose of the model's prompts.
            describe: Stands before the progress bar.

        Raises:
            NonFiniteError: If the model gives NaN or infinity.
            OutputWriteError: If the disk is full. What was encoded before stays.
        """
        keys = self._keys_of(texts, role, prompt)
        missing = np.flatnonzero(~self.store.has(keys))
        _, first = np.unique(keys[missing], return_index=True)
        # The longest first: too little memory shows at once.
        todo = sorted((int(i) for i in missing[first]), key=lambda i: len(texts[i]), reverse=True)
        try:
            for batch in _slices(todo, self.batch_size * BATCHES_AT_ONCE, describe):
                embeddings = self.encode([texts[i] for i in batch], role, prompt)
                self.store.append(keys[batch], embeddings)
        finally:
            self.store.index()
        return self.store.read(keys)

    def encode(self, texts: list[str], role: Role | None, prompt: str | None) -> Embeddings:
        """A few batches through the model."""
        return self.encoder.encode(texts, prompt=prompt, role=role, batch_size=self.batch_size)

    def _keys_of(self, texts: list[str], role: Role | None, prompt: str | None) -> Keys:
        """What tells each text's embedding from all others of this model."""
        start = hashlib.blake2b(digest_size=KEY_BYTES)
        # Otherwise the role changes nothing: one encoding serves queries and documents.
        routed = any(type(module).__name__ in ("Router", "Asym") for module in self.model)
        if routed or any(self.model.prompts.values()):
            start.update(json.dumps([role, prompt]).encode())
        keys = bytearray()
        for text in texts:
            digest = start.copy()
            digest.update(text.encode("utf-8", "surrogatepass"))
            keys += digest.digest()
        return np.frombuffer(bytes(keys), f"S{KEY_BYTES}")


def _slices(items: list[int], size: int, describe: str) -> Iterator[list[int]]:
    """Slices of a list, with a progress bar of its items if there are any."""
    with tqdm(total=len(items), desc=describe, unit="text", leave=False, disable=not items) as bar:
        for start in range(0, len(items), size):
            batch = items[start : start + size]
            yield batch
            bar.update(len(batch))
