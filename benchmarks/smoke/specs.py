"""The runs that the checks train: small, on the device that is tried."""

from __future__ import annotations

from typing import Any

from experiments.spec import Spec, parse_spec

SIZES = {"d_model": 32, "heads": 4, "ffn": 64}
TOKENS = {**SIZES, "layers": 2}
TASKS: dict[str, dict[str, Any]] = {
    "pointer": {"task": "pointer", "data": {"dataset": "pointer", "val_size": 64, "test_size": 64}, "model": TOKENS},
    "roles": {"task": "roles", "data": {"dataset": "roles", "val_size": 64, "test_size": 64}, "model": TOKENS},
    "scenes": {
        "task": "segment",
        "data": {"dataset": "scenes", "train_size": 64, "val_size": 16, "test_size": 16},
        "model": {**SIZES, "encoder_layers": 1, "decoder_layers": 2},
    },
}


def spec(name: str, device: str, *, seed: int = 0, **sections: dict[str, Any]) -> Spec:
    """`sections` are changed field by field: `spec("roles", "cuda", train={"steps": 3})`."""
    raw: dict[str, Any] = {
        **TASKS[name],
        "seed": seed,
        "optimizer": {"warmup_steps": 1},
        "train": {"steps": 4, "batch_size": 8, "eval_every": 100, "checkpoint_every": 100, "predictions": 0},
        "record": {"probe_every": 100, "finals": False, "maps_every": 0, "histograms": False},
        "resources": {"device": device, "threads": 2},
    }
    for section, values in sections.items():
        raw[section] = {**raw.get(section, {}), **values}
    return parse_spec(raw)
