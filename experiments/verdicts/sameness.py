"""Alarms of an experiment: variants that differ in name but not in training. Works on rows of any age.

`same_training`: runs differ in a varied training field and have the same effective spec, so the field is overridden or
has no effect on training; comparing such variants shows nothing. `identical`: the specs differ and the recorded series
are equal to the bit, so the field changed nothing here.
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
    """Variants that do not differ. `fields` are the dotted paths in which their specs differ."""

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
    """The alarms for page and report. One query; the effective spec is computed once per variant."""
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
    return [alarm for group in alike.values() if (alarm := _same_training_alarm(group))]


def _same_training_alarm(group: list[_Variant]) -> Alarm | None:
    fields = [path for path in _differing(group) if trains(path)]
    if len(group) < 2 or not fields:
        return None
    names = [label_of(variant.params) for variant in group]
    text = (
        f"{_listed(names)} differ in {_listed(fields)} but train the same: another field overrides it everywhere, or "
        "nothing in this training depends on it. Comparing them shows nothing."
    )
    return Alarm("same_training", fields, names, text)


def _identical(variants: Sequence[_Variant]) -> list[Alarm]:
    """Groups of variants whose series are equal at every seed that two of them share, except those of
    `same_training`."""
    groups: list[list[_Variant]] = []
    by_digest: dict[tuple[int, str], list[int]] = {}
    for variant in variants:
        place = _place(variant, groups, by_digest)
        if place == len(groups):
            groups.append([])
        groups[place].append(variant)
        for key in variant.digests.items():
            by_digest.setdefault(key, []).append(place)
    return [_identical_alarm(group) for group in groups if _trains_apart(group) or _recorded_apart(group)]


def _place(variant: _Variant, groups: list[list[_Variant]], by_digest: Mapping[tuple[int, str], list[int]]) -> int:
    """The first group with equal series, else that of a new one."""
    near = {place for key in variant.digests.items() for place in by_digest.get(key, ())}
    equal = (place for place in sorted(near) if _agree(groups[place][0].digests, variant.digests))
    return next(equal, len(groups))


def _trains_apart(group: list[_Variant]) -> bool:
    return len({variant.training for variant in group}) > 1


def _recorded_apart(group: list[_Variant]) -> bool:
    """Variants that differ only in what is recorded."""
    return len(group) > 1 and not any(map(trains, _differing(group)))


def _agree(digests: Digests, other: Digests) -> bool:
    shared = digests.keys() & other.keys()
    return bool(shared) and all(digests[seed] == other[seed] for seed in shared)


def _identical_alarm(group: list[_Variant]) -> Alarm:
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
