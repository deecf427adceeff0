"""The cost of a spec before it runs: its exact number of parameters, and its time, from measured runs like it.

The counts mirror the modules of the trainer, which the service does not import; a test builds them and compares.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from experiments.models import Headline
from experiments.models.runs import RunQuerySet
from experiments.spec import (
    ClassifierModel,
    ClassifySpec,
    HfSpec,
    Kind,
    LanguageSpec,
    PluginSpec,
    PointerSpec,
    RolesSpec,
    SegmenterModel,
    SegmentSpec,
    Spec,
    TokenModel,
    Transformer,
    resolved,
)
from experiments.spec.sections.attention_names import VARIANT_TABLE
from experiments.states import State

WORDS, PROMPT_LENGTH = 43, 6  # of the prompts of scenes and digit-scenes
DIGIT_SIDE, DIGIT_CLASSES = 8, 10
ROLE_WORDS, ROLE_CASES, ROLE_TOKENS = 54, 7, 8
MASK_CHANNELS, BOX_CODE = 32, 64
RECENT_RUNS = 200  # the newest measured runs, among which a similar one is searched for


def parameters(spec: Spec) -> int | None:
    """Trainable and frozen parameters of the spec's model; None where only its library can count them."""
    if isinstance(spec, HfSpec | PluginSpec) or not spec.model.attention.variants <= VARIANT_TABLE.keys():
        return None
    if isinstance(spec, SegmentSpec):
        return _segmenter(spec.model)
    if isinstance(spec, ClassifySpec):
        return _classifier(spec.model)
    return _tokens(spec.model, *_token_sizes(spec))


def seconds(specs: Sequence[Spec], runs: RunQuerySet) -> float | None:
    """Training time of all specs one after the other, from the step time of the newest run of each kind. None where
    some kind was never measured, since a guess would look like a measurement."""
    measured = _step_times(runs)
    times = [measured.get(_kind(resolved(spec))) for spec in specs]
    if None in times:
        return None
    return sum(time * spec.train.steps for time, spec in zip(times, specs, strict=True) if time is not None) / 1000


def _step_times(runs: RunQuerySet) -> dict[str, float]:
    """Milliseconds per step by kind of run; the newest measurement of a kind counts."""
    succeeded = runs.filter(state=State.SUCCEEDED).order_by("-id").values_list("id", "spec")[:RECENT_RUNS]
    specs = dict(succeeded)
    rows = Headline.objects.filter(run_id__in=specs, key="time/step_ms", last__isnull=False).order_by("run_id")
    return {_kind(specs[run]): last for run, last in rows.values_list("run_id", "last") if last is not None}


def _kind(spec: dict[str, object]) -> str:
    """Everything that the time of a step depends on."""
    train = spec["train"]
    assert isinstance(train, dict)
    sizes = [train["batch_size"], train["accumulate"]]
    return json.dumps([spec["task"], spec["data"], spec["model"], spec["resources"], sizes], sort_keys=True)


def _linear(inputs: int, outputs: int) -> int:
    return (inputs + 1) * outputs


def _mlp(inputs: int, hidden: int, outputs: int) -> int:
    return _linear(inputs, hidden) + _linear(hidden, outputs)


def _norm(width: int) -> int:
    return 2 * width


def _attention(model: Transformer, kind: Kind) -> int:
    own = model.attention.of(kind)
    keys_width = model.heads * (own.d_k or model.d_model // model.heads)
    values_width = model.heads * (own.d_v or model.d_model // model.heads)
    widths = {"W_q": keys_width, "W_k": keys_width, "W_v": values_width, "W_o": values_width}
    variant = VARIANT_TABLE[own.variant]
    matrices = model.d_model * sum(widths[name] for name in variant.owned)
    return matrices + (keys_width if variant.query_vector else 0)


def _layer(model: Transformer, *kinds: Kind) -> int:
    """An attention site of each kind, each after its norm, then the feed-forward part."""
    width = model.d_model
    attention = sum(_norm(width) + _attention(model, kind) for kind in kinds)
    return attention + _norm(width) + _mlp(width, model.ffn, width)


def _classifier(model: ClassifierModel) -> int:
    width = model.d_model
    tokens = 1 + (DIGIT_SIDE // model.patch) ** 2
    stem = _linear(model.patch**2, width) + tokens * width
    return stem + model.layers * _layer(model, "self") + _norm(width) + _linear(width, DIGIT_CLASSES)


def _token_sizes(spec: PointerSpec | RolesSpec | LanguageSpec) -> tuple[int, int]:
    """Rows of all embedding tables together, and classes."""
    if isinstance(spec, PointerSpec):
        return (
            3 * spec.data.tokens + spec.data.payloads,
            spec.data.payloads,
        )  # names, names pointed to, positions, payloads
    if isinstance(spec, RolesSpec):
        return ROLE_WORDS + ROLE_CASES + ROLE_TOKENS, ROLE_WORDS
    return spec.data.characters + spec.data.context, spec.data.characters


def _tokens(model: TokenModel, rows: int, classes: int) -> int:
    width = model.d_model
    return rows * width + model.layers * _layer(model, "self") + _norm(width) + _linear(width, classes)


def _segmenter(model: SegmenterModel) -> int:
    width, fine = model.d_model, (model.patch // 2) ** 2
    neighbours = 2 * (_norm(width) + _linear(9 * width, width))
    image = _linear(3 * 9, MASK_CHANNELS) + _norm(MASK_CHANNELS) + _linear(MASK_CHANNELS * fine, width) + _norm(width)
    text = (WORDS + PROMPT_LENGTH) * width + model.text_layers * _layer(model, "self") + _norm(width)
    text_to_image = 2 * _norm(width) + _attention(model, "text_to_image") if model.text_to_image else 0
    fusion = model.encoder_layers * (_layer(model, "self", "text") + text_to_image)
    queries = _norm(width) + (1 + model.queries) * width + _mlp(BOX_CODE, width, width)
    decoder = model.decoder_layers * _layer(model, "self", "text", "image")
    return image + neighbours + text + fusion + queries + decoder + _heads(width, fine)


def _heads(width: int, fine: int) -> int:
    score = _norm(width) + _linear(width, width) + _linear(width, 1)
    others: Iterable[int] = (_mlp(width, width, outputs) for outputs in (4, 1, MASK_CHANNELS))
    masks = _linear(width, MASK_CHANNELS * fine) + _linear(2 * MASK_CHANNELS, MASK_CHANNELS)
    return score + sum(others) + masks
