"""The messages between a trainer and its supervisor. No Django, no torch.

Supervisor → trainer, on the trainer's standard input: one JSON object a line (`Orders`, then `Stop`).
Trainer → supervisor, on a descriptor of its own (number in `ATTN_PIPE_FD`), never on stdout:
an 8-byte prefix (two little-endian uint32: header bytes, payload bytes), a JSON header, a payload.
Only `Flush` has a payload: the Arrow IPC stream of each of its groups, one after the other.
Order matters: a checkpoint of step n is announced after the flush that reaches n.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Annotated, Any, BinaryIO, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

PIPE_FD = "ATTN_PIPE_FD"
PARENT_PID = "ATTN_PARENT_PID"
MAX_HEADER = 16 * 2**20
MAX_PAYLOAD = 256 * 2**20
MAX_ITEMS = 200  # named in one notice; its sentence has the whole count
StopReason = Literal["cancel", "preempt"]
_PREFIX = struct.Struct("<II")


class Message(BaseModel):
    """Base of all messages."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Orders(Message):
    """The run to train. `checkpoint` holds `start_step` completed steps; a first attempt has None and 0.

    No field is ever removed: a running supervisor may start the trainer of a newer checkout, which refuses unknown
    fields."""

    type: Literal["orders"] = "orders"
    run: int
    fence: int
    spec: dict[str, Any]
    scratch: str  # the attempt's own folder, for checkpoints and pictures
    start_step: int = 0
    checkpoint: str | None = None  # a readable local path
    forked: bool = False  # the checkpoint is another run's: load what fits
    parent: dict[str, Any] | None = None  # that run's spec, if still known
    time_offset: float = 0.0  # seconds between the run's start and the sending of this message


class Stop(Message):
    """Stop after the current step: save a checkpoint, flush, answer `Stopped`."""

    type: Literal["stop"] = "stop"
    why: StopReason


class Ready(Message):
    """Imports are done; the trainer waits for orders."""

    type: Literal["ready"] = "ready"
    pid: int
    torch: str
    capability: str  # torch.backends.cpu.get_cpu_capability(), or the GPU's name


class Started(Message):
    """Training begins. `sites` lists the attention modules, `notices` what a reader of this run's numbers must know:
    what was left out and what is not measured; `inputs` are the files that were read."""

    type: Literal["started"] = "started"
    device: str
    parameters: int
    sites: list[SiteInfo]
    notices: list[Notice] = []
    inputs: dict[str, str] = {}  # name, as the spec has it → SHA-256
    data_digest: str = ""  # of all inputs; empty where nothing was read
    revision: int | None = None  # of the training code
    device_kind: str = ""  # cpu or cuda


class Notice(Message):
    """Something that this run's numbers do not cover, shown on the run's page, in REST and in the log. `kind` is
    `unseen_attention`, `unreached`, `left_out`, …; `text` is one sentence with counts; `items` names what is counted,
    at most MAX_ITEMS."""

    kind: str
    text: str
    items: list[str] = Field([], max_length=MAX_ITEMS)


class SiteInfo(Message):
    """One attention module and the matrices it owns."""

    name: str  # dotted, such as encoder.0.self
    kind: str  # self, text, image: what its keys come from
    heads: int
    matrices: list[str]
    kv_heads: int | None = None  # heads of W_k and W_v where they are not ours


class Schema(Message):
    """The column names of a group; sent before the group's first frame and whenever they change."""

    type: Literal["schema"] = "schema"
    group: str
    names: list[str]


class GroupFrame(Message):
    """Where one group's Arrow stream lies in the payload of a flush."""

    group: str
    rows: int
    size: int


class Flush(Message):
    """Steps [lo, hi) are complete; the payload carries every point recorded in them, of all groups.

    `hi > lo`, flushes follow each other without a gap, and every point of every group has lo <= step < hi. An
    evaluation after step s belongs in the flush that reaches s + 1: an ambiguous commit is resolved by comparing `hi`
    with the committed step.
    """

    type: Literal["flush"] = "flush"
    lo: int
    hi: int
    groups: list[GroupFrame]


class Log(Message):
    """One line for the run's log."""

    type: Literal["log"] = "log"
    level: Literal["info", "warning", "error"] = "info"
    text: str


class Artifact(Message):
    """A file in scratch for the service to keep; `step` is the index of the last completed step."""

    type: Literal["artifact"] = "artifact"
    kind: Literal["prediction", "map", "file"]
    name: str
    path: str
    media_type: str
    step: int | None = None
    meta: dict[str, Any] = {}


class Checkpoint(Message):
    """`path` holds `step` completed steps, durably written."""

    type: Literal["checkpoint"] = "checkpoint"
    step: int
    path: str
    sha256: str
    size: int


class Result(Message):
    """All steps are done; sent after the last flush and checkpoint."""

    type: Literal["result"] = "result"
    step: int


class Stopped(Message):
    """The answer to `Stop`, sent after the checkpoint, if one could be written."""

    type: Literal["stopped"] = "stopped"
    why: StopReason
    step: int


class Failure(Message):
    """Training ended in an error that would occur again."""

    type: Literal["failure"] = "failure"
    reason: Literal["error", "out_of_memory", "nan", "spec", "storage"]
    message: str
    traceback: str = ""


ToTrainer = Annotated[Orders | Stop, Field(discriminator="type")]
FromTrainer = Annotated[
    Ready | Started | Schema | Flush | Log | Artifact | Checkpoint | Result | Stopped | Failure,
    Field(discriminator="type"),
]
Started.model_rebuild()
_to_trainer: TypeAdapter[Orders | Stop] = TypeAdapter(ToTrainer)
_from_trainer: TypeAdapter[Any] = TypeAdapter(FromTrainer)


class ProtocolError(RuntimeError):
    """An invalid or incomplete message."""


def send(stream: BinaryIO, message: Orders | Stop) -> None:
    """Write one line to a trainer's standard input."""
    stream.write(message.model_dump_json().encode() + b"\n")
    stream.flush()


def receive(line: bytes) -> Orders | Stop:
    """Parse one line of a trainer's standard input."""
    return _to_trainer.validate_json(line)


def write_message(stream: BinaryIO, message: Message, payload: bytes = b"") -> None:
    """Write one message to the supervisor; the stream must write all or raise (a buffered file does)."""
    header = message.model_dump_json().encode()
    stream.write(_PREFIX.pack(len(header), len(payload)) + header + payload)
    stream.flush()


def read_message(stream: BinaryIO) -> tuple[Message, bytes] | None:
    """Read one message; None at a clean end of the stream. Raises ProtocolError on a torn or oversized one."""
    prefix = stream.read(_PREFIX.size)
    if not prefix:
        return None
    if len(prefix) < _PREFIX.size:
        raise ProtocolError("the trainer died in the middle of a message")
    header_size, payload_size = _PREFIX.unpack(prefix)
    if header_size > MAX_HEADER or payload_size > MAX_PAYLOAD:
        raise ProtocolError(f"a message of {header_size} + {payload_size} bytes is over the limit")
    header, payload = stream.read(header_size), stream.read(payload_size)
    if len(header) < header_size or len(payload) < payload_size:
        raise ProtocolError("the trainer died in the middle of a message")
    return _from_trainer.validate_json(header), payload


def split_payload(flush: Flush, payload: bytes) -> Iterator[tuple[str, bytes]]:
    """Each group of a flush and its Arrow stream."""
    start = 0
    for group in flush.groups:
        yield group.group, payload[start : start + group.size]
        start += group.size
