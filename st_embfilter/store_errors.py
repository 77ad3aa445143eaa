"""What goes wrong with an object store, in one line: what happened, and what to do."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from st_embfilter.errors import EmbFilterError, MissingDependencyError, StoreError

NO_S3 = "what answers there doesn't speak as S3 does: look at the endpoint"
GONE = "is not there, or not any more: the same command looks anew"
# With S3's own word, and without one.
MISSING = r"NO_SUCH_KEY|RESOURCE_NOT_FOUND"
# pyarrow has one exception for all of it, and the store's code in its text.
MEANINGS = {
    # An expired token answers a request for an object's headers with 400, and no word.
    r"ExpiredToken|EXPIRED|status 400\) during HeadObject": "the credentials have expired: renew "
    "them",
    r"ACCESS_DENIED|status 40[13]|INVALID_ACCESS_KEY|INVALID_CLIENT|SIGNATURE|PermissionDenied|"
    r"MISSING_AUTHENTICATION|PERMISSION_DENIED|UNAUTHENTICATED": "access is denied: see which "
    "credentials the store's own tools find here, and what they may do",
    r"NO_SUCH_BUCKET": "there is no such bucket",
    MISSING: f"it {GONE}",
    r"XML_ERROR": NO_S3,
}


@contextmanager
def store_errors(place: object) -> Iterator[None]:
    """Make one error of all that a place's file system raises; ``place`` is as the error names it.

    Raises:
        StoreError: What the file system says, in words that help.
        MissingDependencyError: If a package for it isn't installed.
    """
    try:
        yield
    except EmbFilterError:
        raise
    except ImportError as error:
        raise MissingDependencyError(
            f"{place} needs another package: {error}. (What pyarrow knows, as s3:// and gs://, "
            f"comes with: pip install 'st-embfilter[vectors]')"
        ) from error
    # fsspec's file systems raise what the libraries below them do.
    except Exception as error:
        if is_gone(error):
            raise StoreError(f"{place} {GONE}") from error
        raise StoreError(f"{place}: {meaning(error) or _first_line(error)}") from error


def is_gone(error: Exception) -> bool:
    """Whether a file isn't there, or was deleted when it was found already."""
    return isinstance(error, FileNotFoundError) or bool(re.search(MISSING, str(error)))


def meaning(error: Exception) -> str | None:
    """What S3's or Google's refusal means, if it is one; others' errors speak for themselves."""
    text = str(error)
    if not re.search("AWS Error|google::cloud::Status", text):
        return None
    for pattern, words in MEANINGS.items():
        if re.search(pattern, text):
            return words
    return f"the store failed again and again, or can't be reached: {_first_line(error)}"


def _first_line(error: Exception) -> str:
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return re.sub(r" \(Request ID: \w+\)| error_info=.*", "", text)
