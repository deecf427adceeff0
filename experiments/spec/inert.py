"""Settings without effect: fields whose value is not the default, in runs that do not read them. Pure.

Only what certainly has no effect is named. A field that has an effect in one cell of a matrix is used. A resolved spec
that is sent again has every field written out, so its fields are not checked.
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

_LIBRARY = "training uses the library's own loss; loss weights apply to scenes only"


def inert(spec: Spec) -> dict[str, str]:
    """The fields that this spec's run does not read: dotted path → reason."""
    return {**_of_optimizer(spec), **_of_loss(spec), **_of_attention(spec)}


def unused(specs: Iterable[Spec]) -> Iterator[FieldError]:
    """The fields that none of these runs reads and that all have at the same value other than the default. Where runs
    differ in such a field, the experiment gets an alarm (experiments/verdicts/sameness.py)."""
    each = list(specs)
    reasons = [inert(spec) for spec in each]
    for path in sorted(set.intersection(*map(set, reasons))) if reasons else ():
        if all(_is_chosen(spec, path) for spec in each) and len({_value(spec, path) for spec in each}) == 1:
            yield FieldError(tuple(path.split(".")), f"has no effect: {reasons[0][path]}; leave it out")


def is_whole(raw: Mapping[str, Any], spec: Spec) -> bool:
    """Whether the raw spec has every field, as a resolved one has."""
    return dict(flatten(resolved(spec))).keys() <= dict(flatten(raw)).keys()


def dropped_seed(spec: Spec, seeds: Sequence[int]) -> list[FieldError]:
    """An error where the spec's own seed is not one of those to be trained."""
    if spec.seed == 0 or not seeds or spec.seed in seeds:
        return []
    return [FieldError(("spec", "seed"), "has no effect: `seeds` sets the seeds to train; leave it out")]


def _is_chosen(spec: Spec, path: str) -> bool:
    above, _, name = path.rpartition(".")
    return bool(_value(spec, path) != type(_value(spec, above)).model_fields[name].get_default())


def _value(spec: Spec, path: str) -> Any:
    return reduce(getattr, path.split("."), spec)


def _of_optimizer(spec: Spec) -> dict[str, str]:
    optimizer = spec.optimizer
    names = ("momentum",) if optimizer.name == "adamw" else ("beta1", "beta2")
    reasons = {f"optimizer.{name}": f"optimizer.name is {optimizer.name}" for name in names}
    if optimizer.schedule != "step":
        names = ("drop_every", "drop_factor")
        reasons |= {f"optimizer.{name}": f"optimizer.schedule is {optimizer.schedule}" for name in names}
    return reasons


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
    reasons = _of_variants(spec.model)
    attention = spec.model.attention
    if any(map(is_plugin, attention.variants)):  # a package's class may read what ours does not
        return reasons
    if attention.init != "normal":
        reasons["model.attention.init_std"] = f"model.attention.init is {attention.init}"
    if {attention.of(kind).variant for kind in spec.model.kinds} == {"uniform"}:
        reasons["model.attention.scale"] = "sites of the variant uniform have no logits to scale"
    return reasons


def _of_variants(model: Transformer) -> dict[str, str]:
    by_kind, prefix = model.attention.by_kind, "model.attention"
    lacking = [kind for kind in ByKind.model_fields if kind not in model.kinds]
    reasons = {f"{prefix}.by_kind.{kind}.variant": f"the model has no sites of kind {kind}" for kind in lacking}
    if all(getattr(by_kind, kind).variant is not None for kind in model.kinds):
        reasons[f"{prefix}.variant"] = "by_kind names a variant for every kind of site"
    return reasons
