"""The part of a resolved spec that training depends on. Pure; reads specs of older versions too.

Only what certainly has no effect is removed: two specs with equal effective forms train the same at the same seed.
The reverse does not hold: specs with different forms may train the same, which the digests of their series show.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from experiments.spec.sections.attention_names import absent

# Fields that say where a run executes, what is evaluated and what is stored.
_NOT_TRAINING = (
    "seed",
    "record",
    "resources",
    "train.eval_every",
    "train.checkpoint_every",
    "train.predictions",
    "train.on_nan",
)
_OF_OTHER_OPTIMIZERS = {"adamw": ("momentum",), "sgd": ("beta1", "beta2")}
_OF_OTHER_MASKS = {"bce_dice": ("mask_l2",), "l2": ("mask_bce", "mask_dice")}
_TOKEN_TASKS = ("classify", "pointer", "roles", "language")


def trains(path: str) -> bool:
    """Whether the field at a dotted path is about the training itself."""
    return not any(path == name or path.startswith(f"{name}.") for name in _NOT_TRAINING)


def effective(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a resolved spec, apart from the seed, that determines the trained weights."""
    tree = copy.deepcopy({name: part for name, part in spec.items() if trains(name)})
    train = tree.get("train", {})
    tree["train"] = {name: value for name, value in train.items() if trains(f"train.{name}")}
    _optimizer(tree.get("optimizer", {}))
    if spec.get("task") == "hf" and spec.get("data", {}).get("dataset") in ("text", "digits"):
        tree.pop("loss", None)  # the library's own loss is trained
    loss = tree.get("loss", {})
    _without(loss, _OF_OTHER_MASKS.get(str(loss.get("mask_form")), ()))
    for section, name in (("data", "held_out"), ("model", "frozen")):  # sets: their order has no effect
        if isinstance(names := tree.get(section, {}).get(name), list):
            tree[section][name] = sorted(set(map(str, names)))
    if kinds := _kinds(spec):
        tree["model"]["attention"] = _attention(tree["model"], kinds)
    return tree


def _optimizer(optimizer: dict[str, Any]) -> None:
    _without(optimizer, _OF_OTHER_OPTIMIZERS.get(str(optimizer.get("name")), ()))
    if optimizer.get("schedule", "step") != "step":
        _without(optimizer, ("drop_every", "drop_factor"))


def _without(section: dict[str, Any], names: tuple[str, ...]) -> None:
    for name in names:
        section.pop(name, None)


def _kinds(spec: Mapping[str, Any]) -> tuple[str, ...]:
    """The kinds of attention site of one of our models; empty for a model of a library or package."""
    if not isinstance(spec.get("model"), Mapping) or not isinstance(spec["model"].get("attention"), Mapping):
        return ()
    if spec.get("task") == "segment":
        return ("self", "text", "image", *(("text_to_image",) if spec["model"].get("text_to_image") else ()))
    return ("self",) if spec.get("task") in _TOKEN_TASKS else ()


def _attention(model: Mapping[str, Any], kinds: tuple[str, ...]) -> dict[str, Any]:
    """Each kind's variant and frozen matrices, instead of a base and its overrides."""
    whole = dict(model["attention"])
    by_kind, variant, frozen = whole.pop("by_kind", {}), whole.pop("variant", "full"), whole.pop("frozen", ())
    variants = {kind: (by_kind.get(kind) or {}).get("variant") or variant for kind in kinds}
    for width in ("d_k", "d_v"):
        if whole.get(width) is None and model.get("heads"):
            whole[width] = model["d_model"] // model["heads"]
    if whole.get("init", "normal") != "normal":
        whole.pop("init_std", None)
    if set(variants.values()) == {"uniform"}:
        whole.pop("scale", None)  # every logit is zero, whatever the scale
    kept = {kind: sorted(set(frozen) - absent(own)) for kind, own in variants.items()}
    return whole | {"variants": variants, "frozen": kept}
