"""Checkpoints in an object store that speaks S3 over HTTP: any worker resumes from them, a damaged one is noticed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from tests.worker import processes
from tests.worker.runs import assert_whole, ended, queue, reaches

BUCKET = "attn"
Hire = Callable[..., processes.Worker]


@pytest.fixture
def bucket() -> Iterator[tuple[Any, dict[str, str]]]:
    """A client of the store, and the settings by which a worker finds it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    keys = {"ACCESS_KEY": "access", "SECRET_KEY": "secret"}
    where = {"endpoint_url": f"http://{host}:{port}", "region_name": "us-east-1"}
    client = boto3.client("s3", aws_access_key_id="access", aws_secret_access_key="secret", **where)
    client.create_bucket(Bucket=BUCKET)
    settings = {"BUCKET": BUCKET, "ENDPOINT": where["endpoint_url"], **keys}
    region = {"AWS_DEFAULT_REGION": "us-east-1"}
    yield client, {**{f"ATTN_S3_{name}": value for name, value in settings.items()}, **region}
    server.stop()


def test_another_worker_resumes_from_a_bucket_and_passes_over_a_damaged_checkpoint(
    hire: Hire, bucket: tuple[Any, dict[str, str]]
) -> None:
    client, settings = bucket
    first = hire("bucket", script={"hold_at": 25}, **settings).ready()
    run = reaches(queue(steps=40, every=10, pool="bucket"), 25)
    os.kill(first.pid, signal.SIGKILL)
    newest, before = run.checkpoints.all()
    stored = {item["Key"]: item["Size"] for item in client.list_objects(Bucket=BUCKET)["Contents"]}
    assert stored[newest.path] == newest.size
    client.put_object(Bucket=BUCKET, Key=newest.path, Body=b"bit rot")
    hire("bucket", script={}, **settings)
    assert_whole(ended(run))
    assert run.attempts.first().start_step == before.step
    left = {item["Key"] for item in client.list_objects(Bucket=BUCKET)["Contents"] if "checkpoint" in item["Key"]}
    assert left == {row.path for row in run.checkpoints.all()}
