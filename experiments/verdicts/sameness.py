"""The alarm of an experiment: variants that differ in name and not in training. Works on rows of any age.

Red: runs differ in a varied training field and have the same effective spec, so the field was overridden or has no
part in the training; a difference between such variants is no finding, and neither is their likeness. Neutral: the
specs differ and the recorded series are equal to the bit, so the field changed nothing here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from experiments.models import Experiment
from experiments.spec import flatten
from experiments.spec.effective import effective, trains

from .report import label_of

Digests = dict[int, str]  # seed → digest of its series


@dataclass(frozen=True)
class Alarm:
    """Variants that are one. `fields` are the dotted paths in which they differ by name."""

    kind: Literal["same_training", "identical"]
    fields: list[str]
    variants: list[str]
    text: str


@dataclass
class _Variant:
    """One combination of parameters; `training` is its effective spec as text."""

    params: Mapping[str, Any]
    training: str
    digests: Digests = field(default_factory=dict)


def alarms_of(experiment: Experiment) -> list[Alarm]:
    """What the page and the report have to say. One query; an effective spec is made once a variant."""
    variants: dict[str, _Variant] = {}
    rows = experiment.runs.order_by("index").values_list("params", "spec", "seed", "series_digest")
    for params, spec, seed, digest in rows:
        key = json.dumps(params, sort_keys=True)
        if key not in variants:
            variants[key] = _Variant(params, json.dumps(effective(spec), sort_keys=True))
        if len(digest) == 64:
            variants[key].digests[seed] = digest
    return [*_same_training(list(variants.values())), *_identical(list(variants.values()))]


def _same_training(variants: Sequence[_Variant]) -> list[Alarm]:
    alike: dict[str, list[_Variant]] = {}
    for variant in variants:
        alike.setdefault(variant.training, []).append(variant)
    return [alarm for group in alike.values() if (alarm := _red(group))]


def _red(group: list[_Variant]) -> Alarm | None:
    fields = [path for path in _differing(group) if trains(path)]
    if len(group) < 2 or not fields:
        return None
    names = [label_of(variant.params) for variant in group]
    text = (
        f"{_listed(names)} differ in {_listed(fields)} and train the same: another field overrides it at every "
        "place, or nothing in this training depends on it. What the report says of them is no finding."
    )
    return Alarm("same_training", fields, names, text)


def _identical(variants: Sequence[_Variant]) -> list[Alarm]:
    """Groups of variants whose series are equal at every seed that two of them share; red ones are not repeated."""
    groups: list[list[_Variant]] = []
    places: dict[tuple[int, str], list[int]] = {}
    for variant in variants:
        near = {at for key in variant.digests.items() for at in places.get(key, ())}
        at = next((at for at in sorted(near) if _agree(groups[at][0].digests, variant.digests)), len(groups))
        if at == len(groups):
            groups.append([])
        groups[at].append(variant)
        for key in variant.digests.items():
            places.setdefault(key, []).append(at)
    return [_neutral(group) for group in groups if len({variant.training for variant in group}) > 1 or _kept(group)]


def _kept(group: list[_Variant]) -> bool:
    """Variants that differ in what is recorded alone."""
    return len(group) > 1 and not any(map(trains, _differing(group)))


def _agree(one: Digests, other: Digests) -> bool:
    shared = one.keys() & other.keys()
    return bool(shared) and all(one[seed] == other[seed] for seed in shared)


def _neutral(group: list[_Variant]) -> Alarm:
    fields, names = _differing(group), [label_of(variant.params) for variant in group]
    text = f"{_listed(names)} are identical to the bit: {_listed(fields)} changed nothing here."
    return Alarm("identical", fields, names, text)


def _differing(group: Sequence[_Variant]) -> list[str]:
    """The leaves of the parameters in which some variants of the group differ."""
    leaves = [dict(flatten(variant.params)) for variant in group]
    paths = dict.fromkeys(path for own in leaves for path in own)
    return [path for path in paths if len({json.dumps(own.get(path, "absent")) for own in leaves}) > 1]


def _listed(names: Sequence[str], most: int = 8) -> str:
    shown = [*names[:most], *([f"{len(names) - most} more"] if len(names) > most else [])]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
