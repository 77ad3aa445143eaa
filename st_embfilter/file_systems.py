"""Which file system a URI names: pyarrow's own, or one of fsspec's.

pyarrow knows the disk, ``s3://``, ``gs://``, ``abfss://`` and HDFS; fsspec the others, as ``hf://``.
"""

import os
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from st_embfilter.errors import MisuseError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.fs

GOOGLES = ("gs", "gcs")
ARROWS = (*GOOGLES, "abfs", "abfss", "hdfs", "viewfs")
# The last of so many tries is half a minute after the first; of Google's, as late.
TRIES, RETRY_SECONDS = 7, 30
CONNECT_SECONDS, ANSWER_SECONDS = 10, 60


@cache
def file_system(scheme: str, host: str, query: str) -> "tuple[pa.fs.FileSystem, str]":
    """The file system, and what it calls the place without a path.

    Raises:
        MisuseError: If no package knows the scheme.
        ImportError: If the one that does isn't installed.
    """
    import pyarrow.fs

    if not scheme:
        return pyarrow.fs.LocalFileSystem(), ""
    if scheme == "s3":
        return _s3(host, dict(parse_qsl(query))), host
    if scheme in GOOGLES:
        query = "&".join(filter(None, [query, f"retry_limit_seconds={RETRY_SECONDS}"]))
    root = f"{scheme}://{host}" + (f"?{query}" if query else "")
    if scheme in ARROWS:
        native: tuple[pyarrow.fs.FileSystem, str] = pyarrow.fs.FileSystem.from_uri(root)
        return native
    import fsspec

    if scheme not in fsspec.available_protocols():
        raise MisuseError(
            f"{root}: no file system is known by {scheme}://. Use a path, s3://, gs://, abfss://, "
            f"hf://, or what another package has fsspec know"
        )
    files, base = fsspec.url_to_fs(root)
    return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(files)), base


def is_fsspec(files: "pa.fs.FileSystem") -> bool:
    """Whether a file system is one of fsspec's."""
    return str(files.type_name).startswith("py::")


def _s3(bucket: str, options: dict[str, str]) -> "pa.fs.FileSystem":
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem, resolve_s3_region

    endpoint = options.get("endpoint_override") or _set("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    region = options.get("region") or _set("AWS_REGION", "AWS_DEFAULT_REGION")
    settings: dict[str, Any] = {"scheme": options["scheme"]} if "scheme" in options else {}
    return S3FileSystem(
        endpoint_override=endpoint,
        region=region or ("us-east-1" if endpoint else resolve_s3_region(bucket)),
        connect_timeout=CONNECT_SECONDS,
        request_timeout=ANSWER_SECONDS,
        retry_strategy=AwsStandardS3RetryStrategy(max_attempts=TRIES),
        **settings,
    )


def _set(*names: str) -> str | None:
    """The first environment variable that is set."""
    return next((os.environ[name] for name in names if os.environ.get(name)), None)
