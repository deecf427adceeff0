"""`python -m workers.trainer run spec.yaml --out DIR`: a run without the service."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from experiments.spec import SpecError, resolved
from experiments.spec.yaml_text import dump
from workers.protocol import Log, Orders, StopReason
from workers.trainer.entry.orders import carry_out
from workers.trainer.entry.spec_file import read
from workers.trainer.recording.folder import FolderSink


class Interrupt:
    """Ctrl-C saves a checkpoint and stops; a second one stops at once."""

    def __init__(self) -> None:
        self.why: StopReason | None = None
        signal.signal(signal.SIGINT, self._interrupted)

    def _interrupted(self, _signal: int, _frame: object) -> None:
        self.why = "cancel"
        signal.signal(signal.SIGINT, signal.default_int_handler)


def main(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    try:
        named = read(options.spec)
        _is_free(options.out)
    except SpecError as error:
        for field_error in error.errors:
            print(f"{options.spec}: {field_error.dotted}: {field_error.message}", file=sys.stderr)
        return 2
    except (OSError, ValueError) as error:
        print(f"{options.spec}: {error}", file=sys.stderr)
        return 2
    out, spec = options.out, named.spec
    out.mkdir(parents=True, exist_ok=True)
    (out / "spec.yaml").write_text(dump(resolved(spec)))
    sink, interrupt = FolderSink(out), Interrupt()
    if named.left_out:
        sink(Log(text=f"{options.spec}: {named.left_out}"))
    orders = Orders(
        run=0,
        fence=0,
        spec=resolved(spec),
        scratch=str(out),
        checkpoint=str(options.checkpoint) if options.checkpoint else None,
    )
    return 0 if carry_out(orders, sink, lambda: interrupt.why) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m workers.trainer run", description=__doc__)
    parser.add_argument(
        "spec", type=Path, help="a spec, a body of REST that makes one run, or a preset file, as YAML or JSON"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="new folder for frames, checkpoints, pictures and the log"
    )
    parser.add_argument("--checkpoint", type=Path, help="resume from this checkpoint of the same spec")
    return parser


def _is_free(out: Path) -> None:
    """Raises ValueError for a folder with files: results of two runs would mix."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"--out {out} is not an empty folder: name a new one, also to resume from a checkpoint in it")
