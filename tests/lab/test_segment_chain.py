"""The notes' chain from pred_mask to W_q, every link a formula, against differences of the loss itself."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from experiments.spec import SegmentLoss
from tests.lab.collected import tiny
from workers.trainer.attention.by_hand import through_perceptron
from workers.trainer.data.images.samples import Batch
from workers.trainer.tasks.registry import build_task
from workers.trainer.tasks.segment import chain as segment_chain
from workers.trainer.tasks.segment.task import FOLLOWED, SegmentTask

CPU = torch.device("cpu")
FORMS = ("bce_dice", "l2")


@pytest.fixture(autouse=True)
def _in_double():  # type: ignore[no-untyped-def]
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def _task(form: str, variant: str = "full") -> SegmentTask:
    attention = {"init": "xavier", "by_kind": {"image": {"variant": variant}}}
    spec = tiny("segment", loss={"mask_form": form, "mask_bce": 3}, model={"attention": attention})
    built = build_task(spec, CPU)
    assert isinstance(built, SegmentTask)
    return built


def _batch(built: SegmentTask) -> Batch:
    """The samples that a run's probes follow."""
    return built.validation.batch(range(min(FOLLOWED, built.validation.size)))


@pytest.mark.parametrize("form", FORMS)
def test_the_notes_chain_is_the_difference_quotient_of_the_mask_loss(form: str) -> None:
    """Central differences at entries of W_q, in the forward pass that trains: no autograd on either side."""
    built = _task(form)
    model, batch, loss = copy.deepcopy(built.model).double(), _batch(built), built.spec.loss
    found = segment_chain.gradients_by_hand(model, batch, loss)[2]["W_q"]
    weight = model.decoder[-1].image_attention.W_q
    for place in ((0, 0), (3, 7), (15, 15), (8, 1)):
        difference = _difference(model, batch, loss, weight, place)
        assert difference == pytest.approx(found[place].item(), rel=1e-5, abs=1e-9)
        assert difference != pytest.approx(1.001 * found[place].item(), rel=1e-5, abs=1e-9)


@torch.no_grad()
def _difference(model: nn.Module, batch: object, loss: SegmentLoss, weight: Tensor, place: tuple[int, int]) -> float:
    step, at = 1e-4, weight[place].item()
    ends = []
    for sign in (1, -1):
        weight[place] = at + sign * step
        run = segment_chain.passed(model, batch, loss)  # type: ignore[arg-type]
        ends.append(sum(getattr(loss, name) * run.terms[name].item() for name in run.terms if name.startswith("mask")))
    weight[place] = at
    return float(ends[0] - ends[1]) / (2 * step)


@pytest.mark.parametrize("variant", ["full", "no_q", "tied_qk", "const_q", "uniform"])
@pytest.mark.parametrize("form", FORMS)
def test_every_station_is_autograds(form: str, variant: str) -> None:
    built = _task(form, variant)
    model = copy.deepcopy(built.model).double()
    assert 0 < built.from_loss(model).item() <= 1e-10
    stations = set(segment_chain.gradients_by_hand(model, _batch(built), built.spec.loss)[1])
    assert stations >= {"pred", "queries", "out"}
    assert ("W_q" in stations, "Q" in stations) == (variant in ("full", "tied_qk"), variant != "uniform")


@pytest.mark.parametrize("link", ["through_perceptron", "product", "d_entropy", "d_dice"])
def test_a_link_that_is_off_is_seen(monkeypatch: pytest.MonkeyPatch, link: str) -> None:
    built, right = _task("bce_dice"), getattr(segment_chain, link)
    monkeypatch.setattr(segment_chain, link, lambda *given: right(*given) * (1 + 1e-6))
    assert built.from_loss(copy.deepcopy(built.model).double()).item() > 1e-8


def test_a_mask_that_names_nothing_leaves_no_gradient_and_no_error() -> None:
    built = _task("l2")
    batch = _batch(built)
    batch.valid[:] = False
    assert segment_chain.from_loss(copy.deepcopy(built.model).double(), batch, built.spec.loss).item() == 0


def test_losses_of_a_model_in_double_precision_are_in_double_precision() -> None:
    """A cross-entropy has the precision of its target: masks and presence ended in single precision."""
    built = _task("bce_dice")
    terms = segment_chain.passed(copy.deepcopy(built.model).double(), _batch(built), built.spec.loss).terms
    assert {name: term.dtype for name, term in terms.items()} == dict.fromkeys(terms, torch.float64)


def test_a_perceptron_backwards_is_autograds() -> None:
    torch.manual_seed(0)
    norm, first, second = nn.LayerNorm(6), nn.Linear(6, 9), nn.Linear(9, 4)
    nn.init.normal_(norm.weight)
    x, d_out = torch.randn(2, 3, 6, requires_grad=True), torch.randn(2, 3, 4)
    out = second(nn.functional.gelu(first(norm(x))))
    (expected,) = torch.autograd.grad(out, x, d_out)
    torch.testing.assert_close(through_perceptron(norm, first, second, x, d_out), expected, rtol=1e-12, atol=1e-12)
