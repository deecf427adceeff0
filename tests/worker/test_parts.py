"""The supervisor's small parts: bounded queues, bounded logs, words for an exit."""

from __future__ import annotations

import io
import threading

from workers import limits
from workers.inbox import End, Inbox, fill
from workers.journal import Journal
from workers.protocol import Log, write_message
from workers.trainers import describe_exit


def spoken(*texts: str) -> bytes:
    stream = io.BytesIO()
    for text in texts:
        write_message(stream, Log(text=text))
    return stream.getvalue()


def test_a_full_inbox_holds_its_reader_until_something_is_taken() -> None:
    inbox = Inbox(limit=1000)
    assert inbox.put((Log(text="a"), b""), 900)
    late = threading.Thread(target=inbox.put, args=((Log(text="b"), b""), 200), daemon=True)
    late.start()
    late.join(0.1)
    assert late.is_alive()
    assert inbox.get(0) == (Log(text="a"), b"")
    late.join(5)
    assert inbox.get(0) == (Log(text="b"), b"")
    assert inbox.get(0.01) is None


def test_one_message_larger_than_the_limit_still_passes() -> None:
    inbox = Inbox(limit=10)
    assert inbox.put((Log(text="large"), b""), 1000)


def test_a_closed_inbox_lets_its_reader_go() -> None:
    inbox = Inbox(limit=10)
    inbox.put((Log(text="a"), b""), 100)
    threading.Timer(0.05, inbox.close).start()
    assert not inbox.put((Log(text="b"), b""), 100)


def test_a_torn_message_ends_the_inbox_with_a_reason() -> None:
    for data, reason in ((spoken("a"), ""), (spoken("a")[:-1], "the trainer died in the middle of a message")):
        inbox = Inbox(limit=1000)
        fill(inbox, io.BytesIO(data), lambda: None)
        items = iter(lambda inbox=inbox: inbox.get(0), None)
        end = list(items)[-1]
        assert isinstance(end, End)
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
