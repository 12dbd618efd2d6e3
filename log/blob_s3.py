"""Blobs as objects in an S3 bucket, or in whatever speaks S3's protocol; with the extra `s3` (boto3).

The key is `<prefix>/ab/abcdef...`. An object is durable when its put is answered, and S3 is given the SHA-256 to check
what came. boto3 finds credentials, region and proxies as everywhere: environment, profiles, roles.

S3 has no way to say "delete unless written meanwhile": a blob that nobody has named for a day, and that is put again
within the moment between the collector's look and its delete, is lost. A bucket with versioning keeps it.
"""

import base64
import threading
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final, cast

from refold.log.blobs import Stored
from refold.log.errors import BlobsUnavailable, UsageError

try:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError
except ModuleNotFoundError as missing:
    raise UsageError("blobs in S3 need boto3: pip install 'refold[s3]'") from missing

_DIGEST_CHARS: Final = 64
_ABSENT: Final = frozenset({"404", "NoSuchKey", "NotFound"})


class S3Blobs:
    """Blobs in a bucket.

    Args:
        bucket: Its name.
        prefix: What keys begin with; empty for nothing.
        endpoint: URL of a service that is not AWS; None for AWS.
        region: Its region; None for boto3's own.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        endpoint: str | None = None,
        region: str | None = None,
    ) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._endpoint = endpoint
        self._region = region
        self._mutex = threading.Lock()
        self._client: Any = None  # boto3 makes its methods at run time and has no types

    @property
    def url(self) -> str:
        """Where it is."""
        at = f" at {self._endpoint}" if self._endpoint is not None else ""
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/") + at

    def put(self, digest: str, data: bytes) -> None:
        """Keep a blob; durable when this returns. It is written anew where it is there, which makes it young."""
        try:
            self._s3().put_object(
                Bucket=self._bucket,
                Key=self._key(digest),
                Body=data,
                ChecksumSHA256=base64.b64encode(bytes.fromhex(digest)).decode(),
                ContentType="application/json",
            )
        except (BotoCoreError, ClientError) as error:
            raise self._unavailable("written", error) from error

    def get(self, digest: str) -> bytes | None:
        """A blob's bytes; None where there is none."""
        try:
            found = self._s3().get_object(Bucket=self._bucket, Key=self._key(digest))
            return cast(bytes, found["Body"].read())
        except ClientError as error:
            if _is_absent(error):
                return None
            raise self._unavailable("read", error) from error
        except BotoCoreError as error:
            raise self._unavailable("read", error) from error

    def stored(self) -> Iterator[Stored]:
        """All blobs."""
        try:
            pages = self._s3().get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix):
                for item in page.get("Contents", ()):
                    digest = str(item["Key"]).rpartition("/")[2]
                    if len(digest) == _DIGEST_CHARS:
                        put_at = cast(datetime, item["LastModified"]).timestamp()
                        yield Stored(digest, int(item["Size"]), put_at)
        except (BotoCoreError, ClientError) as error:
            raise self._unavailable("listed", error) from error

    def delete(self, digest: str, before: float) -> bool:
        """Delete a blob unless it was put at `before` or later."""
        place = {"Bucket": self._bucket, "Key": self._key(digest)}
        try:
            found = self._s3().head_object(**place)
            if cast(datetime, found["LastModified"]).timestamp() >= before:
                return False
            self._s3().delete_object(**place)
        except ClientError as error:
            if _is_absent(error):
                return False
            raise self._unavailable("cleared", error) from error
        except BotoCoreError as error:
            raise self._unavailable("cleared", error) from error
        return True

    def delete_leftovers(self, before: float) -> int:
        """There are none: S3 keeps nothing half written."""
        return 0

    def _key(self, digest: str) -> str:
        return f"{self._prefix}{digest[:2]}/{digest}"

    def _s3(self) -> Any:
        """The client, made when it is first needed: that reads files and may ask for a role."""
        with self._mutex:
            if self._client is None:
                # Short: a read may hold up a worker's loop, and whoever waits for a write tries again.
                config = Config(
                    connect_timeout=3,
                    read_timeout=10,
                    retries={"mode": "standard", "total_max_attempts": 2},
                )
                self._client = boto3.client(
                    "s3", endpoint_url=self._endpoint, region_name=self._region, config=config
                )
            return self._client

    def _unavailable(self, what: str, error: Exception) -> BlobsUnavailable:
        return BlobsUnavailable(
            f"the blob store {self.url} can't be {what} now ({error}): check its address, its credentials and that "
            "they allow s3:GetObject, s3:PutObject and s3:ListBucket"
        )


def _is_absent(error: ClientError) -> bool:
    return str(error.response.get("Error", {}).get("Code")) in _ABSENT
