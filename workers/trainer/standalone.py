"""`python -m workers.trainer run spec.yaml --out DIR`: a run with no service at all."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import Any

from experiments.spec import SpecError, parse_spec, resolved
from experiments.spec_yaml import YamlError, dump, load
from workers.protocol import Orders
from workers.trainer.folder import FolderSink
from workers.trainer.loop import Why
from workers.trainer.orders import carry_out


class Interrupt:
    """Ctrl-C asks for an orderly end: a checkpoint first. A second one ends at once."""

    def __init__(self) -> None:
        self.why: Why | None = None
        signal.signal(signal.SIGINT, self._asked)

    def _asked(self, _signal: int, _frame: object) -> None:
        self.why = "cancel"
        signal.signal(signal.SIGINT, signal.default_int_handler)


def main(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    try:
        spec = parse_spec(_read(options.spec))
    except SpecError as error:
        for item in error.errors:
            print(f"{options.spec}: {item.dotted}: {item.message}", file=sys.stderr)
        return 2
    except (OSError, ValueError) as error:
        print(f"{options.spec}: {error}", file=sys.stderr)
        return 2
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    (out / "spec.yaml").write_text(dump(resolved(spec)))
    sink, interrupt = FolderSink(out), Interrupt()
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
    parser.add_argument("spec", type=Path, help="a spec, or a preset file, as YAML or JSON")
    parser.add_argument("--out", type=Path, required=True, help="folder for frames, checkpoints, pictures and the log")
    parser.add_argument("--checkpoint", type=Path, help="go on from this checkpoint of the same spec")
    return parser


def _read(path: Path) -> Any:
    """A spec file; of a preset file, its spec."""
    try:
        raw = load(path.read_text("utf-8"))
    except YamlError as error:
        raise YamlError(f"line {error.line}: {error}" if error.line else str(error)) from None
    return raw["spec"] if isinstance(raw, dict) and isinstance(raw.get("spec"), dict) else raw
