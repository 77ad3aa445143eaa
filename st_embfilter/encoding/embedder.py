"""A model's embeddings, each text encoded once, and kept."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer
from tqdm import tqdm

from st_embfilter.encoding.checks import Embeddings
from st_embfilter.encoding.embedding_store import KEY_BYTES, EmbeddingStore, Keys
from st_embfilter.encoding.prefix_encoder import PrefixEncoder, Role

# A prompt is computed once for so many batches, and so many a kill may cost.
BATCHES_AT_ONCE = 4


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
