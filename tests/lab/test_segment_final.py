"""The final scores of prompted segmentation: names, choices on validation, edges, kinds, average precision."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from experiments.spec.sections.attention_names import Variant
from tests.lab.collected import tiny, train_collected
from workers.protocol import Schema
from workers.trainer.attention.sites import matrices, sites
from workers.trainer.data.images.samples import Sample
from workers.trainer.nets.segmenter import Predictions
from workers.trainer.tasks.segment.attention_rows import Evaluator, distinguished, text_maps, word_attention
from workers.trainer.tasks.segment.average_precision import AveragePrecision
from workers.trainer.tasks.segment.edges import edges, same_object
from workers.trainer.tasks.segment.final import Final, final_names
from workers.trainer.tasks.segment.kinds import cross_gradients, gradient_norms
from workers.trainer.tasks.segment.measures import Tally
from workers.trainer.tasks.segment.task import SegmentTask

SCENES = {
    "dataset": "scenes",
    "canvas": 32,
    "train_size": 24,
    "val_size": 12,
    "test_size": 20,
    "distractors": 0.8,
    "held_out": ["red tree"],
}


def _task(**model: object) -> SegmentTask:
    # patches of 4, so that a thing of a dozen pixels has an inside
    sizes = {"patch": 4, "text_to_image": True, "encoder_layers": 2, "attention": {"init": "xavier"}}
    task = SegmentTask(tiny("segment", data=SCENES, model={**sizes, **model}), torch.device("cpu"))  # type: ignore[arg-type]
    task.model.eval()
    return task


def _evaluator(task: SegmentTask) -> Evaluator:
    return Evaluator(task.spec.loss, task.spec.model.patch, torch.device("cpu"))


def test_every_final_that_is_promised_is_written_once_at_the_last_step(tmp_path: Path) -> None:
    spec = tiny("segment", data=SCENES, model={"text_to_image": True, "patch": 4}, train={"steps": 2})
    sink, _ = train_collected(spec, tmp_path)
    found = sink.series("test")
    own = {name for name in found if not name.startswith("test/chain_error/")}
    assert own == {f"test/{name}" for name in final_names(spec)}  # type: ignore[arg-type]
    assert all(steps.tolist() == [1] and np.isfinite(values).all() for steps, values in found.values())
    wanted = {"prompt_iou", "text_mass", "swapped/text_mass", "compositional/prompt_iou", "kind/text_to_image/mass"}
    wanted |= {"untrained/probe/q/edge", "control/probe/x/class", "edge_size/after", "cross_grad/cross", "mask_ap"}
    assert {f"test/{name}" for name in wanted} <= set(found)


@pytest.mark.parametrize("variant", get_args(Variant))
def test_every_attention_variant_reaches_its_last_score(variant: str, tmp_path: Path) -> None:
    spec = tiny(
        "segment",
        data=SCENES,
        model={"text_to_image": True, "patch": 4, "attention": {"variant": variant}},
        train={"steps": 2},
    )
    sink, outcome = train_collected(spec, tmp_path)
    assert outcome.stopped is None
    found = sink.series("test")
    assert {f"test/{name}" for name in final_names(spec)} <= set(found)  # type: ignore[arg-type]
    assert all(np.isfinite(values).all() for _, values in found.values())


def test_a_spec_can_leave_the_last_score_out(tmp_path: Path) -> None:
    sink, _ = train_collected(tiny("segment", record={"finals": False}, train={"steps": 2}), tmp_path)
    assert "test" not in {schema.group for schema in sink.of(Schema)}


def test_the_last_score_is_the_same_twice_and_leaves_weights_and_gradients_alone() -> None:
    task = _task()
    for parameter in task.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    final = Final(task.spec, task.splits, torch.device("cpu"))
    values = [final.values(task.model, task.untrained().eval()) for _ in range(2)]
    assert values[0] == values[1]
    assert all(torch.equal(value, before[name]) for name, value in task.model.state_dict().items())
    assert all(torch.equal(parameter.grad, torch.ones_like(parameter)) for parameter in task.model.parameters())  # type: ignore[arg-type]


def test_an_untrained_net_scores_like_itself() -> None:
    task = _task()
    values = Final(task.spec, task.splits, torch.device("cpu")).values(task.model, task.untrained().eval())
    assert values["text_mass"] == values["untrained/text_mass"]
    assert values["same_object"] == values["untrained/same_object"]


def test_the_head_is_chosen_on_validation_and_not_on_test() -> None:
    task = _task()
    final = Final(task.spec, task.splits, torch.device("cpu"))
    val, test = (_text_masses(task, part) for part in (final.val, final.scored))
    chosen = max(val, key=lambda head: val[head])
    told = final.values(task.model, task.untrained().eval())["text_mass"]
    assert told == pytest.approx(test[chosen], rel=1e-6)
    assert chosen != max(test, key=lambda head: test[head]), "the best on test is another: it would show"


def _text_masses(task: SegmentTask, samples: Sequence[Sample]) -> dict[Any, float]:
    """Mean mass of the words on what they name, by head."""
    kept: dict[Any, list[torch.Tensor]] = {}
    for forward in _evaluator(task).run(task.model, distinguished(samples)):
        for head, (mass, _) in word_attention(forward, task.spec.model.patch).items():
            kept.setdefault(head, []).append(mass)
    return {head: float(torch.cat(masses).mean()) for head, masses in kept.items()}


def test_words_that_only_look_at_the_object_have_all_their_mass_on_it() -> None:
    task = _task()
    forward = next(_evaluator(task).run(task.model, distinguished(task.splits.val.first(12))))
    wanted = forward.cover(4).sum(1)
    assert text_maps(forward)
    for site, maps in text_maps(forward).items():
        torch.testing.assert_close(maps.sum(-1), torch.ones(maps.shape[:2]))
        mass, hits = word_attention(forward, 4)[site, 1]
        torch.testing.assert_close(mass, (maps[:, 1] * wanted).sum(-1))
        by_hand = [float(wanted[row, maps[row, 1].argmax()] >= 0.5) for row in range(len(wanted))]
        assert hits.tolist() == by_hand


def test_edges_lie_on_their_thing_and_touch_its_outside() -> None:
    task = _task()
    samples = [sample for sample in task.splits.test.first(20) if sample.hits]
    forward = next(_evaluator(task).run(task.model, samples))
    found = edges(forward, 4)
    assert len(found.patches) > 10
    for row, patch, cover in zip(found.rows, found.patches.tolist(), found.cover, strict=True):
        grid = np.pad(cover.view(8, 8).numpy(), 1)
        y, x = patch // 8 + 1, patch % 8 + 1
        assert grid[y, x] >= 0.5
        assert min(grid[y - 1, x], grid[y + 1, x], grid[y, x - 1], grid[y, x + 1]) < 0.5
        assert set(samples[int(row)].hits) & set(samples[int(row)].kinds)


def test_uniform_attention_has_the_mass_that_distance_alone_gives() -> None:
    task = _task(attention={"variant": "uniform"})
    forward = next(_evaluator(task).run(task.model, [s for s in task.splits.test.first(20) if s.hits]))
    assert same_object(forward, 4)
    for mass, chance in same_object(forward, 4).values():
        torch.testing.assert_close(mass, chance)


def test_across_sites_q_comes_from_who_asks_and_k_and_v_from_who_answers() -> None:
    task = _task()
    forward = next(_evaluator(task).run(task.model, task.splits.val.first(4)))
    found = cross_gradients(task.model, forward)
    assert found["cross_grad/cross"] == 0
    assert found["cross_grad/self"] > 0
    leaky = sites(task.model)["decoder.0.image"]
    own = leaky.keys
    leaky.keys = lambda y: own(y) + forward.taps["decoder.0.image"].x_BTM.mean()  # type: ignore[method-assign]
    assert cross_gradients(task.model, forward)["cross_grad/cross"] == 0  # a constant is no gradient
    heard = leaky.queries
    kept: list[torch.Tensor] = []

    def queries(x: torch.Tensor) -> torch.Tensor:
        kept.append(x)
        return heard(x)

    leaky.queries = queries  # type: ignore[method-assign]
    leaky.keys = lambda y: own(y) + kept[-1].mean()  # type: ignore[method-assign]
    assert cross_gradients(task.model, forward)["cross_grad/cross"] > 0


def test_gradient_norms_are_those_of_backward() -> None:
    task = _task()
    batch = task.validation.batch(range(4))
    loss = task.model(*batch.inputs).scores.square().sum()
    found = gradient_norms(task.model, loss)
    task.model.zero_grad()
    task.model(*batch.inputs).scores.square().sum().backward()
    for name, site in sites(task.model).items():
        own = [weight.grad for key, weight in matrices(site).items() if key != "W_o"]
        by_hand = sum(float(grad.double().square().sum()) for grad in own if grad is not None) ** 0.5
        assert found[name] == pytest.approx(by_hand, rel=1e-4)


def test_average_precision_is_one_for_the_truth_and_zero_for_nothing() -> None:
    task = _task()
    batch = task.validation.batch(range(12))
    count, targets = batch.valid.shape
    perfect, empty = AveragePrecision(), AveragePrecision()
    for kind, metric in ((1.0, perfect), (-1.0, empty)):
        metric.add(_Told(batch, kind), batch, [0] * count)  # type: ignore[arg-type]
    assert perfect.values()["ap"] == pytest.approx(1.0)
    assert perfect.values()["box_ap"] == pytest.approx(1.0)
    assert empty.values() == {"ap": 0.0, "ap50": 0.0, "box_ap": pytest.approx(1.0), "box_ap50": pytest.approx(1.0)}
    assert targets == 4


class _Told(Predictions):
    """The truth as if it were found: masks as they are, or empty."""

    def __init__(self, batch: object, kind: float) -> None:
        valid, boxes = batch.valid, batch.boxes  # type: ignore[attr-defined]
        scores = torch.where(valid, 8.0, -8.0)[None]
        super().__init__(scores, boxes[None], torch.where(valid.any(1), 8.0, -8.0)[None], boxes, boxes)
        object.__setattr__(self, "told", kind * (batch.masks.float() * 2 - 1) - (kind < 0) * 2)  # type: ignore[attr-defined]

    def all_masks(self) -> torch.Tensor:
        return self.told  # type: ignore[attr-defined, no-any-return]


def test_what_is_tallied_under_shuffled_prompts_keeps_what_was_wanted() -> None:
    task = _task()
    samples = [sample for sample in task.splits.test.first(20) if sample.hits]
    own, other = Tally(), Tally()
    for tally, prompts in ((own, []), (other, [sample.prompt for sample in samples])):
        for forward in _evaluator(task).run(task.model, samples, prompts):
            tally.add(forward.predictions, forward.batch, forward.matches)
    assert own.means() == other.means()
    assert {"prompt_iou", "mask_iou"} <= own.means().keys()
