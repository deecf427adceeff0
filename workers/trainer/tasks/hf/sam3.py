"""SAM 3 of transformers with the outputs of our segmenter: of every decoder layer, with masks at the image's size.

Shapes: B images, Q queries, L decoder layers, S prompt tokens, M width, h × w the side of the model's masks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from workers.trainer.nets.segmenter import Predictions


@dataclass(frozen=True)
class ResizedPredictions(Predictions):
    """Masks are logits [B, Q, h, w], resized to `side` pixels on demand."""

    logits: Tensor
    side: int

    def masks(self, rows: Tensor, queries: Tensor) -> Tensor:
        return resized(self.logits[rows, queries], self.side)

    def all_masks(self) -> Tensor:
        return resized(self.logits, self.side)


def find(model: nn.Module, images: Tensor, tokens: Tensor, token_mask: Tensor, side: int) -> Predictions:
    """One forward pass. `images` [B, 3, H, W] are resized to the model's size, masks to `side`."""
    with _inner_outputs(model) as outputs:
        out = model(pixel_values=fitted(model, images), input_ids=tokens, attention_mask=token_mask.long())
    decoder, scores = outputs["detr_decoder"], outputs["dot_product_scoring"]
    return ResizedPredictions(
        scores=scores.squeeze(-1),
        boxes=_boxes(model, decoder),
        presence=decoder.presence_logits.squeeze(-1),
        mask_queries=out.pred_masks.new_zeros(0),  # unused: masks exist already
        pixels=out.pred_masks.new_zeros(0),
        logits=out.pred_masks,
        side=side,
    )


def fitted(model: Any, images: Tensor) -> Tensor:
    """Images at the size of the vision encoder."""
    size = model.config.vision_config.backbone_config.image_size
    size = size if isinstance(size, int) else size[0]
    return images if images.shape[-1] == size else F.interpolate(images, size=(size, size), mode="bilinear")


def _boxes(model: Any, decoder: Any) -> Tensor:
    """Each layer corrects its reference boxes: L, B, Q, 4, centre and size. The model itself returns those of the last
    layer only."""
    given = decoder.reference_boxes.clamp(0, 1)
    before = torch.log(given.clamp(min=1e-3) / (1 - given).clamp(min=1e-3))
    corrected: Tensor = (before + model.detr_decoder.box_head(decoder.intermediate_hidden_states)).sigmoid()
    return corrected


@contextmanager
def _inner_outputs(model: nn.Module) -> Iterator[dict[str, Any]]:
    """Outputs of the decoder and the score head inside, by their names."""
    outputs: dict[str, Any] = {}
    names = ("detr_decoder", "dot_product_scoring")
    hooks = [getattr(model, name).register_forward_hook(partial(_keep, outputs, name)) for name in names]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


def _keep(outputs: dict[str, Any], name: str, _module: nn.Module, _args: Any, out: Any) -> None:
    outputs[name] = out


def resized(maps: Tensor, side: int) -> Tensor:
    """Bilinear, as two matrix products: unlike F.interpolate's, the backward pass is deterministic on every device."""
    if maps.shape[-1] == side:
        return maps
    matrix = _stretching(maps.shape[-1], side, maps.device)
    return matrix @ maps @ matrix.T


def _stretching(old: int, new: int, device: torch.device) -> Tensor:
    positions = ((torch.arange(new, device=device) + 0.5) * old / new - 0.5).clamp(0, old - 1)
    return (1 - (positions.unsqueeze(1) - torch.arange(old, device=device)).abs()).clamp(min=0)
