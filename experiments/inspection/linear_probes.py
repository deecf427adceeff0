"""What linear probes read from Q, K, V and the input of a run, compared with an untrained net and a control task."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

from experiments import store

VECTORS = ("q", "k", "v", "x")
PROPERTIES = ("edge", "colour", "class", "position")
BASELINES = {"trained": "", "untrained": "untrained/", "control": "control/"}
MISSING = (
    "this run has no probes: they are fitted once, after the last step, by segmentation runs on scenes; "
    "see the preset what-qkv-learn"
)


@dataclass(frozen=True)
class Probe:
    """Balanced accuracy of one probe; None where it was not fitted."""

    vector: str
    property: str
    trained: float | None
    untrained: float | None
    control: float | None


def probes(run_id: int) -> list[Probe]:
    """By property, then by vector; empty for a run without."""
    names: dict[tuple[str, str], list[str]] = {}
    for of in PROPERTIES:
        for vector in VECTORS:
            names[vector, of] = [f"test/{prefix}probe/{vector}/{of}" for prefix in BASELINES.values()]
    last = store.last_values([run_id], list(chain.from_iterable(names.values()))).get(run_id, {})
    fitted = [Probe(*key, *map(last.get, baselines)) for key, baselines in names.items()]
    return [probe for probe in fitted if probe.trained is not None]
