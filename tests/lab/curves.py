"""Seeded curves of small trainings of every task, and the file that holds those of the newest revision.

`python -m tests.lab.curves` writes the file anew.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from experiments.spec import Spec, parse_spec
from experiments.spec.revision import REVISION
from tests.lab import coco_folder
from tests.lab.collected import Collected, tiny, train_collected
from workers.protocol import Checkpoint

FILE = Path(__file__).with_name("curves.json")
SERIES = ("loss/total", "grad_norm/total")
GROUPS = ("eval", "probe", "test")  # of each, the last row's mean absolute value
# Ratios and errors of the gradient chain came after the curves and are what rounding leaves, not what was trained.
ROUNDING = ("/of_bound", "/fp64", "/fp32_of_bound", "/from_loss_fp64")
Curves = dict[str, list[float]]

WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "classify": ("classify", {"optimizer": {"lr": 0.02, "weight_decay": 0.5}}),
    "language": ("language", {"train": {"accumulate": 2}}),
    "pointer": ("pointer", {"train": {"ema": 0.9}}),
    "pointer-no_q": (
        "pointer",
        {"model": {"attention": {"variant": "no_q"}}, "optimizer": {"name": "sgd", "lr": 0.05}},
    ),
    "roles": ("roles", {"train": {"accumulate": 2}, "optimizer": {"clip_norm": 0.1}}),
    "segment": ("segment", {}),
    "segment-accumulated": ("segment", {"train": {"accumulate": 2}}),
    "segment-scenes": ("segment", {"data": {"dataset": "scenes"}}),
    "segment-coco": ("segment", {"data": {"dataset": "coco", "path": "pictures", "canvas": 32, "val_share": 0.4}}),
}


def specs() -> dict[str, Spec]:
    """By name; the task `hf` is of another library's version and not pinned."""
    return {name: _spec(task, changes) for name, (task, changes) in WAYS.items()}


def _spec(task: str, changes: dict[str, Any]) -> Spec:
    """A data set of another kind stands alone: it knows nothing of the usual one's fields."""
    data = changes.get("data", {})
    raw = tiny(task, **{name: values for name, values in changes.items() if name != "data"}).model_dump(mode="json")
    return parse_spec(raw | ({"data": data} if data else {}))


def curves(spec: Spec) -> Curves:
    with tempfile.TemporaryDirectory() as scratch:
        coco_folder.write(Path(scratch) / "pictures")
        os.environ["ATTN_DATA_ROOT"] = scratch
        sink, _ = train_collected(spec, Path(scratch))
        lines = {"weights": [_rounded(norm) for norm in _norms(sink)]}
    lines |= {name: [_rounded(value) for value in sink.values(name)] for name in SERIES}
    return lines | {group: [_last(sink, group)] for group in GROUPS if sink.series(group)}


def _norms(sink: Collected) -> list[float]:
    """Of all weights at the end, and the smallest of a matrix: what nothing but decay moves shows there."""
    tensors = load_file(sink.of(Checkpoint)[-1].path)
    weights = [value for name, value in tensors.items() if name.startswith("weight/") and value.ndim > 1]
    norms = [float(np.linalg.norm(value)) for value in weights]
    return [float(np.linalg.norm(norms)), min(norms)]


def _last(sink: Collected, group: str) -> float:
    lasting = {name: values for name, (_, values) in sink.series(group).items() if not name.endswith(ROUNDING)}
    lasts = np.array([values[-1] for values in lasting.values()], np.float64)
    return _rounded(np.abs(lasts[np.isfinite(lasts)]).mean())


def _rounded(value: Any) -> float:
    return float(f"{float(value):.7g}")


def pinned() -> tuple[int, dict[str, Curves]]:
    told = json.loads(FILE.read_text())
    return told["revision"], told["curves"]


if __name__ == "__main__":
    made = {name: curves(spec) for name, spec in specs().items()}
    FILE.write_text(json.dumps({"revision": REVISION, "curves": made}, indent=1) + "\n")
