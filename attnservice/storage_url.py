"""ATTN_BLOCKS_STORAGE as one of Django's storages."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from attnservice.env import BadSetting

CONNECT_S, READ_S = 3, 20  # a storage that hangs blocks the reconciler or a reader no longer than this


def blocks_storage(url: str, bucket_options: dict[str, Any]) -> dict[str, Any]:
    """The entry of STORAGES for `s3://bucket/prefix` (keys and endpoint from ATTN_S3_*) or `file:///folder`.

    Raises BadSetting on any other address.
    """
    parts = urlsplit(url)
    if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
        return {"BACKEND": "attnservice.storage.DurableFiles", "OPTIONS": {"location": parts.path}}
    if parts.scheme == "s3" and parts.netloc and not parts.query:
        own = {"bucket_name": parts.netloc, "location": parts.path.strip("/"), "client_config": _patience()}
        return {"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": {**bucket_options, **own}}
    raise BadSetting(f"ATTN_BLOCKS_STORAGE must be s3://bucket/prefix or file:///folder, not {url}")


def _patience() -> Any:
    from botocore.config import Config  # slow to import, and only needed here

    return Config(connect_timeout=CONNECT_S, read_timeout=READ_S, retries={"max_attempts": 2, "mode": "standard"})
