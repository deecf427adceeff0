"""Prompted segmentation for the gradient chain: the loss reads the masks of the matched queries, and the notes' chain,
pred_mask → queries → attention output → softmax → QKᵀ → Q → W_q, is computed by hand from its first link to its last.

Shapes: n matched pairs, H × W pixels of the masks and h × w before they are doubled, B images, Q queries, C mask
channels, M = d_model.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import cast

import torch
from torch import Tensor, nn

from experiments.spec import SegmentLoss
from workers.trainer.attention import Tap
from workers.trainer.attention.by_hand import product, through_perceptron
from workers.trainer.attention.gradient_chain.chain import explicit, follow, last_states, relative_error
from workers.trainer.attention.hooks import taps
from workers.trainer.data.images.samples import Batch
from workers.trainer.nets.segmenter import DecoderLayer, Predictions, Segmenter, doubling
from workers.trainer.tasks.segment.losses import segment_losses
from workers.trainer.tasks.segment.matcher import Matches

MASK_TERMS = ("mask_bce", "mask_dice", "mask_l2")


@dataclass(frozen=True)
class RecordedPredictions(Predictions):
    """Records the mask logits that a loss reads."""

    requested: list[Tensor] = field(default_factory=list)

    def masks(self, rows: Tensor, queries: Tensor) -> Tensor:
        logits = super().masks(rows, queries)
        self.requested.append(logits)
        return logits


@dataclass(frozen=True)
class Passed:
    """A forward pass, its loss terms and the last layer's matches."""

    predictions: RecordedPredictions
    terms: dict[str, Tensor]
    pairs: Matches

    @property
    def pred(self) -> Tensor:
        """The matched queries' mask logits [n, H, W]: the notes' pred_mask."""
        return self.predictions.requested[-1]


def passed(model: nn.Module, batch: Batch, loss: SegmentLoss) -> Passed:
    """In the precision of the model's weights, with a graph."""
    batch = replace(batch, images=batch.images.to(next(model.parameters()).dtype))
    predictions: Predictions = model(*batch.inputs)
    kept = RecordedPredictions(**vars(predictions))
    return Passed(kept, *segment_losses(kept, batch, loss))


def from_loss(model: Segmenter, batch: Batch, loss: SegmentLoss) -> Tensor:
    """The largest relative error of the stations of `gradients_by_hand` against autograd."""
    mask_loss, ends, by_hand = gradients_by_hand(model, batch, loss)
    truth = torch.autograd.grad(mask_loss, list(ends.values()))
    errors = [relative_error(by_hand[name], true, true.new_zeros(())) for name, true in zip(ends, truth, strict=True)]
    return torch.stack(errors).max()


def gradients_by_hand(
    model: Segmenter, batch: Batch, loss: SegmentLoss
) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """The mask loss, the tensors between it and W_q of the last image attention, and its gradient at each of them,
    every link by hand. Other losses reach the queries too and are left out."""
    layer = cast(DecoderLayer, model.decoder[-1])
    site, entering = layer.image_attention, list[Tensor]()
    hook = layer.ffn.register_forward_pre_hook(lambda _module, inputs: entering.append(inputs[0]))
    try:
        with torch.enable_grad(), explicit([site]), taps(model) as seen, last_states(model) as states:
            run = passed(model, batch, loss)
    finally:
        hook.remove()
    tap = seen[f"decoder.{len(model.decoder) - 1}.image"]
    ends = {"pred": run.pred, "queries": states[-1], "out": tap.out_BTM}
    if site.has_query_gradient:
        ends |= {"Q": tap.q_BHTD, **({"W_q": site.W_q} if "W_q" in site.owned else {})}
    terms = [getattr(loss, name) * run.terms[name] for name in MASK_TERMS if name in run.terms]
    return torch.stack(terms).sum(), ends, links_from_loss(model, batch, loss, run, (states[-1], entering[-1], tap))


@torch.no_grad()
def links_from_loss(
    model: Segmenter, batch: Batch, loss: SegmentLoss, run: Passed, seen: tuple[Tensor, Tensor, Tap]
) -> dict[str, Tensor]:
    """The mask loss' gradient at each station. `seen`: the decoder's last states, what entered its last feed-forward
    layer [B, 1 + Q, M], and the call of its last image attention."""
    states, entered, tap = seen
    wanted = batch.masks[run.pairs.rows, run.pairs.targets].to(states.dtype)
    d_pred = d_squares(run.pred, wanted) * loss.mask_l2
    if loss.mask_form == "bce_dice":
        d_pred = d_entropy(run.pred, wanted) * loss.mask_bce + d_dice(run.pred, wanted) * loss.mask_dice
    widen = doubling(run.predictions.pixels.shape[-1], d_pred.device)
    d_coarse = product(product(widen.T, d_pred), widen)  # nhw
    pixels = run.predictions.pixels[run.pairs.rows].flatten(2)
    own = product(pixels, d_coarse.flatten(1).unsqueeze(-1)).squeeze(-1)  # nC
    d_mask = torch.zeros_like(run.predictions.mask_queries)
    d_mask[run.pairs.rows, run.pairs.queries] = own
    layer = cast(DecoderLayer, model.decoder[-1])
    heads, ffn = model.heads, layer.ffn
    d_states = torch.zeros_like(states)  # the presence token has no mask
    d_states[:, 1:] = through_perceptron(heads.norm, heads.mask.first, heads.mask.second, states[:, 1:], d_mask)
    d_out = d_states + through_perceptron(ffn.norm, ffn.widen, ffn.narrow, entered, d_states)
    return {"pred": d_pred, "queries": d_states, "out": d_out, **follow(layer.image_attention, tap, d_out)}


def d_entropy(logits: Tensor, wanted: Tensor) -> Tensor:
    """By the logits [n, H, W], of the mean over pairs and pixels of their cross-entropy: (σ − t)/(n·H·W)."""
    return (_shares(logits) - wanted) / logits.numel()


def d_dice(logits: Tensor, wanted: Tensor) -> Tensor:
    """… of the mean over pairs of 1 − (2·Σσt + 1)/(Σσ + Σt + 1)."""
    shares = _shares(logits)
    over, under = 2 * (shares * wanted).sum((1, 2), keepdim=True) + 1, (shares + wanted).sum((1, 2), keepdim=True) + 1
    return (over / under - 2 * wanted) / under * shares * (1 - shares) / len(logits)


def d_squares(logits: Tensor, wanted: Tensor) -> Tensor:
    """… of the mean over pairs and pixels of (σ − t)²."""
    shares = _shares(logits)
    return 2 * (shares - wanted) * shares * (1 - shares) / logits.numel()


def _shares(logits: Tensor) -> Tensor:
    return 1 / (1 + (-logits).exp())
