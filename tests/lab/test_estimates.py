"""The service's parameter counts against the modules that the trainer really builds."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
from torch import nn

from experiments.spec import ClassifySpec, SegmentSpec, Variant, parse_spec
from experiments.submissions.estimates import (
    DIGIT_CLASSES,
    DIGIT_SIDE,
    PROMPT_LENGTH,
    ROLE_CASES,
    ROLE_TOKENS,
    ROLE_WORDS,
    WORDS,
    parameters,
)
from workers.trainer.data.images import digits, lexicon
from workers.trainer.data.tokens import grammar, roles
from workers.trainer.nets.classifier import Classifier
from workers.trainer.nets.segmenter import Segmenter
from workers.trainer.tasks.registry import build_task


def built(raw: dict[str, Any]) -> tuple[int, int]:
    """The estimate, and the count of the real module."""
    spec = parse_spec(raw)
    model: nn.Module
    if isinstance(spec, SegmentSpec):
        side = spec.data.canvas
        model = Segmenter(spec.model, side=side, words=len(lexicon.VOCABULARY), prompt_length=lexicon.LENGTH)
    elif isinstance(spec, ClassifySpec):
        model = Classifier(spec.model, side=digits.SIDE, channels=1, classes=digits.CLASSES)
    else:
        model = build_task(spec, torch.device("cpu")).model
    return parameters(spec), sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("variant", get_args(Variant))
def test_every_variant_is_counted_exactly(variant: str) -> None:
    for task, dataset in (
        ("segment", "scenes"),
        ("segment", "digit-scenes"),
        ("classify", "digits"),
        ("pointer", "pointer"),
        ("roles", "roles"),
        ("language", "text"),
    ):
        estimate, real = built(
            {"task": task, "data": {"dataset": dataset}, "model": {"attention": {"variant": variant}}}
        )
        assert estimate == real


@pytest.mark.parametrize(
    "model",
    [
        {
            "patch": 8,
            "text_layers": 2,
            "encoder_layers": 1,
            "decoder_layers": 3,
            "queries": 7,
            "d_model": 48,
            "ffn": 40,
        },
        {"heads": 1, "d_model": 32, "encoder_layers": 3},
        {"text_to_image": True, "attention": {"by_kind": {"text_to_image": {"variant": "const_q"}}}},
        {"attention": {"by_kind": {"self": {"variant": "no_qk"}, "image": {"variant": "no_q"}}}},
    ],
)
def test_other_sizes_of_the_segmenter_are_counted_exactly(model: dict[str, Any]) -> None:
    estimate, real = built({"task": "segment", "data": {"dataset": "scenes"}, "model": model})
    assert estimate == real


@pytest.mark.parametrize("model", [{"patch": 1, "layers": 3}, {"patch": 4, "d_model": 24, "ffn": 100}])
def test_other_sizes_of_the_classifier_are_counted_exactly(model: dict[str, Any]) -> None:
    estimate, real = built({"task": "classify", "data": {"dataset": "digits"}, "model": model})
    assert estimate == real


@pytest.mark.parametrize(
    "data",
    [{"dataset": "pointer", "tokens": 5, "payloads": 3}, {"dataset": "text", "characters": 40, "context": 9}],
)
def test_other_sizes_of_the_token_model_are_counted_exactly(data: dict[str, Any]) -> None:
    task = "pointer" if data["dataset"] == "pointer" else "language"
    estimate, real = built({"task": task, "data": data, "model": {"layers": 3, "d_model": 24, "heads": 2, "ffn": 20}})
    assert estimate == real


@pytest.mark.parametrize("task", ["segment", "pointer"])
def test_other_widths_and_variants_of_a_head_are_counted_exactly(task: str) -> None:
    attention = {"d_k": 6, "d_v": 10, "by_kind": {"text": {"variant": "const_q"}, "self": {"variant": "tied_qk"}}}
    dataset = {"segment": "scenes", "pointer": "pointer"}[task]
    estimate, real = built({"task": task, "data": {"dataset": dataset}, "model": {"attention": attention}})
    assert estimate == real


def test_what_the_data_fixes_is_what_the_data_says() -> None:
    assert (len(lexicon.VOCABULARY), lexicon.LENGTH) == (WORDS, PROMPT_LENGTH)
    assert (*roles.SIZES, grammar.LENGTH) == (ROLE_WORDS, ROLE_CASES, ROLE_TOKENS)
    assert (DIGIT_SIDE, DIGIT_CLASSES) == (digits.SIDE, digits.CLASSES)
