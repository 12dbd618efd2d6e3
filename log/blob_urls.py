"""One line that says where large payloads are kept: the URL of a blob store."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from refold.log.blob_directory import DirectoryBlobs
from refold.log.blobs import BlobStore
from refold.log.errors import UsageError

VARIABLE: Final = "REFOLD_BLOBS"

ACCEPTED: Final = """Accepted are:
  file:///var/lib/app/blobs            a directory, by its absolute path
  s3://bucket/prefix                   a bucket on AWS, with the extra `s3`
  s3://bucket/prefix?endpoint=https://minio:9000&region=eu-1    ... on what speaks S3's protocol"""


def open_blobs(url: str, namespace: str = "") -> BlobStore:
    """The blob store that a URL names.

    Args:
        url: One of the forms in `ACCEPTED`, which the error's message lists as well.
        namespace: Folder in it that is meant, so that namespaces may share a bucket; none where not given.

    Raises:
        UsageError: It is not a URL of a blob store, or an extra is missing.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise _refused(url, str(error)) from error
    match parts.scheme:
        case "file":
            return _directory(url, parts, namespace)
        case "s3":
            return _s3(url, parts, namespace)
        case _:
            raise _refused(url, "it does not begin with file:/// or s3://")


def blobs_from(namespace: str, environment: Mapping[str, str] | None = None) -> BlobStore | None:
    """The blob store of a namespace by the variable `REFOLD_BLOBS`; None where it is not set.

    Args:
        namespace: As in `open_blobs`.
        environment: Where the variable is looked up; the process's own where not given.

    Raises:
        UsageError: As `open_blobs`.
    """
    url = (os.environ if environment is None else environment).get(VARIABLE)
    return open_blobs(url, namespace) if url else None


def _directory(url: str, parts: SplitResult, namespace: str) -> BlobStore:
    path = unquote(parts.path)
    if parts.netloc or parts.query or parts.fragment or not path.startswith("/") or "\0" in path:
        raise _refused(url, "a directory is named by its absolute path alone")
    return DirectoryBlobs(Path(path) / namespace)


def _s3(url: str, parts: SplitResult, namespace: str) -> BlobStore:
    # Imported when asked for: boto3 is an extra.
    from refold.log.blob_s3 import S3Blobs  # noqa: PLC0415

    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = sorted(options.keys() - {"endpoint", "region"})
    if unknown:
        raise _refused(url, f"the option {unknown[0]!r} is unknown")
    if not parts.hostname or parts.username is not None or parts.fragment:
        raise _refused(url, "after s3:// comes the bucket's name, and never a password")
    return S3Blobs(
        parts.netloc,
        f"{unquote(parts.path).strip('/')}/{namespace}",
        endpoint=options.get("endpoint"),
        region=options.get("region"),
    )


def _refused(url: str, reason: str) -> UsageError:
    return UsageError(f"{url!r} does not name a blob store: {reason}. {ACCEPTED}")
