"""One batch for a model of transformers, made up from what its `forward` takes and its configuration says."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from tests.lab.models.shrinking import is_config

SAMPLES, TOKENS, OTHERS = 2, 7, 5


def batches(model: nn.Module) -> Iterator[dict[str, Any]]:
    """Likely batches, the fullest first."""
    takes = inspect.signature(model.forward).parameters
    known = {name: value for name, make in MAKERS.items() if name in takes and (value := make(model)) is not None}
    named = getattr(model, "main_input_name", "input_ids")
    alone = {name: value for name, value in known.items() if name == named or name.startswith("decoder_")}
    needed = {name for name, each in takes.items() if each.default is inspect.Parameter.empty}
    least = {name: value for name, value in known.items() if name in needed or name == named}
    text = {name: value for name, value in known.items() if "input_ids" in name}
    given = [known, {**least, **alone}, alone, least, text, dict(getattr(model, "dummy_inputs", {}) or {})]
    seen: list[set[str]] = []
    for each in given:
        if each and set(each) not in seen:
            seen.append(set(each))
            yield each


def callers(model: nn.Module) -> Iterator[Callable[[], object]]:
    for batch in batches(model):
        yield lambda batch=batch: model(**batch)


def _find(config: Any, names: tuple[str, ...], depth: int = 3) -> Any:
    """The first field of that name, the configuration's own before those inside it."""
    for name in names:
        if (value := getattr(config, name, None)) is not None:
            return value
    inner = [value for value in vars(config).values() if is_config(value)] if depth else []
    return next((value for each in inner if (value := _find(each, names, depth - 1)) is not None), None)


def _ids(model: nn.Module, count: int = TOKENS) -> Tensor | None:
    words = _find(model.config, ("vocab_size",))
    if not isinstance(words, int) or words < 8:
        return None
    special = {value for name, value in vars(model.config).items() if "token" in name and isinstance(value, int)}
    plain = torch.tensor([each for each in range(3, min(words, 90)) if each not in special])
    return plain[torch.randint(len(plain), (SAMPLES, count), generator=torch.Generator().manual_seed(count))]


def _pixels(model: nn.Module) -> Tensor | None:
    config = getattr(model.config, "vision_config", None) or model.config
    size = _find(config, ("image_size", "img_size", "pretrain_image_size"))
    if size is None and getattr(model, "main_input_name", "") != "pixel_values":
        return None
    height, width = (size if isinstance(size, list | tuple) else (size or 64,) * 2)[:2]
    channels = _find(config, ("num_channels", "in_channels", "in_chans"))
    shape = [SAMPLES, channels if isinstance(channels, int) else 3, height, width]
    frames = _find(config, ("num_frames", "frames_per_clip"))
    if isinstance(frames, int):
        shape.insert(1, frames)
    return torch.randn(shape)


def _features(model: nn.Module) -> Tensor:
    bins = _find(model.config, ("num_mel_bins", "feature_size", "input_feat_per_channel", "n_mels"))
    length = 2 * (_find(model.config, ("max_source_positions",)) or 32)
    bins = bins if isinstance(bins, int) else 80
    last = "speech_to_text" in str(getattr(model.config, "model_type", "")) or "parakeet" in str(
        model.config.model_type
    )
    return torch.randn(SAMPLES, length, bins) if last else torch.randn(SAMPLES, bins, length)


def _audio(model: nn.Module) -> Tensor:
    bins = _find(model.config, ("num_mel_bins",))
    if getattr(model.config, "model_type", "") == "audio-spectrogram-transformer":
        return torch.randn(SAMPLES, model.config.max_length, bins)
    return torch.randn(SAMPLES, 4000)


def _mask(model: nn.Module) -> Tensor | None:
    ids = _ids(model)
    return None if ids is None or getattr(model, "main_input_name", "") != "input_ids" else torch.ones_like(ids)


def _encoded(model: nn.Module) -> Tensor | None:
    width = _find(model.config, ("encoder_hidden_size", "hidden_size", "d_model"))
    asked = inspect.signature(model.forward).parameters["encoder_hidden_states"].default is inspect.Parameter.empty
    cross = getattr(model.config, "add_cross_attention", False)
    return torch.randn(SAMPLES, OTHERS, width) if (asked or cross) and isinstance(width, int) else None


def _series(model: nn.Module) -> Tensor | None:
    length = _find(model.config, ("context_length",))
    lags = max(_find(model.config, ("lags_sequence",)) or [0])
    channels = _find(model.config, ("num_input_channels",))
    if not isinstance(length, int):
        return None
    return torch.randn(SAMPLES, length + lags, *([channels] if channels and not lags else []))


def _decoder_ids(model: nn.Module) -> Tensor | None:
    return _ids(model, OTHERS) if _find(model.config, ("is_encoder_decoder",)) else None


def _boxes(model: nn.Module) -> Tensor:
    count = 8 if getattr(model.config, "model_type", "") == "bros" else 4
    if count == 8:
        return torch.rand(SAMPLES, TOKENS, count)
    return torch.tensor([1, 1, 3, 4]).expand(SAMPLES, TOKENS, 4).contiguous()


MAKERS: dict[str, Callable[[Any], Any]] = {
    "input_ids": _ids,
    "attention_mask": _mask,
    "decoder_input_ids": _decoder_ids,
    "pixel_values": _pixels,
    "pixel_values_videos": _pixels,
    "input_features": _features,
    "input_values": _audio,
    "bbox": _boxes,
    "encoder_hidden_states": _encoded,
    "past_values": _series,
    "past_time_features": lambda model: (
        torch.randn(*_series(model).shape[:2], 1) if _series(model) is not None else None
    ),
    "past_observed_mask": lambda model: torch.ones_like(_series(model)) if _series(model) is not None else None,
    "visual_feats": lambda model: torch.randn(SAMPLES, OTHERS, model.config.visual_feat_dim),
    "visual_pos": lambda model: torch.rand(SAMPLES, OTHERS, model.config.visual_pos_dim),
}
