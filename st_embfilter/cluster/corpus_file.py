"""A file of a corpus, as it was when the corpus was cut into parts."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from st_embfilter.errors import VectorFileError
from st_embfilter.store_errors import store_errors
from st_embfilter.stores import Place

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class CorpusFile:
    """A file that is refused when it is another one by then.

    Attributes:
        path: Where it is: a path or a URI.
        version: Tells its content from an earlier one's.
    """

    path: str
    version: str

    def opened(self) -> "pa.NativeFile":
        """The file, to be read; another call tells whether it still is the same.

        Raises:
            StoreError: If it is gone, or may not be read.
            VectorFileError: If it is another one.
        """
        place = Place.of(self.path)
        file = place.open()
        self._check(place.version(place.info(), file))
        return file

    def content(self) -> "pa.BufferReader":
        """All of it, read at once, for files whose version is from a listing.

        An object store gives all of one version then: one look at it, afterwards, is enough.

        Raises:
            StoreError: If it is gone, or may not be read.
            VectorFileError: If it is another one.
        """
        import pyarrow as pa

        place = Place.of(self.path)
        with place.open() as file, store_errors(place):
            content = file.read_buffer()
        self._check(place.version(place.info()))
        return pa.BufferReader(content)

    def _check(self, version: str) -> None:
        if version != self.version:
            raise VectorFileError(
                f"{self.path} has changed since the job began: the same command looks at it anew"
            )
