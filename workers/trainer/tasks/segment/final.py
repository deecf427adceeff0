"""The final scores of prompted segmentation, from which verdicts are computed.

The site and head are chosen on the validation split and scored once on the test split. Baselines: an untrained model,
other prompts, and the share of the area.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from experiments.spec import CocoData, ScenesData, SegmentSpec
from workers.trainer.data.images.samples import Sample, Splits
from workers.trainer.nets.segmenter import Segmenter
from workers.trainer.tasks.segment.attention_rows import Evaluator, Head, distinguished, query_attention, word_attention
from workers.trainer.tasks.segment.average_precision import AveragePrecision
from workers.trainer.tasks.segment.edges import same_object
from workers.trainer.tasks.segment.kinds import cross_gradients, kind_names, kind_values
from workers.trainer.tasks.segment.linear_probes.scenes import EDGE_NAMES, PROBE_NAMES, Folds, edge_values, probe_values
from workers.trainer.tasks.segment.losses import segment_losses
from workers.trainer.tasks.segment.measures import SCORES, Tally, mean_of

# Samples at most: to choose heads; to score attention; to train probes, and as many to score them. They keep the
# final scores of a model of 64² pixels under a minute on two cores.
SELECTION, SCORED, PROBED = 128, 256, 128
AP_FINALS = ("mask_ap", "mask_ap50", "box_ap", "box_ap50")  # of AP_METRICS, in its order
BASELINES = ("shuffled/prompt_iou", "untrained/prompt_iou", "always_yes/presence_accuracy")
WORDS = ("text_mass", "text_pointing", "untrained/text_mass", "swapped/text_mass")
EDGES = ("same_object", "same_object_chance", "untrained/same_object", "untrained/same_object_chance")


def final_names(spec: SegmentSpec) -> tuple[str, ...]:
    """Names of what `Final.values` returns, which depend on the data and the model."""
    names = [*SCORES, *BASELINES, *AP_FINALS]
    names += ["area", "query_mass", *EDGES, *kind_names(spec.model), "cross_grad/self", "cross_grad/cross"]
    if spec.model.text_to_image:
        swaps = not isinstance(spec.data, CocoData)  # its images may all show a single category
        names += [name for name in WORDS if swaps or name != "swapped/text_mass"]
    if isinstance(spec.data, ScenesData):
        both = [*PROBE_NAMES, *EDGE_NAMES]
        names += [*both, *(f"untrained/{name}" for name in both), *(f"control/{name}" for name in PROBE_NAMES)]
        names += ["compositional/prompt_iou"] if spec.data.held_out else []
    return tuple(names)


class Final:
    """Scores a model and its untrained copy."""

    def __init__(self, spec: SegmentSpec, splits: Splits, device: torch.device) -> None:
        self.spec, self.splits = spec, splits
        self.evaluator = Evaluator(spec.loss, spec.model.patch, device)
        self.val, self.test = splits.val.first(SELECTION), splits.test.first(splits.test.size)
        self.scored = self.test[:SCORED]

    def values(self, model: Segmenter, untrained: Segmenter) -> dict[str, float]:
        values = self._scores(model) | self._baselines(model, untrained)
        if all(any(sample.hits for sample in part) for part in (self.val, self.scored)):
            values |= self._attention(model, untrained) | self._kinds(model)
        else:  # no prompt has a target
            values = dict.fromkeys(final_names(self.spec), math.nan) | values
        if isinstance(self.spec.data, ScenesData):
            values |= self._probes(model, untrained)
        if self.splits.compositional is not None:
            unseen = self.splits.compositional.first(self.splits.test.size)
            values["compositional/prompt_iou"] = self._prompt_iou(model, unseen)
        return {name: values[name] for name in final_names(self.spec)}

    def _scores(self, model: Segmenter) -> dict[str, float]:
        tally, precision = Tally(), AveragePrecision()
        for forward in self.evaluator.run(model, self.test):
            tally.add(forward.predictions, forward.batch, forward.matches)
            precision.add(forward.predictions, forward.batch, [sample.category for sample in forward.samples])
        return dict(zip(AP_FINALS, precision.values().values(), strict=True)) | tally.means()

    def _baselines(self, model: Segmenter, untrained: Segmenter) -> dict[str, float]:
        """Shuffled: each prompt with targets is given with another such prompt's image."""
        positive = [sample for sample in self.test if sample.hits]
        others = [sample.prompt for sample in positive[1:] + positive[:1]]
        return {
            "shuffled/prompt_iou": self._prompt_iou(model, positive, others),
            "untrained/prompt_iou": self._prompt_iou(untrained, positive),
            "always_yes/presence_accuracy": len(positive) / len(self.test),
        }

    def _prompt_iou(self, model: Segmenter, samples: Sequence[Sample], prompts: Sequence[str] = ()) -> float:
        tally = Tally()
        for forward in self.evaluator.run(model, samples, prompts):
            tally.add(forward.predictions, forward.batch, forward.matches)
        return tally.means()["prompt_iou"]

    def _attention(self, model: Segmenter, untrained: Segmenter) -> dict[str, float]:
        trained = self._masses(model, ("text_mass", "text_pointing", "swapped/text_mass", "query_mass", *EDGES[:2]))
        before = self._masses(untrained, ("text_mass", *EDGES[:2]))
        return trained | {f"untrained/{name}": value for name, value in before.items()}

    def _masses(self, model: Segmenter, wanted: Sequence[str]) -> dict[str, float]:
        """Of the head that is best on the validation split: mass and pointing of the words, mass of the queries,
        mass of edges on their own thing and by chance."""
        val = self._means(model, self.val)
        test = self._means(model, self.scored)
        head = {name: _best(means) for name, means in val.items()}
        values = {"area": test["area"]["", 0], "query_mass": test["query_mass"][head["query_mass"]]}
        values |= {name: test[name][head["same_object_gain"]] for name in EDGES[:2]}
        if self.spec.model.text_to_image:
            values |= {name: test[name][head["text_mass"]] for name in ("text_mass", "text_pointing")}
            apart = distinguished(self.scored)
            if "swapped/text_mass" in wanted and apart[0].other:
                other = self._means(model, apart, [sample.other for sample in apart])
                values["swapped/text_mass"] = other["text_mass"][head["text_mass"]]
        return {name: values[name] for name in ("area", *wanted) if name in values}

    def _means(
        self, model: Segmenter, samples: Sequence[Sample], prompts: Sequence[str] = ()
    ) -> dict[str, dict[Head, float]]:
        """Means by measure and head. Words and queries: over prompts with distractors; edges: over all prompts."""
        patch = self.spec.model.patch
        kept: dict[str, dict[Head, list[Tensor]]] = {}
        for forward in self.evaluator.run(model, distinguished(samples), prompts):
            _keep(kept, "area", {("", 0): forward.cover(patch).sum(1).clamp(max=1).mean(-1)})
            _keep(kept, "query_mass", query_attention(forward, patch))
            for head, (mass, hits) in word_attention(forward, patch).items():
                _keep(kept, "text_mass", {head: mass})
                _keep(kept, "text_pointing", {head: hits})
        for forward in () if prompts else self.evaluator.run(model, [sample for sample in samples if sample.hits]):
            for head, (mass, chance) in same_object(forward, patch).items():
                _keep(kept, "same_object", {head: mass})
                _keep(kept, "same_object_chance", {head: chance})
                _keep(kept, "same_object_gain", {head: mass - chance})
        return {name: {head: mean_of(values) for head, values in heads.items()} for name, heads in kept.items()}

    def _kinds(self, model: Segmenter) -> dict[str, float]:
        forward = next(self.evaluator.run(model, [sample for sample in self.test if sample.hits]))
        with torch.enable_grad():
            batch = forward.batch
            terms, _ = segment_losses(model(*batch.inputs), batch, self.spec.loss)
            values = kind_values(model, forward, self.spec.model.patch, terms["total"])
        return values | cross_gradients(model, forward)

    def _probes(self, model: Segmenter, untrained: Segmenter) -> dict[str, float]:
        folds = Folds(self.splits.train.first(PROBED), self.val, self.test[:PROBED])
        values = probe_values(self.evaluator, model, folds, controls=True) | edge_values(self.evaluator, model, folds)
        before = probe_values(self.evaluator, untrained, folds, controls=False) | edge_values(
            self.evaluator, untrained, folds
        )
        return values | {f"untrained/{name}": value for name, value in before.items()}


def _keep(kept: dict[str, dict[Head, list[Tensor]]], name: str, by_head: Mapping[Head, Tensor]) -> None:
    for head, values in by_head.items():
        kept.setdefault(name, {}).setdefault(head, []).append(values)


def _best(means: Mapping[Head, float]) -> Head:
    return max(means, key=lambda head: means[head])
