"""The task `hf`: models of transformers under our loop, recorder and checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.numpy import load_file

from experiments.spec import Spec, SpecError, parse_spec
from tests.lab import foreign
from tests.lab.collected import train_collected
from workers.inspection.protocol import QuestionMessage
from workers.protocol import Artifact, Checkpoint, Log, Started
from workers.trainer.adapt.attachment import attachment
from workers.trainer.adapt.probing import inputs
from workers.trainer.entry.loaded_models import Models
from workers.trainer.tasks.hf.config import check_used, trained_before
from workers.trainer.tasks.hf.library import transformers
from workers.trainer.tasks.registry import build_task

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"
GPT2 = {"model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 16}
LLAMA = {"model_type": "llama", **foreign.SIZES, "num_hidden_layers": 1, "num_key_value_heads": 2}
VIT = {"model_type": "vit", **foreign.SIZES, "patch_size": 4}
TEXT = {"dataset": "text", "context": 16, "characters": 32}
DIGITS = {"dataset": "digits"}
SCENES = {"dataset": "scenes", "train_size": 8, "val_size": 8}


def raw(data: dict[str, Any], config: dict[str, Any] | None, **changes: Any) -> dict[str, Any]:
    return {
        "task": "hf",
        "data": data,
        "model": {"config": config},
        "optimizer": {"lr": 3e-3, "warmup_steps": 1, "clip_norm": 1.0},
        "train": {"steps": 6, "batch_size": 8, "eval_every": 3, "checkpoint_every": 3, "predictions": 1},
        "record": {"probe_every": 2},
        "resources": {"threads": 1},
        **changes,
    }


def spec_of(*args: Any, **changes: Any) -> Spec:
    return parse_spec(raw(*args, **changes))


@pytest.mark.parametrize(("data", "config"), [(TEXT, GPT2), (DIGITS, VIT), (SCENES, foreign.SAM3)])
def test_layouts_are_measured_on_the_data_of_the_run(
    data: dict[str, Any], config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def made_up(_model: object) -> Any:
        raise AssertionError("a batch was made up")

    monkeypatch.setattr(inputs, "runs", made_up)
    task = build_task(spec_of(data, config), torch.device("cpu"))
    found = attachment(task.model)
    assert found is not None
    assert found.sites
    assert all("geometry_encoder" in name for name in found.unchecked)  # prompts are words: it never runs


@pytest.mark.parametrize("config", [GPT2, LLAMA], ids=["gpt2", "llama"])
def test_a_language_model_learns_and_a_resumed_run_repeats_it_bit_for_bit(
    tmp_path: Path, config: dict[str, Any]
) -> None:
    """GPT-2 drops out at random and ties its head to its embedding: random state and shared weights are restored."""
    spec = spec_of(TEXT, config)
    whole, _ = train_collected(spec, tmp_path / "whole")
    first, _ = train_collected(spec, tmp_path / "first", stop_after=2)
    second, _ = train_collected(spec, tmp_path / "second", checkpoint=Path(first.of(Checkpoint)[-1].path))
    for group in ("train", "eval", "probe", "test"):
        for name, (steps, values) in whole.series(group).items():
            if not name.startswith("time/"):
                both = [sink.series(group)[name] for sink in (first, second)]
                np.testing.assert_array_equal(np.concatenate([own[0] for own in both]), steps)
                np.testing.assert_array_equal(np.concatenate([own[1] for own in both]), values, err_msg=name)
                assert np.isfinite(values).all(), name
    ends = [load_file(Path(sink.of(Checkpoint)[-1].path)) for sink in (whole, second)]
    assert ends[0].keys() == ends[1].keys()
    assert all((ends[0][name] == ends[1][name]).all() for name in ends[0])
    loss = whole.values("loss/total")
    assert loss[-1] < loss[0] - 0.1
    heads = {info.name: (info.heads, info.kv_heads) for info in whole.of(Started)[0].sites}
    assert heads == (
        {"model.layers.0.self_attn": (4, 2)}
        if config is LLAMA
        else {f"transformer.h.{layer}.attn": (2, 2) for layer in (0, 1)}
    )


def test_an_image_classifier_of_transformers_learns_digits(tmp_path: Path) -> None:
    sink, _ = train_collected(spec_of(DIGITS, VIT, train={"steps": 40, "batch_size": 32, "predictions": 2}), tmp_path)
    assert sink.values("eval/accuracy", "eval")[-1] > 0.3  # a tenth by chance
    assert (sink.values("grad_norm/vit.layers.1.attention/W_k/head.3") > 0).all()
    assert len([each for each in sink.of(Artifact) if each.kind == "prediction"]) == 2


def test_sam3_trains_with_every_series_of_every_site(tmp_path: Path) -> None:
    spec = spec_of(SCENES, foreign.SAM3, train={"steps": 2, "batch_size": 2, "predictions": 1})
    sink, _ = train_collected(spec, tmp_path)
    sites = [info.name for info in sink.of(Started)[0].sites]
    assert len(sites) == 17
    train, probe = sink.series("train"), sink.series("probe")
    for site in sites:
        silent = site.startswith("geometry_encoder.")  # it reads box prompts, and there are none
        for matrix in ("W_q", "W_k", "W_v", "W_o"):
            gradient = train[f"grad_norm/{site}/{matrix}"][1]
            assert (gradient == 0).all() if silent else (gradient > 0).all(), f"{site}/{matrix}"
            assert (train[f"update_ratio/{site}/{matrix}"][1] == 0).all() == silent
        assert np.isnan(probe[f"attn/entropy/{site}"][1]).all() == silent
    told = [message.text for message in sink.of(Log) if message.text.startswith("not trained")]
    assert told[0].count("geometry_encoder.") == 2
    masses = [values for name, (_, values) in probe.items() if name.startswith("attn/object_mass/")]
    assert len(masses) == 2
    assert all((mass >= 0).all() and (mass <= 1).all() for mass in masses)
    assert [artifact.kind for artifact in sink.of(Artifact) if artifact.kind != "file"] == ["prediction"]


@pytest.fixture
def models_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "models"
    root.mkdir()
    monkeypatch.setenv("ATTN_MODELS_ROOT", str(root))
    return root


LAST = {"model_type": "gpt2", "n_embd": 16, "n_head": 2, "n_positions": 16}
UNUSED: list[tuple[dict[str, Any], dict[str, Any], dict[str, str]]] = [
    (TEXT, {**GPT2, "n_layr": 1, "atn_pdrop": 0.5}, {"n_layr": "did you mean 'n_layer'", "atn_pdrop": "attn_pdrop"}),
    (TEXT, {**LAST, "n_layer": 1, "num_hidden_layers": 3}, {"n_layer": "same field as 'num_hidden_layers'",
     "num_hidden_layers": "same field as 'n_layer'"}),
    (TEXT, {**GPT2, "rope_theta": 5.0}, {"rope_theta": "no field"}),
    (TEXT, {**GPT2, "temperature": 0.5}, {"temperature": "no field"}),
    (TEXT, {**GPT2, "name_or_path": "x"}, {"name_or_path": "no field"}),
    (TEXT, {**LLAMA, "num_layers": 4}, {"num_layers": "no field"}),
    (TEXT, {**LLAMA, "rope_parameters": {"rope_type": "default", "rope_tehta": 5.0}},
     {"rope_parameters.rope_tehta": "did you mean 'rope_theta'"}),
    (TEXT, {**LLAMA, "model_type": "qwen2", "sliding_window": 4}, {"sliding_window": "is not used"}),
    (DIGITS, {**VIT, "n_layer": 3}, {"n_layer": "no field"}),
    (SCENES, {**foreign.SAM3, "vision_confg": {}}, {"vision_confg": "did you mean 'vision_config'"}),
    (SCENES, {**foreign.SAM3, "text_config": {**foreign.SAM3["text_config"], "num_layrs": 1}},
     {"text_config.num_layrs": "has no field"}),
]  # fmt: skip


@pytest.mark.parametrize(("data", "config", "told"), UNUSED)
def test_a_key_that_a_configuration_does_not_use_is_refused_by_name(
    data: dict[str, Any], config: dict[str, Any], told: dict[str, str], tmp_path: Path
) -> None:
    """transformers keeps any key as an attribute that no model reads."""
    with pytest.raises(SpecError) as caught:
        train_collected(spec_of(data, config), tmp_path)
    found = {error.dotted.removeprefix("model.config."): error.message for error in caught.value.errors}
    assert found.keys() == told.keys()
    assert all(told[name] in message for name, message in found.items()), found


USED: list[tuple[str, dict[str, Any]]] = [
    ("gpt2", {**LAST, "num_hidden_layers": 1}),
    ("gpt2", {**GPT2, "num_hidden_layers": 2, "bos_token_id": None}),
    ("llama", {**LLAMA, "rope_theta": 10000.0}),
    ("llama", {**LLAMA, "rope_theta": 5}),
    ("llama", {**LLAMA, "rope_scaling": {"type": "linear", "factor": 2.0}}),
    ("qwen2", {**LLAMA, "sliding_window": 4, "use_sliding_window": True}),
    ("vit", {**VIT, "num_labels": 10, "torch_dtype": "float32"}),
    ("sam3", foreign.SAM3),
]


@pytest.mark.parametrize(("name", "given"), USED)
def test_fields_older_names_and_other_names_of_a_field_are_used(name: str, given: dict[str, Any]) -> None:
    fields = {key: value for key, value in given.items() if key != "model_type"}
    check_used(transformers().AutoConfig.for_model(name, **fields), given)


def test_a_checkpoint_is_read_as_it_was_trained(tmp_path: Path) -> None:
    """A run of an older version with a key that nothing read can go on and be asked."""
    old = spec_of(TEXT, {**GPT2, "n_layr": 1})
    with trained_before():
        first, _ = train_collected(old, tmp_path / "first", stop_after=2)
    last = Path(first.of(Checkpoint)[-1].path)
    second, _ = train_collected(old, tmp_path / "second", checkpoint=last)
    assert second.series("train")
    put = QuestionMessage(
        question=1, spec=old.model_dump(mode="json"), checkpoint=str(last), sha256="x", ask={}, most_bytes=10**6
    )
    assert Models().get(put).model is not None


def test_weights_of_a_folder_are_where_training_starts(models_root: Path, tmp_path: Path) -> None:
    library = transformers()
    config = library.AutoConfig.for_model(**VIT, image_size=16, num_channels=3, num_labels=4)
    saved = library.AutoModelForImageClassification.from_config(config)
    saved.save_pretrained(models_root / "mine")
    changes = {"model": {"path": "mine", "frozen": ["vit.embeddings"]}, "train": {"steps": 1, "predictions": 0}}
    sink, _ = train_collected(spec_of(DIGITS, None, **changes, optimizer={"lr": 1e-9}), tmp_path / "run")
    weights = load_file(Path(sink.of(Checkpoint)[-1].path))
    for name, value in saved.state_dict().items():
        if not name.startswith("classifier"):  # ten digits want a new one
            np.testing.assert_allclose(weights[f"weight/{name}"], value.numpy(), atol=1e-6, err_msg=name)
    assert weights["weight/classifier.weight"].shape == (10, 32)


@pytest.mark.parametrize(
    ("model", "data", "path", "words"),
    [
        ({"config": {"n_embd": 8}}, TEXT, "model.config.model_type", "names no model"),
        ({}, TEXT, "model.config", "set exactly one of"),
        ({"config": GPT2, "path": "x"}, TEXT, "model.config", "set exactly one of"),
        ({"config": GPT2}, SCENES, "model.config.model_type", "must be 'sam3'"),
        ({"config": {**GPT2, "vocab_size": 16}}, TEXT, "model.config.vocab_size", r"at least data\.characters \(32\)"),
        ({"config": {**GPT2, "auto_map": {}}}, TEXT, "model.config.auto_map", "not allowed"),
        ({"config": {**GPT2, "a": {"_name_or_path": "x"}}}, TEXT, "model.config.a._name_or_path", "not allowed"),
        ({"config": {**GPT2, "n_embd": 10**9}}, TEXT, "model.config.n_embd", "at most"),
        ({"config": GPT2, "size": 3}, TEXT, "model.size", "unknown field"),
        ({"config": GPT2}, {"dataset": "pointer"}, "data", "must be one of"),
    ],
)
def test_a_bad_spec_is_refused_at_its_field(model: dict[str, Any], data: dict[str, Any], path: str, words: str) -> None:
    with pytest.raises(SpecError, match=words) as caught:
        parse_spec(raw(data, None, model=model))
    assert caught.value.errors[0].dotted == path


@pytest.mark.parametrize(
    ("model", "data", "path", "words"),
    [
        ({"config": {**GPT2, "model_type": "gpt9"}}, TEXT, "model.config.model_type", "knows no model 'gpt9'"),
        ({"config": {**GPT2, "n_head": 3}}, TEXT, "model.config", "gpt2 cannot be built"),
        ({"config": VIT}, TEXT, "model.config", "cannot be built as AutoModelForCausalLM"),
        ({"config": {**VIT, "num_labels": 3}}, DIGITS, "model.config.num_labels", "must be 10"),
        ({"config": GPT2}, {**TEXT, "context": 64}, "data.context", "at most 16"),
        ({"config": {"model_type": "mamba", "hidden_size": 16, "num_hidden_layers": 1}}, TEXT, "model", "no attention"),
        ({"config": GPT2, "frozen": ["wte"]}, TEXT, "model.frozen.0", "no module 'wte'"),
        ({"path": "../x"}, TEXT, "model.path", "outside the models root"),
        ({"path": "nothing"}, TEXT, "model.path", r"no config\.json"),
    ],
)
def test_what_only_the_library_knows_is_refused_at_its_field_too(
    models_root: Path, model: dict[str, Any], data: dict[str, Any], path: str, words: str, tmp_path: Path
) -> None:
    with pytest.raises(SpecError, match=words) as caught:
        train_collected(spec_of(data, None, model=model), tmp_path)
    assert caught.value.errors[0].dotted == path


@pytest.mark.slow
def test_sam3_overfits_eight_scenes(tmp_path: Path) -> None:
    """The example of docs/any-model.md: the tiny configuration, our matcher, our losses."""
    told = yaml.safe_load((EXAMPLES / "sam3-tiny.yaml").read_text())
    assert told["data"]["train_size"] == told["train"]["batch_size"] == 8
    told["train"]["predictions"] = 0
    sink, _ = train_collected(parse_spec(told), tmp_path)
    assert sink.of(Started)[0].parameters == 267_066
    loss = sink.values("loss/total")
    assert loss[0] / loss[-1] >= 5
