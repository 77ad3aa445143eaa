"""``embfilter.json``: where an artifact's filter is from, and what its embeddings must be."""

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from st_embfilter.errors import CheckpointError
from st_embfilter.files import read_json
from st_embfilter.layout.names import PROVENANCE_FILE

FORMAT = 1
# Only of some bands: a file has those that aren't None.
OF_SOME_BANDS = ("seed", "indices", "weights", "calibration")


@dataclass(frozen=True)
class Probes:
    """Texts with the embeddings that the builder saw.

    Attributes:
        dtype: What the backbone computed in, as ``"bfloat16"``.
        texts: The texts.
        embeddings: A row of k numbers for each.
    """

    dtype: str = ""
    texts: list[str] = field(default_factory=list)
    embeddings: list[list[float]] = field(default_factory=list)


@dataclass(frozen=True)
class Manifest:
    """The content of ``embfilter.json``, in the file's order.

    What a file doesn't say is empty here, and what it says beyond this is passed over: whether it
    is complete is for :func:`~st_embfilter.artifact.verification.verify` to tell.

    Attributes:
        format: 1.
        form: ``portable`` or ``exact``.
        thin: Whether the language model's weights are referred to instead of held.
        limit: ``max_seq_length`` as ``build`` was told; with portable Echo that of the text alone.
        source: The language model's hub id, or the last part of its local path.
        revision: Its commit on the hub, else None.
        tensor: The name of W_U's tensor in the checkpoint.
        dtype: Its stored dtype, as ``"BF16"``.
        shape: ``[V, d]``.
        sha256: Of its bytes as stored.
        band: Which directions are kept: a band's name, ``auto``, or ``indices``.
        ratio: The filter ratio τ, d / k.
        seed: Of the band ``random``.
        indices: The kept directions in the order of the rows; None for ``auto``.
        weights: Of ``auto``: what each direction is weighted with, d numbers from 0 to 1.
        calibration: Of ``auto``: how many texts it was fitted on, whose, and their digest.
        singular_values: All d, descending.
        k: The number of dimensions.
        prompt: The template of plain texts.
        prompts: Those of named prompts.
        max_seq_length: The limit in tokens that the loaded model has.
        versions: Of the packages that built it.
        probes: Texts with their embeddings.
    """

    format: int = 0
    form: str = ""
    thin: bool = False
    limit: int = 0
    source: str = ""
    revision: str | None = None
    tensor: str = ""
    dtype: str = ""
    shape: list[int] = field(default_factory=list)
    sha256: str = ""
    band: str = ""
    ratio: float = 0.0
    seed: int | None = None
    indices: list[int] | None = None
    weights: list[float] | None = None
    calibration: dict[str, Any] | None = None
    singular_values: list[float] = field(default_factory=list)
    k: int = 0
    prompt: str = ""
    prompts: dict[str, str] = field(default_factory=dict)
    max_seq_length: int | None = None
    versions: dict[str, str] = field(default_factory=dict)
    probes: Probes = field(default_factory=Probes)

    @property
    def width(self) -> int:
        """d, the width of W_U."""
        return len(self.singular_values)

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Read an artifact's.

        Raises:
            CheckpointError: If it is missing, or isn't a manifest.
        """
        path = folder / PROVENANCE_FILE
        try:
            return cls.from_json(read_json(path))
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{path} can't be read: {error}") from error

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Manifest":
        """From a JSON object.

        Raises:
            TypeError, AttributeError: If it isn't one.
        """
        told = _known(cls, content)
        if "probes" in told:
            told["probes"] = Probes(**_known(Probes, told["probes"]))
        return cls(**told)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        content = asdict(self)
        return {k: v for k, v in content.items() if v is not None or k not in OF_SOME_BANDS}


def _known(kind: type[Manifest] | type[Probes], content: dict[str, Any]) -> dict[str, Any]:
    """The entries that this release knows."""
    names = {entry.name for entry in fields(kind)}
    return {name: value for name, value in content.items() if name in names}
