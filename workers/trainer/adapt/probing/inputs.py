"""A small batch for a model that was attached without one, by what its library declares as inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

TOKENS = 7
SAMPLES = 2


def runs(model: nn.Module) -> Iterator[Callable[[], object]]:
    """Ways to call the model once, the likeliest first; those that do not fit raise when called."""
    first = next((each for each in model.parameters() if each.is_floating_point()), torch.empty(0))
    for dtype in dict.fromkeys((first.dtype, torch.float32)):  # parts of a model may be kept wider
        for batch in _batches(model):
            yield partial(model, **{name: _moved(value, first.device, dtype) for name, value in batch.items()})
        for tensor in _tensors(model):
            yield partial(model, _moved(tensor, first.device, dtype))


def _moved(value: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """A tensor on the model's device; floating point in `dtype`."""
    if not isinstance(value, Tensor):
        return value
    return value.to(device, dtype) if value.is_floating_point() else value.to(device)


def _batches(model: nn.Module) -> Iterator[dict[str, Any]]:
    """Named inputs of a model of transformers, by its configuration."""
    config = getattr(model, "config", None)
    if config is None:
        return
    text, vision = _text(config), _vision(config)
    named = getattr(model, "main_input_name", "input_ids")
    decoder = {"decoder_input_ids": text["input_ids"][:, :-1]} if text and _is_encoder_decoder(config) else {}
    for batch in (
        {**text, **vision, **decoder} if named in {"input_ids", "pixel_values"} else {},
        {**text, **decoder} if named == "input_ids" else {},
        vision,
        {**_sound(config, named), **decoder},
        dict(getattr(model, "dummy_inputs", {})),
    ):
        if batch:
            yield {**batch, "use_cache": False}
            yield batch


def _text(config: Any) -> dict[str, Tensor]:
    inner = getattr(config, "text_config", config)
    vocabulary = getattr(inner, "vocab_size", None)
    if not isinstance(vocabulary, int) or vocabulary < 4:
        return {}
    ids = 3 + torch.arange(SAMPLES * TOKENS).reshape(SAMPLES, TOKENS) * 5 % (vocabulary - 3)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _vision(config: Any) -> dict[str, Tensor]:
    inner: Any = getattr(config, "vision_config", config)
    size: Any = getattr(inner, "image_size", None)
    if size is None:
        return {}
    sides = list(size) if isinstance(size, list | tuple) else [size, size]
    shape: list[int] = [SAMPLES, int(getattr(inner, "num_channels", 3)), *sides]
    return {"pixel_values": torch.randn(shape)}


def _sound(config: Any, named: str) -> dict[str, Tensor]:
    if named == "input_features":
        bins = int(getattr(config, "num_mel_bins", None) or getattr(config, "feature_size", None) or 80)
        return {"input_features": torch.randn(SAMPLES, bins, 2 * getattr(config, "max_source_positions", 16))}
    return {"input_values": torch.randn(SAMPLES, 4000)} if named == "input_values" else {}


def _is_encoder_decoder(config: Any) -> bool:
    return bool(getattr(config, "is_encoder_decoder", False))


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    """One input of an image model of timm, or hidden states as wide as the first weight takes."""
    config = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None) or {}
    sizes = [getattr(getattr(model, "patch_embed", None), "img_size", None), config.get("input_size")]
    for size in sizes:
        if isinstance(size, list | tuple) and len(size) in (2, 3):
            yield torch.randn(SAMPLES, 3, *size[-2:])
    for weight in model.parameters():
        if weight.ndim == 2:
            widths = dict.fromkeys((weight.shape[1], weight.shape[0]))
            yield from (torch.randn(SAMPLES, TOKENS, width) for width in widths)
            return
