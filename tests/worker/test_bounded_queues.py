"""The supervisor's small parts: bounded queues, bounded logs, words for an exit."""

from __future__ import annotations

import io
import threading
from pathlib import Path

from tests.worker.disks import small_disk
from workers.protocol import Log, write_message
from workers.supervisor import limits
from workers.supervisor.process.inbox import End, Inbox, fill
from workers.supervisor.process.journal import Journal
from workers.supervisor.process.spool import Spool
from workers.supervisor.process.trainer_process import describe_exit


def spoken(*texts: str) -> bytes:
    stream = io.BytesIO()
    for text in texts:
        write_message(stream, Log(text=text))
    return stream.getvalue()


def test_a_full_inbox_holds_its_reader_until_something_is_taken() -> None:
    inbox = Inbox(limit=1000)
    assert inbox.put(Log(text="a"), b"", 900)
    late = threading.Thread(target=inbox.put, args=(Log(text="b"), b"", 200), daemon=True)
    late.start()
    late.join(0.1)
    assert late.is_alive()
    assert inbox.get(0) == (Log(text="a"), b"")
    late.join(5)
    assert inbox.get(0) == (Log(text="b"), b"")
    assert inbox.get(0.01) is None


def test_one_message_larger_than_the_limit_still_passes() -> None:
    inbox = Inbox(limit=10)
    assert inbox.put(Log(text="large"), b"", 1000)


def test_a_closed_inbox_lets_its_reader_go() -> None:
    inbox = Inbox(limit=10)
    inbox.put(Log(text="a"), b"", 100)
    threading.Timer(0.05, inbox.close).start()
    assert not inbox.put(Log(text="b"), b"", 100)


def test_what_has_no_room_in_memory_goes_through_the_disk_in_order_and_gives_its_space_back(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 10_000)
    inbox = Inbox(500, spool)
    for number in range(20):
        assert inbox.put(Log(text=str(number)), bytes([number]), 300)
    assert inbox.spooled
    assert list(tmp_path.iterdir()) == []  # no name that a killed worker could leave
    taken = [inbox.get(0) for _ in range(10)]
    inbox.put(Log(text="20"), bytes([20]), 300)  # while older ones wait on disk it must not overtake them
    taken += [inbox.get(0) for _ in range(11)]
    assert [(message.text, payload) for message, payload in taken] == [(str(n), bytes([n])) for n in range(21)]
    assert (inbox.backlog, inbox.spooled) == (0, 0)


def test_a_full_spool_and_a_full_disk_hold_the_trainer_and_tear_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", kilobytes=64) as disk:
        for limit in (20_000, 10**9):
            spool = Spool(disk, limit)
            count = 0
            while spool.put(Log(text=str(count)), bytes(5000)):
                count += 1
            assert count == (3 if limit == 20_000 else 12)  # 64 KiB
            texts = [spool.get()[0].text for _ in range(count)]
            assert texts == [str(number) for number in range(count)]
            assert spool.put(Log(text="room again"), b"")
            spool.close()


def test_a_torn_message_ends_the_inbox_with_a_reason() -> None:
    for data, reason in ((spoken("a"), ""), (spoken("a")[:-1], "the trainer died in the middle of a message")):
        inbox = Inbox(limit=1000)
        fill(inbox, io.BytesIO(data), lambda: None)
        while not isinstance(end := inbox.get(0), End):
            assert end is not None
        assert end.error == reason


def test_a_log_keeps_to_its_budget_and_says_so() -> None:
    journal = Journal(budget=30)
    for _ in range(10):
        journal.add("ten letters")
    assert journal.take().splitlines() == [
        "ten letters",
        "ten letters",
        "… the log has reached its limit; the rest is not kept",
    ]
    assert list(journal.tail)[-1] == "ten letters"


def test_lines_that_come_faster_than_they_can_be_kept_are_counted() -> None:
    journal = Journal(budget=10**9)
    line = "x" * (limits.LOG_LINE - 1)
    for _ in range(limits.LOG_PENDING // limits.LOG_LINE + 5):
        journal.add(line)
    text = "".join(iter(journal.take, ""))
    assert "… 5 lines dropped" in text


def test_a_log_line_is_one_that_every_database_stores() -> None:
    journal = Journal(budget=1000)
    journal.add("50 %\r100 %\x00\n")
    assert journal.take() == "100 %\ufffd\n"


def test_an_exit_is_told_in_words() -> None:
    assert describe_exit(3) == "the trainer ended with exit code 3"
    assert "SIGKILL" in describe_exit(-9)
    assert describe_exit(-11) == "the trainer was killed by SIGSEGV"
