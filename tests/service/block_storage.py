"""A block storage that speaks S3 over HTTP, for tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from django.conf import settings as django_settings
from moto.server import ThreadedMotoServer

from attnservice.storage_url import blocks_storage

BUCKET, PREFIX = "attn-blocks", "lab"


class Bucket:
    """The store seen from outside."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def names(self) -> list[str]:
        return [item["Key"] for item in self.client.list_objects_v2(Bucket=BUCKET).get("Contents", [])]

    def read(self, key: str) -> bytes:
        data: bytes = self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return data

    def write(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=key, Body=data)

    def empty(self) -> None:
        for key in self.names():
            self.client.delete_object(Bucket=BUCKET, Key=key)


def serve() -> Iterator[tuple[Bucket, str]]:
    """A server with the bucket, and its address."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    where = {"endpoint_url": f"http://{host}:{port}", "region_name": "us-east-1"}
    client = boto3.client("s3", aws_access_key_id="access", aws_secret_access_key="secret", **where)
    client.create_bucket(Bucket=BUCKET)
    yield Bucket(client), where["endpoint_url"]
    server.stop()


def use(settings: Any, monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """Set it as an operator would: s3://bucket/prefix; every block goes, at once."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    settings.ATTN_BLOCKS_STORAGE = f"s3://{BUCKET}/{PREFIX}"
    settings.ATTN_BLOCKS_MIN_KB = settings.ATTN_BLOCKS_AFTER_S = 0
    options = {"endpoint_url": endpoint, "access_key": "access", "secret_key": "secret", "file_overwrite": True}
    entry = blocks_storage(settings.ATTN_BLOCKS_STORAGE, options)
    settings.STORAGES = {**django_settings.STORAGES, "blocks": entry}
