"""What goes wrong with the hub, in one line: what happened, to what, and what to do."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError is not listed
    GatedRepoError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from st_embfilter.errors import EmbFilterError, HubError, MisuseError, OutputWriteError

LOG_IN = "log in with `hf auth login`, or set HF_TOKEN to a token that may write"


@contextmanager
def hub_errors(name: str, kind: type[EmbFilterError] = HubError) -> Iterator[None]:
    """Say in one line what went wrong with the hub, and what to do."""
    try:
        yield
    except EmbFilterError:
        raise
    except HFValidationError as error:
        raise MisuseError(f"{name} is not a name that the hub allows: {error}") from error
    except LocalEntryNotFoundError as error:
        raise kind(
            f"{name} is not in the local hub cache, or not whole, and the hub can't be reached: "
            f"fetch it once, with `hf download {name.partition('@')[0]}`"
        ) from error
    except (HTTPError, OSError, ValueError, RuntimeError) as error:
        # An upload's failure comes wrapped, once for the file and once for the thread.
        cause: BaseException = error
        while cause.__cause__ and not _answered(cause):
            cause = cause.__cause__
        if _answered(cause):
            raise kind(f"{name}: {_refusal(name, cause)}") from error
        if isinstance(error, OSError) and error.errno and not isinstance(error, ConnectionError):
            raise OutputWriteError(f"{name}: a file failed on this machine: {error}") from error
        if isinstance(error, ValueError):
            raise kind(f"{name}: {error}") from error
        raise kind(f"{name}: the hub can't be reached: {cause or repr(cause)}") from error


def _answered(error: BaseException) -> bool:
    """Whether an error is an answer of the hub, and not the lack of one."""
    return getattr(error, "response", None) is not None


def _refusal(name: str, error: Any) -> str:
    """What the hub's answer means."""
    if isinstance(error, GatedRepoError):
        return "access to it has to be asked for on its page on the hub (it is gated); then log in"
    if isinstance(error, RevisionNotFoundError):
        return "there is no such revision on the hub"
    status = error.response.status_code
    said = getattr(error, "server_message", None) or f"HTTP {status}"
    if status == 401:
        return f"not found, or the hub doesn't know who asks ({said}): check the name; {LOG_IN}"
    if isinstance(error, RepositoryNotFoundError):
        return f"there is no such repository on the hub, or it is private: check the name; {LOG_IN}"
    if status == 403:
        owner = name.partition("/")[0]
        return f"the token may not write to {owner} ({said}): use another token, or another name"
    if status in (409, 412):
        return f"it changed meanwhile ({said}): look at it, and give the same command again"
    if status == 429 or status >= 500:
        return (
            f"the hub answered {status} ({said}). What was published before is as it was: give "
            f"the same command again later, it goes on where it was"
        )
    return f"the hub answered {status}: {said}"
