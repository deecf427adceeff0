"""A sink that writes a run's messages to a folder: frames as Arrow, a log, and progress on the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import IO

import pyarrow as pa

from workers.frames import decode
from workers.protocol import (
    Artifact,
    Checkpoint,
    Failure,
    Flush,
    Log,
    Message,
    Result,
    Schema,
    Started,
    Stopped,
    split_payload,
)

KEPT = 2  # checkpoints that stay


class FolderSink:
    """`<group>.arrow` (Arrow stream; the names stand in the schema's metadata under `names`), `log.txt`,
    `artifacts.jsonl`. Pictures and the last KEPT checkpoints stay where the trainer wrote them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.loss = float("nan")
        self._names: dict[str, list[str]] = {}
        self._writers: dict[str, pa.ipc.RecordBatchStreamWriter] = {}
        self._checkpoints: list[Path] = []
        self._log: IO[str] = (folder / "log.txt").open("a")

    def __call__(self, message: Message, payload: bytes = b"") -> None:
        match message:
            case Schema():
                self._names[message.group] = message.names
            case Flush():
                self._frames(message, payload)
                self._line(f"{message.hi} steps done, loss {self.loss:.4g}")
            case Log():
                self._line(message.text)
            case Started():
                self._line(f"training {message.parameters:,} parameters on {message.device}")
            case Checkpoint():
                self._keep(Path(message.path))
            case Artifact():
                with (self.folder / "artifacts.jsonl").open("a") as file:
                    file.write(message.model_dump_json() + "\n")
            case Result() | Stopped():
                self._close()
                self._line(f"{message.type} after {message.step} steps")
            case Failure():
                self._close()
                self._line(f"failed ({message.reason}): {message.message}\n{message.traceback}".strip())

    def _frames(self, flush: Flush, payload: bytes) -> None:
        for group, data in split_payload(flush, payload):
            if group == "train":
                self.loss = float(decode(data).values[-1, 0])
            with pa.ipc.open_stream(data) as reader:
                for batch in reader:
                    self._writer(group, batch.schema).write_batch(batch)

    def _writer(self, group: str, schema: pa.Schema) -> pa.ipc.RecordBatchStreamWriter:
        if group not in self._writers:
            named = schema.with_metadata({"names": "\n".join(self._names[group])})
            self._writers[group] = pa.ipc.new_stream(str(self.folder / f"{group}.arrow"), named)
        return self._writers[group]

    def _keep(self, path: Path) -> None:
        self._checkpoints.append(path)
        while len(self._checkpoints) > KEPT:
            self._checkpoints.pop(0).unlink(missing_ok=True)

    def _line(self, text: str) -> None:
        print(text, flush=True)
        self._log.write(text + "\n")
        self._log.flush()

    def _close(self) -> None:
        for writer in self._writers.values():
            writer.close()
