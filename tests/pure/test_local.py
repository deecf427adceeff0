"""The launcher's small decisions."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from attnservice.local import broker, environment
from attnservice.local.console import worth_showing


def test_the_socket_lies_in_the_data_folder_where_its_path_is_short_enough() -> None:
    assert broker.socket_path(Path("/srv/attn")) == Path("/srv/attn/redis/redis.sock")


def test_a_long_path_moves_the_socket_to_a_short_one_that_every_process_finds() -> None:
    deep = Path("/srv") / ("deep" * 30)
    assert broker.socket_path(deep) == broker.socket_path(deep) != broker.socket_path(deep / "other")
    assert len(os.fsencode(broker.socket_path(deep))) < 108


def test_a_secret_key_is_made_once_and_is_ours_alone(tmp_path: Path) -> None:
    environment.keep_secret_key(tmp_path / "key")
    made = (tmp_path / "key").read_text()
    environment.keep_secret_key(tmp_path / "key")
    assert (tmp_path / "key").read_text() == made
    assert len(made) >= 50
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600


def test_a_data_folder_has_one_holder_who_says_where_it_is(tmp_path: Path) -> None:
    held = environment.hold(tmp_path, "http://127.0.0.1:8000")
    with pytest.raises(environment.AlreadyRunning, match=f"http://127.0.0.1:8000 .process {os.getpid()}"):
        environment.hold(tmp_path, "http://127.0.0.1:8001")
    held.close()
    environment.hold(tmp_path, "http://127.0.0.1:8001").close()


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("2026-11-22 10:20:10,762 INFO workers.tasks: run 1: claimed", "run 1: claimed"),
        ("2026-11-22 10:20:10,762 WARNING celery.worker: lost the broker", "WARNING: lost the broker"),
        ("2026-11-22 10:20:10,762 INFO celery.worker: received", None),
        ("-------------- [queues]", None),
    ],
)
def test_the_terminal_shows_our_own_messages_and_everybodys_warnings(line: str, shown: str | None) -> None:
    assert worth_showing(line) == shown
