"""Settings that act nowhere: fields with another value than the default, in runs that do not read them. Pure.

Only what is certain is named. Where a field acts in one cell of a matrix and not in another, it is used. A resolved
spec that is sent again, every field written out, says of itself no more than what was accepted before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from typing import Any

from experiments.spec.sections.attention import ByKind, Transformer
from experiments.spec.sections.data import DigitsData, TextData
from experiments.spec.sections.plugins import is_plugin

from .errors import FieldError
from .sections.training import SegmentLoss
from .spec import HfSpec, Spec, flatten, resolved

_LIBRARY = "the library's own loss is trained; weights count for scenes alone"


def inert(spec: Spec) -> dict[str, str]:
    """The fields that this spec's run does not read, by dotted path, with the reason."""
    return {**_of_optimizer(spec), **_of_loss(spec), **_of_attention(spec)}


def unused(specs: Iterable[Spec]) -> Iterator[FieldError]:
    """The fields that no run of these reads and all have at one value that is not the default. Where runs differ in
    such a field, the experiment is told to vary nothing (experiments/maintenance/alarms.py)."""
    each = list(specs)
    reasons = [inert(spec) for spec in each]
    for path in sorted(set.intersection(*map(set, reasons))) if reasons else ():
        if all(_is_chosen(spec, path) for spec in each) and len({_value(spec, path) for spec in each}) == 1:
            yield FieldError(tuple(path.split(".")), f"has no effect: {reasons[0][path]}; leave it out")


def is_whole(raw: Mapping[str, Any], spec: Spec) -> bool:
    """Whether every field stands in the raw spec, as in a resolved one."""
    return dict(flatten(resolved(spec))).keys() <= dict(flatten(raw)).keys()


def dropped_seed(spec: Spec, seeds: Sequence[int]) -> list[FieldError]:
    """The spec's own seed, where others are trained."""
    if spec.seed == 0 or not seeds or spec.seed in seeds:
        return []
    return [FieldError(("spec", "seed"), "has no effect: `seeds` says which seeds are trained; leave it out")]


def _is_chosen(spec: Spec, path: str) -> bool:
    above, _, name = path.rpartition(".")
    return bool(_value(spec, path) != type(_value(spec, above)).model_fields[name].get_default())


def _value(spec: Spec, path: str) -> Any:
    return reduce(getattr, path.split("."), spec)


def _of_optimizer(spec: Spec) -> dict[str, str]:
    optimizer = spec.optimizer
    names = ("momentum",) if optimizer.name == "adamw" else ("beta1", "beta2")
    found = {f"optimizer.{name}": f"optimizer.name is {optimizer.name}" for name in names}
    if optimizer.schedule != "step":
        names = ("drop_every", "drop_factor")
        found |= {f"optimizer.{name}": f"optimizer.schedule is {optimizer.schedule}" for name in names}
    return found


def _of_loss(spec: Spec) -> dict[str, str]:
    loss = getattr(spec, "loss", None)
    if isinstance(spec, HfSpec) and isinstance(spec.data, TextData | DigitsData):
        return {f"loss.{name}": _LIBRARY for name in type(spec.loss).model_fields}
    if not isinstance(loss, SegmentLoss):
        return {}
    names = ("mask_l2",) if loss.mask_form == "bce_dice" else ("mask_bce", "mask_dice")
    return {f"loss.{name}": f"loss.mask_form is {loss.mask_form}" for name in names}


def _of_attention(spec: Spec) -> dict[str, str]:
    if not isinstance(spec.model, Transformer):
        return {}
    attention, kinds, at = spec.model.attention, spec.model.kinds, "model.attention"
    lacking = [kind for kind in ByKind.model_fields if kind not in kinds]
    found = {f"{at}.by_kind.{kind}.variant": f"the model has no sites of kind {kind}" for kind in lacking}
    if all(getattr(attention.by_kind, kind).variant is not None for kind in kinds):
        found[f"{at}.variant"] = "by_kind names a variant for every kind of site"
    if any(map(is_plugin, attention.variants)):  # its own class may read what ours does not
        return found
    if attention.init != "normal":
        found[f"{at}.init_std"] = f"{at}.init is {attention.init}"
    if {attention.of(kind).variant for kind in kinds} == {"uniform"}:
        found[f"{at}.scale"] = "no site of the variant uniform has logits to scale"
    return found
