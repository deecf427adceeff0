"""Probes of a segmenter's encoder: what Q, K, V and the input X of its self-attention tell about a patch, and what a
thing's edge tells about its size before and after attention.

The layer is chosen on the validation split, separately for each feature and target, and scored once on the test split.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from workers.trainer.attention.sites import sites
from workers.trainer.data.images.samples import Sample
from workers.trainer.data.tokens.lookups import Ints
from workers.trainer.nets.segmenter import Segmenter
from workers.trainer.tasks.segment.attention_rows import Evaluator, ForwardPass
from workers.trainer.tasks.segment.edges import edges
from workers.trainer.tasks.segment.linear_probes.linear import Floats, Fold, classify, control, regress
from workers.trainer.tasks.segment.linear_probes.patches import CLASSES, NONE, TARGETS, truth

FEATURES = ("q", "k", "v", "x")
ROWS = 2000  # patches that a probe trains on or is scored on, at most
PROBE_NAMES = tuple(f"probe/{feature}/{target}" for feature in FEATURES for target in TARGETS)
EDGE_NAMES = ("edge_size/before", "edge_size/after")


@dataclass(frozen=True)
class Folds:
    """Scenes to train probes, to choose a layer, and to score."""

    train: Sequence[Sample]
    val: Sequence[Sample]
    test: Sequence[Sample]

    def each(self) -> tuple[Sequence[Sample], Sequence[Sample], Sequence[Sample]]:
        return self.train, self.val, self.test


@dataclass(frozen=True)
class Patches:
    """Chosen patches of one split: features [n, M] by (site, feature), classes [n], and positions [n]."""

    features: dict[tuple[str, str], Floats]
    classes: Ints
    positions: Ints

    def fold(self, site: str, feature: str) -> Fold:
        return Fold(self.features[site, feature], self.classes)


def probe_values(evaluator: Evaluator, model: Segmenter, folds: Folds, *, controls: bool) -> dict[str, float]:
    """Balanced accuracies by PROBE_NAMES; with `controls` the same under `control/` for the control task."""
    parts = [_patches(evaluator, model, samples) for samples in folds.each()]
    values: dict[str, float] = {}
    for feature in FEATURES:
        for target in TARGETS:
            train, val, test = (part[target] for part in parts)
            layers = sorted({site for site, own in train.features if own == feature})
            best = max(layers, key=lambda site: classify(train.fold(site, feature), val.fold(site, feature)))
            name = f"probe/{feature}/{target}"
            values[name] = classify(train.fold(best, feature), test.fold(best, feature))
            if controls:
                pair = [
                    Fold(own.features[best, feature], control(own.positions, CLASSES[target])) for own in (train, test)
                ]
                values[f"control/{name}"] = classify(*pair)
    return values


def edge_values(evaluator: Evaluator, model: Segmenter, folds: Folds) -> dict[str, float]:
    """R² of the width and height of a thing's visible box, read from its edge patches before and after the encoder's
    self-attention, in the layer where attention adds most on the validation split."""
    train, val, test = (_edge_folds(evaluator, model, samples) for samples in folds.each())

    def added(layer: int) -> float:
        before, after = (regress(train[layer, when], val[layer, when]) for when in ("before", "after"))
        return after - before

    best = max(sorted({layer for layer, _ in train}), key=added)
    return {f"edge_size/{when}": regress(train[best, when], test[best, when]) for when in ("before", "after")}


def _patches(evaluator: Evaluator, model: Segmenter, samples: Sequence[Sample]) -> dict[str, Patches]:
    truths = [truth(sample, evaluator.patch) for sample in samples]
    classes = {name: np.stack([own[name] for own in truths]) for name in TARGETS}
    chosen = {name: _some(np.flatnonzero(known.ravel() != NONE)) for name, known in classes.items()}
    kept: defaultdict[str, defaultdict[tuple[str, str], list[Floats]]] = defaultdict(lambda: defaultdict(list))
    count, start = classes["edge"].shape[1], 0
    for forward in evaluator.run(model, samples):
        stop = start + forward.batch.images.shape[0] * count
        here = {name: rows[(rows >= start) & (rows < stop)] - start for name, rows in chosen.items()}
        for key, features in _features(model, forward).items():
            flat = features.detach().flatten(0, 1).cpu().numpy()  # const_q's Q is a parameter
            for name, rows in here.items():
                kept[name][key].append(flat[rows])
        start = stop
    return {name: _joined(kept[name], classes[name], rows, count) for name, rows in chosen.items()}


def _joined(parts: dict[tuple[str, str], list[Floats]], classes: Ints, rows: Ints, count: int) -> Patches:
    features = {key: np.concatenate(stretches) for key, stretches in parts.items()}
    return Patches(features, classes.ravel()[rows], rows % count)


def _features(model: Segmenter, forward: ForwardPass) -> dict[tuple[str, str], Tensor]:
    """Q, K, V (all heads side by side) and X of the encoder's self-attention: BNM each."""
    features: dict[tuple[str, str], Tensor] = {}
    for name, site in sites(model).items():
        if name.startswith("encoder.") and name.endswith(".self"):
            tap = forward.taps[name]
            heads = (tap.q_BHTD, tap.k_BHSD, tap.v_BHSE)
            features |= {(name, feature): site.merge(made) for feature, made in zip("qkv", heads, strict=True)}
            features[name, "x"] = tap.x_BTM
    return features


def _edge_folds(evaluator: Evaluator, model: Segmenter, samples: Sequence[Sample]) -> dict[tuple[int, str], Fold]:
    streams: list[Tensor] = []
    hooks = [layer.register_forward_pre_hook(_keeper(streams)) for layer in model.encoder]
    kept: dict[tuple[int, str], list[Floats]] = {}
    sizes: list[Floats] = []
    try:
        for forward in evaluator.run(model, samples):
            edge = edges(forward, evaluator.patch)
            sizes.append(forward.batch.boxes[edge.rows, edge.targets, 2:].cpu().numpy())
            for layer, before in enumerate(streams):
                after = before + forward.taps[f"encoder.{layer}.self"].out_BTM
                for when, stream in (("before", before), ("after", after)):
                    kept.setdefault((layer, when), []).append(stream[edge.rows, edge.patches].cpu().numpy())
            streams.clear()
    finally:
        for hook in hooks:
            hook.remove()
    sizes_of_all = np.concatenate(sizes)
    some = _some(np.arange(len(sizes_of_all)))
    return {key: Fold(np.concatenate(parts)[some], sizes_of_all[some]) for key, parts in kept.items()}


def _keeper(streams: list[Tensor]) -> Callable[[torch.nn.Module, tuple[Tensor, ...]], None]:
    def keep(_layer: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
        streams.append(inputs[0])

    return keep


def _some(rows: Ints) -> Ints:
    """At most ROWS of them, always the same, in order."""
    if len(rows) <= ROWS:
        return rows
    return np.sort(np.random.default_rng(0).choice(rows, ROWS, replace=False))
