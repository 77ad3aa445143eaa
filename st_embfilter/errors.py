"""Every error that st-embfilter raises on purpose.

The command line turns each into one line on stderr and the exit code of its class: 2 where the
call itself was wrong (:class:`MisuseError`), 1 where a right call failed.
"""


class EmbFilterError(Exception):
    """Base of all errors raised by st-embfilter."""

    exit_code = 1


class MisuseError(EmbFilterError, ValueError):
    """The call was wrong: another argument is needed, not another try."""

    exit_code = 2


class BandError(MisuseError):
    """The filter ratio, number of dimensions or list of directions doesn't fit the matrix."""


class TemplateError(MisuseError):
    """The prompt template can't be used: it needs exactly one ``{text}``."""


class WidthError(MisuseError):
    """An embedding's width is not the width of the matrix the filter was taken from."""


class PipelineError(MisuseError):
    """The pipeline is not one that the portable artifact can hold."""


class OutputExistsError(MisuseError, FileExistsError):
    """The output is already there. Nothing is ever overwritten."""


class TokenTableError(MisuseError):
    """A table of token frequencies can't be read, or is of another vocabulary."""


class RecipeError(MisuseError):
    """A recipe can't be read, or holds what a recipe doesn't."""


class SourceNotFoundError(EmbFilterError, FileNotFoundError):
    """The source is no local folder, no GGUF file, and no hub repository that can be reached."""


class CheckpointError(EmbFilterError):
    """A checkpoint's files are missing, corrupt, truncated or of a kind that is not read."""


class NoUnembeddingError(EmbFilterError):
    """The checkpoint holds no unembedding matrix: it is not a causal language model."""


class NonFiniteError(EmbFilterError):
    """The unembedding matrix, or a vector, holds NaN or infinity."""


class MissingDependencyError(EmbFilterError, ImportError):
    """An optional package is needed for this source."""


class OutputWriteError(EmbFilterError, OSError):
    """The output could not be written (no space, no permission). Nothing was left behind."""


class VerificationError(EmbFilterError):
    """An artifact is not what it should be."""


class HubError(EmbFilterError):
    """The hub refused, or can't be reached. What was published before stays as it was."""


class ClusterError(EmbFilterError):
    """Ray can't be reached, or a worker failed again and again. Finished parts are kept."""


class StoreError(EmbFilterError):
    """An object store refuses, can't be reached, or is none. Finished parts are kept."""


class ServerError(EmbFilterError):
    """A running server doesn't answer, or not as an embedding server does."""


class VectorFileError(EmbFilterError):
    """A file of vectors is truncated, corrupt, or of a kind that is not read."""


class DataError(EmbFilterError):
    """An evaluation set can't be reached or read, or a split, a column or a text is missing."""
