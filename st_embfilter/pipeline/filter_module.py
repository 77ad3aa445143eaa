"""FilterModule: EmbedFilter as a sentence-transformers layer."""

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from st_embfilter._compat import SAVED_DENSE_MODULE, Dense
from st_embfilter.checkpoint.checkpoint import Checkpoint
from st_embfilter.checkpoint.unembedding import Unembedding, compute_spectrum
from st_embfilter.errors import PipelineError, WidthError
from st_embfilter.layout.names import PROVENANCE_FILE
from st_embfilter.spectral.bands import AUTO, BandChoice, BandName
from st_embfilter.spectral.calibration import automatic_filter, principal_directions
from st_embfilter.spectral.spectrum import Spectrum

logger = logging.getLogger(__name__)


class FilterModule(Dense):
    """Projects embeddings onto the kept singular directions of W_U (arXiv 2606.07502).

    ``embedding @ matrix.T``, without bias or activation: a :class:`Dense` whose weights are the
    kept right singular vectors. It goes wherever a Dense goes, after the pooling of any
    SentenceTransformer whose backbone is the language model the filter was taken from::

        model.append(FilterModule.from_pretrained("org/llm", ratio=2))

    The weights are frozen, and stay float32 in a pipeline of any dtype: the filter is a property of
    the model, not a thing to train or to round.

    Args:
        in_features: d, the width of W_U.
        out_features: k, the number of kept directions.
        provenance: Where the filter is from, for an artifact's manifest; JSON values.
    """

    def __init__(
        self, in_features: int, out_features: int, provenance: dict[str, Any] | None = None
    ) -> None:
        super().__init__(in_features, out_features, bias=False, activation_function=nn.Identity())
        self.provenance = provenance or {}
        # The language model's own, known as long as the pipeline is in memory.
        self.checkpoint: Checkpoint | None = None
        self.requires_grad_(False)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        ratio: float | None = None,
        k: int | None = None,
        band: BandName | Sequence[int] = "edge",
        seed: int = 0,
        revision: str | None = None,
        progress: bool = False,
    ) -> "FilterModule":
        """Take the filter from a language model, of which only W_U is read.

        Args:
            source: A folder with ``config.json`` and safetensors files, a GGUF file, or a hub id.
            ratio: The filter ratio τ: ``k = d // τ`` dimensions are kept. 2 if neither this nor
                ``k`` is given.
            k: The number of kept dimensions.
            band: ``edge`` (the paper's), ``head``, ``tail``, ``mid``, ``random``, or indices of
                singular directions (0 is the largest singular value).
            seed: For ``random``.
            revision: Branch, tag or commit; for a hub id only.
            progress: Show a progress bar on stderr.

        Raises:
            EmbFilterError: One of its kinds, see :meth:`Unembedding.from_pretrained`.
            BandError: If ratio, k or band don't fit the model's width.
        """
        unembedding = Unembedding.from_pretrained(source, revision)
        choice = BandChoice(ratio, k, band, seed)
        choice.indices(unembedding.shape[1])  # Checked before minutes of reading.
        return cls.from_choice(compute_spectrum(unembedding, progress), choice)

    @classmethod
    def from_spectrum(
        cls,
        spectrum: Spectrum,
        *,
        ratio: float | None = None,
        k: int | None = None,
        band: BandName | Sequence[int] = "edge",
        seed: int = 0,
    ) -> "FilterModule":
        """Take the filter from a spectrum. See :meth:`from_pretrained`."""
        return cls.from_choice(spectrum, BandChoice(ratio, k, band, seed))

    @classmethod
    def from_choice(cls, spectrum: Spectrum, choice: BandChoice) -> "FilterModule":
        """Take the filter from a spectrum, of directions that were chosen before.

        Raises:
            BandError: If the choice doesn't fit the spectrum's width, or is ``auto``.
        """
        indices = choice.indices(spectrum.width)
        provenance = {
            **spectrum.provenance,
            "band": choice.band if isinstance(choice.band, str) else "indices",
            "ratio": spectrum.width / len(indices),
            "seed": choice.seed,
            "indices": indices,
            "singular_values": spectrum.singular_values.tolist(),
        }
        module = cls(spectrum.width, len(indices), provenance)
        module.linear.weight.data = spectrum.rows(indices)
        return module

    @classmethod
    def from_sample(
        cls,
        spectrum: Spectrum,
        sample: NDArray[np.float32],
        *,
        ratio: float | None = None,
        k: int | None = None,
        calibration: dict[str, Any] | None = None,
    ) -> "FilterModule":
        """Take the filter of the band ``auto`` from a spectrum and a sample of raw embeddings.

        Args:
            spectrum: The model's.
            sample: ``(n, d)``, of the very pipeline that the filter is for, a few hundred at least.
            ratio: The filter ratio τ: ``k = d // τ`` dimensions are kept. 2 if neither this nor
                ``k`` is given.
            k: The number of kept dimensions.
            calibration: What the sample is of, for an artifact's manifest; JSON values.

        Raises:
            BandError: If ratio or k don't fit the model's width.
            WidthError: If the sample is of another width.
            MisuseError: If the sample doesn't vary.
        """
        kept = BandChoice(ratio, k).dimensions(spectrum.width)
        if sample.shape[1] != spectrum.width:
            raise WidthError(
                f"the sample's embeddings are {sample.shape[1]} wide, the spectrum "
                f"{spectrum.width}: they must be of one language model"
            )
        directions = spectrum.right_singular_vectors.numpy()
        matrix, weights = automatic_filter(directions, principal_directions(sample))
        provenance = {
            **spectrum.provenance,
            "band": AUTO,
            "ratio": spectrum.width / kept,
            "weights": weights.tolist(),
            "calibration": calibration or {"texts": len(sample), "shipped": False},
            "singular_values": spectrum.singular_values.tolist(),
        }
        module = cls(spectrum.width, kept, provenance)
        module.linear.weight.data = torch.from_numpy(matrix[:kept].astype(np.float32))
        return module

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Filter ``features["sentence_embedding"]``, ``(batch, d)`` to ``(batch, k)``.

        Raises:
            WidthError: If the embeddings' width is not d.
        """
        embedding = features["sentence_embedding"]
        if embedding.shape[-1] != self.in_features:
            raise WidthError(
                f"this filter was taken from a matrix of width {self.in_features}, and the "
                f"embeddings are {embedding.shape[-1]} wide: it must come from the pipeline's own "
                f"language model, and stand right after the pooling"
            )
        weight = self.linear.weight
        features["sentence_embedding"] = nn.functional.linear(embedding.to(weight.dtype), weight)
        return features

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "FilterModule":
        # sentence-transformers casts all of a pipeline to the backbone's dtype. In bfloat16 the
        # rows are no longer orthonormal, and can't be had back: so follow to a device, not a dtype.
        weight = self.linear.weight.data
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.linear.weight.dtype != weight.dtype:
            self.linear.weight.data = weight.to(self.linear.weight.device)
        return self

    def get_config_dict(self) -> dict[str, Any]:
        """What every release's Dense understands, and no key more."""
        return {
            "in_features": self.in_features,
            "out_features": self.out_features,
            "bias": False,
            "activation_function": "torch.nn.modules.linear.Identity",
        }

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        """Write what a Dense writes, and the provenance beside it.

        ``SentenceTransformer.save_pretrained`` ends up here. What it writes as a whole needs the
        release that wrote it, so it is said where the portable form is to be had.
        """
        logger.warning(
            "%s: SentenceTransformer.save_pretrained writes the filter as a Dense, which loads "
            "without st_embfilter, but needs this release of sentence-transformers or a newer one. "
            "For older ones, and for servers such as Text Embeddings Inference and vLLM, save with "
            "st_embfilter.save_pretrained(model, path)",
            output_path,
        )
        super().save(output_path, *args, **kwargs)
        provenance = Path(output_path, PROVENANCE_FILE)
        provenance.write_text(json.dumps(self.provenance), encoding="utf-8")

    @classmethod
    def load(cls, model_name_or_path: str, *args: Any, **kwargs: Any) -> "FilterModule":
        """Load what :meth:`save` wrote, from a folder or a hub repository.

        Raises:
            PipelineError: If the Dense found there is not a filter.
        """
        dense = Dense.load(model_name_or_path, *args, **kwargs)
        if dense.bias or not isinstance(dense.activation_function, nn.Identity):
            raise PipelineError(f"{model_name_or_path}: a Dense with bias or activation")
        module = cls(dense.in_features, dense.out_features)
        module.linear.weight.data = dense.linear.weight.data
        subfolder = args[0] if args else kwargs.get("subfolder", "")
        provenance = Path(model_name_or_path, subfolder, PROVENANCE_FILE)
        if provenance.is_file():
            module.provenance = json.loads(provenance.read_text(encoding="utf-8"))
        return module

    def __repr__(self) -> str:
        return f"FilterModule({self.in_features} → {self.out_features})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (), self.__dict__


def _rebuild() -> FilterModule:
    return FilterModule.__new__(FilterModule)


# `SentenceTransformer.save` writes the class of each module to modules.json, and from 6.0 on no
# loader imports a class from outside of sentence_transformers unless it is told to trust the
# repository's code. What a FilterModule saves *is* a Dense, file by file, so it is written down as
# one, under the one name that all releases and servers know. (`__reduce__` is there because a
# pickle looks a class up by that name.)
FilterModule.__module__ = SAVED_DENSE_MODULE
FilterModule.__name__ = "Dense"
