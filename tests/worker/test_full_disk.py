"""A disk is full while a checkpoint is written: the run ends with the reason, and what was whole before stays whole."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from pathlib import Path

import pytest
from django.core.files.base import ContentFile

from attnservice.storage import DurableFiles
from experiments.spec import resolved
from tests.lab.collected import tiny
from tests.worker.disks import small_disk
from workers.protocol import Checkpoint, Failure, Message, Orders
from workers.trainer.entry.orders import carry_out


def fill(disk: Path) -> None:
    with (disk / "ballast").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)) == 4096:
            pass


def test_a_full_disk_of_the_worker_ends_the_run_and_leaves_the_earlier_checkpoint_whole(tmp_path: Path) -> None:
    said: list[Message] = []
    with small_disk(tmp_path / "disk", kilobytes=4096) as disk:

        def send(message: Message, payload: bytes = b"") -> None:
            said.append(message)
            if isinstance(message, Checkpoint):
                fill(disk)

        orders = Orders(run=1, fence=1, spec=resolved(tiny()), scratch=str(disk))
        assert not carry_out(orders, send, lambda: None)
        failure, checkpoint = said[-1], next(each for each in said if isinstance(each, Checkpoint))
        assert isinstance(failure, Failure)
        assert failure.reason == "storage"
        assert "No space left" in failure.message
        assert hashlib.sha256(Path(checkpoint.path).read_bytes()).hexdigest() == checkpoint.sha256


def test_a_full_disk_of_the_storage_keeps_no_part_of_a_file_and_takes_it_when_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", kilobytes=256) as disk:
        files = DurableFiles(location=disk)
        kept = files.save("runs/1/first", ContentFile(bytes(100_000)))
        with pytest.raises(OSError, match="No space") as refused:
            files.save("runs/1/second", ContentFile(os.urandom(200_000)))
        assert refused.value.errno == errno.ENOSPC
        assert [path.name for path in (disk / "runs" / "1").iterdir()] == ["first"]
        files.delete(kept)
        assert files.save("runs/1/second", ContentFile(bytes(200_000))) == "runs/1/second"
