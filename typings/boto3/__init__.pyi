"""What we use of boto3, which has no types and makes its clients' methods at run time."""

from typing import Any

from botocore.config import Config

def client(
    service_name: str,
    *,
    region_name: str | None = ...,
    endpoint_url: str | None = ...,
    config: Config | None = ...,
) -> Any: ...
