"""What is submitted is what is trained: nothing dropped, one meaning for each spelling, types told apart."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.spec import SpecError, content_hash, flatten, parse_spec, resolved
from experiments.spec.effective import effective
from experiments.spec.yaml_text import YamlError, dump, load
from experiments.submissions.presets import presets
from experiments.submissions.submission import Plan, SubmissionError, plan
from tests.pure.preset_hashes import HASHES, SEEDS

POINTER: dict[str, Any] = {"task": "pointer", "data": {"dataset": "pointer"}}
SEGMENT: dict[str, Any] = {"task": "segment", "data": {"dataset": "scenes"}}


def planned(**fields: Any) -> Plan:
    return plan({"name": "x", "spec": POINTER, **fields})


def errors_of(**fields: Any) -> dict[str, str]:
    with pytest.raises(SubmissionError) as caught:
        planned(**fields)
    return {"/".join(map(str, error.path)): error.message for error in caught.value.errors}


def spec_errors(raw: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(SpecError) as caught:
        parse_spec(raw)
    return {error.dotted: error.message for error in caught.value.errors}


@pytest.mark.parametrize("name", HASHES)
def test_the_hash_of_every_run_of_every_preset_stays(name: str) -> None:
    runs = plan({"name": name, "preset": name, "seeds": SEEDS[name]}).runs
    digest = hashlib.sha256("\n".join(run.spec_hash for run in runs).encode()).hexdigest()
    assert (len(runs), digest) == HASHES[name]
    assert set(HASHES) == set(presets())


def test_a_section_and_another_field_of_it_combine_and_the_params_say_what_each_run_was_given() -> None:
    attention = {"model.attention": [{"init": "zeros"}], "model.attention.variant": ["full", "no_q"]}
    for matrix in (attention, dict(reversed(attention.items()))):
        runs = planned(matrix=matrix).runs
        assert [run.params["model.attention"] for run in runs] == [{"init": "zeros"}] * 2
        for run in runs:
            assert run.spec.model.attention.init == "zeros"
            assert run.params["model.attention.variant"] == run.spec.model.attention.variant
        assert [run.spec.model.attention.variant for run in runs] == ["full", "no_q"]


SETTINGS: list[tuple[dict[str, Any], str, str]] = [
    (
        {"matrix": {"model.attention": [{"variant": "full"}, {}], "model.attention.variant": ["no_k"]}},
        "matrix/model.attention.variant",
        "'model.attention' in the matrix",
    ),
    (
        {"matrix": {"model.attention.variant": ["no_k"], "model.attention": [{"variant": "full"}, {}]}},
        "matrix/model.attention.variant",
        "'model.attention' in the matrix",
    ),
    (
        {"matrix": {"train": [{"steps": 5}]}, "overrides": {"train.steps": 7}},
        "overrides/train.steps",
        "'train' in the matrix",
    ),
    (
        {"matrix": {"train.steps": [5, 6]}, "overrides": {"train": {"steps": 7}}},
        "matrix/train.steps",
        "'train' in the overrides",
    ),
    (
        {"matrix": {"train.steps": [5, 6]}, "overrides": {"train.steps": 7}},
        "matrix/train.steps",
        "'train.steps' in the overrides",
    ),
    ({"overrides": {"train": {"steps": 7}, "train.steps": 8}}, "overrides/train.steps", "'train' in the overrides"),
    ({"pool": "a", "overrides": {"resources.pool": "b"}}, "pool", "in the overrides"),
    ({"pool": "a", "matrix": {"resources": [{"pool": "b"}]}}, "pool", "'resources' in the matrix"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "at", "words"), SETTINGS)
def test_two_settings_of_one_field_are_refused_and_both_named(fields: dict[str, Any], at: str, words: str) -> None:
    found = errors_of(**fields)
    assert list(found) == [at]
    assert words in found[at]


def test_an_override_of_what_the_presets_own_matrix_varies_is_told_at_the_override() -> None:
    for path, value in (("model.attention.variant", "no_q"), ("model.attention", {"variant": "no_q"})):
        found = errors_of(spec=None, preset="token-roles", overrides={path: value})
        assert list(found) == [f"overrides/{path}"]
        assert "'model.attention.variant' in the preset's matrix" in found[f"overrides/{path}"]


CLIPPED = {**POINTER, "optimizer": {"lr": 0.1, "clip_norm": 1.0, "warmup_steps": 7}}
GPT2 = {**POINTER, "task": "hf", "data": {"dataset": "text"}}
GPT2 |= {"model": {"config": {"model_type": "gpt2", "n_embd": 16}, "frozen": ["a"]}}


@pytest.mark.parametrize(
    ("spec", "section", "fields"),
    [
        (CLIPPED, "optimizer", {"optimizer.lr": 0.5}),
        (CLIPPED, "optimizer", {"optimizer.lr": 0.5, "optimizer.beta1": 0.8}),
        ({**POINTER, "model": {"attention": {"init": "zeros"}, "layers": 2}}, "model", {"model.attention.d_k": 3}),
        ({**SEGMENT, "data": {"dataset": "scenes", "canvas": 32}}, "data", {"data.absent": 0.5}),
        (GPT2, "model.config", {"model.config.n_layer": 1}),
        (GPT2, "model", {"model.config.n_layer": 1}),
    ],
)
def test_a_section_sets_the_fields_that_it_names_and_no_others(
    spec: dict[str, Any], section: str, fields: dict[str, Any]
) -> None:
    value: dict[str, Any] = {}
    for path, leaf in fields.items():
        *above, name = path.removeprefix(f"{section}.").split(".")
        tree = value
        for part in above:
            tree = tree.setdefault(part, {})
        tree[name] = leaf
    wanted = planned(spec=spec, overrides=fields).spec
    assert resolved(planned(spec=spec, overrides={section: value}).spec) == resolved(wanted)
    varied = planned(spec=spec, matrix={section: [value]})
    assert [run.spec for run in varied.runs] == [wanted]
    assert planned(spec=resolved(varied.spec), matrix=varied.matrix).runs == varied.runs


def test_a_section_of_another_kind_has_nothing_of_the_bases() -> None:
    other = planned(spec={**SEGMENT, "data": {"dataset": "scenes", "distractors": 0.5, "absent": 0.5}},
                    overrides={"data": {"dataset": "coco", "path": "a"}})  # fmt: skip
    assert (other.spec.data.dataset, other.spec.data.absent) == ("coco", 0.2)  # type: ignore[union-attr]
    llama = {"model_type": "llama", "hidden_size": 8}
    assert planned(spec=GPT2, overrides={"model.config": llama}).spec.model.config == llama  # type: ignore[union-attr]


def test_an_override_below_a_section_of_the_matrix_is_used() -> None:
    done = planned(matrix={"model.attention": [{"init": "zeros"}, {}]}, overrides={"model.attention.init_std": 0.5})
    assert [run.spec.model.attention.init_std for run in done.runs] == [0.5, 0.5]


@pytest.mark.parametrize(
    "matrix",
    [
        {"optimizer.lr": ["1e-4", 0.0001]},
        {"train.steps": [6, 6.0]},
        {"train.steps": ["6", 6]},
        {"optimizer.clip_norm": [1, "1.0"]},
        {"model.attention": [{"init": "zeros", "variant": "no_q"}, {"variant": "no_q", "init": "zeros"}]},
        {"model.attention": [{"init": "zeros"}, {"init": "zeros", "variant": "full"}]},
        {"model.attention": [{}, {"by_kind": {"self": {}}}]},
    ],
)
def test_one_value_in_two_spellings_is_refused_at_its_path(matrix: dict[str, Any]) -> None:
    (path,) = matrix
    assert "lists a value twice" in errors_of(matrix=matrix)[f"matrix/{path}"]


def test_two_cells_of_a_product_that_are_one_spec_are_refused_and_named() -> None:
    matrix = {"optimizer": [{"lr": 0.1}, {}], "optimizer.momentum": [0.0, 0.5], "optimizer.name": ["sgd"]}
    assert len(planned(matrix=matrix).runs) == 4
    twice = {"model.attention": [{}, {"d_k": 32}], "model.attention.d_v": [None, 32]}
    assert len(planned(matrix=twice).runs) == 4  # no effect is no repetition: the specs differ


def test_params_and_the_stored_matrix_hold_resolved_values() -> None:
    done = planned(matrix={"optimizer.lr": ["1e-4", 1], "train.steps": [300.0]})
    assert [repr(run.params["optimizer.lr"]) for run in done.runs] == ["0.0001", "1.0"]
    assert {repr(run.params["train.steps"]) for run in done.runs} == {"300"}
    assert done.matrix == {"optimizer.lr": [0.0001, 1.0], "train.steps": [300]}


@pytest.mark.parametrize(
    ("section", "field", "value", "words"),
    [
        ("train", "steps", True, "a whole number; you gave true"),
        ("train", "steps", "abc", "a whole number; you gave 'abc'"),
        ("train", "steps", "1_000", "a whole number"),
        ("train", "steps", " 6", "a whole number"),
        ("train", "steps", 6.5, "a whole number; you gave 6.5"),
        ("train", "steps", "6.5", "a whole number"),
        ("train", "steps", "٦", "a whole number"),
        ("optimizer", "lr", False, "a number; you gave false"),
        ("optimizer", "lr", "0x1", "a number"),
        ("optimizer", "lr", "nan", "a number"),
        ("optimizer", "lr", "1e999", "finite"),
        ("optimizer", "lr", float("inf"), "finite"),
        ("optimizer", "clip_norm", True, "a number; you gave true"),
        ("record", "per_head", 1, "true or false; you gave 1"),
        ("record", "per_head", "on", "true or false; you gave 'on'"),
        ("record", "per_head", "true", "true or false"),
        ("record", "maps_every", True, "a whole number"),
        ("resources", "pool", 7, "string"),
    ],
)
def test_a_value_of_another_type_is_refused(section: str, field: str, value: Any, words: str) -> None:
    found = spec_errors({**POINTER, section: {field: value, "every" if section == "record" else "zzz": 1}})
    assert words in found[f"{section}.{field}"]


def test_choices_of_numbers_take_no_truth_value() -> None:
    assert (
        "you gave true"
        in spec_errors({"task": "classify", "data": {"dataset": "digits"}, "model": {"patch": True}})["model.patch"]
    )
    assert parse_spec({**SEGMENT, "data": {"dataset": "scenes", "canvas": 32.0}}).data.canvas == 32  # type: ignore[union-attr]


def test_a_refused_value_of_the_matrix_is_named_once() -> None:
    errors = errors_of(spec=POINTER, matrix={"model.attention.variant": ["full", "no_qq"]})
    assert errors["matrix/model.attention.variant"].count("no_qq") == 1


def test_a_seed_of_the_spec_is_used_however_it_is_spelled() -> None:
    assert [run.seed for run in planned(spec={**POINTER, "seed": "7"}).runs] == [7]
    assert "you gave true" in errors_of(spec={**POINTER, "seed": True})["spec/seed"]


YAML_REFUSED = [
    ("task: pointer\noptimizer: {lr: 0.5}\ndata: {dataset: pointer}\noptimizer: {lr: 1}\n", "'optimizer'", 4),
    ("train:\n  steps: 1\n  batch_size: 2\n  steps: 3\n", "'steps'", 4),
    ('a:\n  1: x\n  "1": y\n', "'1'", 3),
    ("a: {'b': 1, \"b\": 2}\n", "'b'", 1),
    ("a:\n  - {x: 1}\n  - {y: 1,\n     y: 2}\n", "'y'", 4),
    ('{"a": 1, "\\u0061": 2}', "'a'", 1),
    ("a:\n  <<: {b: 1}\n  b: 2\n", "merge", 2),
    ("a: &x {b: 1}\nc: *x\n", "alias", 1),
]  # fmt: skip


@pytest.mark.parametrize(("text", "words", "line"), YAML_REFUSED)
def test_yaml_that_would_lose_something_is_refused_with_its_line(text: str, words: str, line: int) -> None:
    with pytest.raises(YamlError) as caught:
        load(text)
    assert words in str(caught.value)
    assert caught.value.line == line


def test_yaml_scalars_are_numbers_where_json_has_them_and_text_else() -> None:
    assert load("[1e-4, 010, 0x10, yes, on, 1:30, 2020-01-01, '1e5', true, ~, null, .5]") == [
        1e-4, 10, "0x10", "yes", "on", "1:30", "2020-01-01", "1e5", True, None, None, 0.5,
    ]  # fmt: skip


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), max_size=8)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS
KEYS = TEXTS.filter(lambda key: key != "<<")
TREES = st.recursive(
    LEAVES, lambda one: st.lists(one, max_size=3) | st.dictionaries(KEYS, one, max_size=3), max_leaves=8
)


@given(TREES)
def test_what_is_dumped_is_loaded_again(tree: Any) -> None:
    assert load(dump(tree)) == tree


def test_a_field_of_another_data_set_or_task_is_named_as_that() -> None:
    digits = {"task": "segment", "data": {"dataset": "digit-scenes", "distractors": 0.5}}
    assert spec_errors(digits)["data.distractors"] == "'distractors' is a field of data set scenes, not of digit-scenes"
    layers = spec_errors({**SEGMENT, "model": {"layers": 2}})["model.layers"]
    assert "is a field of the tasks classify, pointer" in layers
    assert layers.endswith("not of segment")
    assert "did you mean 'absent'" in spec_errors({**SEGMENT, "data": {"dataset": "scenes", "absnt": 0}})["data.absnt"]


def test_a_warm_up_longer_than_the_run_is_refused_and_the_default_is_clamped() -> None:
    found = spec_errors({**POINTER, "train": {"steps": 60}, "optimizer": {"warmup_steps": 61}})
    assert "at most train.steps (60)" in found["optimizer.warmup_steps"]
    short = parse_spec({**POINTER, "train": {"steps": 60}})
    assert resolved(short)["optimizer"]["warmup_steps"] == 60
    assert content_hash(short) == content_hash(parse_spec(resolved(short)))
    assert content_hash(short) == content_hash(
        parse_spec({**POINTER, "train": {"steps": 60}, "optimizer": {"warmup_steps": 60}})
    )


def test_a_preset_can_be_shortened_in_one_edit_below_its_warm_up() -> None:
    for change in ({"overrides": {"train.steps": 40}}, {"matrix": {"train.steps": ["40"]}}):
        (run,) = planned(spec=None, preset="learn-qkv", seeds=[0], **{"matrix": {}, **change}).runs  # type: ignore[arg-type]
        assert (run.spec.train.steps, run.spec.optimizer.warmup_steps) == (40, 40)
    asked = {"train.steps": 40, "optimizer.warmup_steps": 50}
    assert list(errors_of(spec=None, preset="learn-qkv", overrides=asked)) == ["overrides/optimizer.warmup_steps"]


def test_a_stored_spec_is_read_as_it_was_trained() -> None:
    old = resolved(parse_spec({**POINTER, "train": {"steps": 60}})) | {"optimizer": {"warmup_steps": 100}}
    spec = parse_spec(old, stored=True)
    assert resolved(spec)["optimizer"]["warmup_steps"] == 100
    assert content_hash(spec) != content_hash(parse_spec({**POINTER, "train": {"steps": 60}}))


@pytest.mark.parametrize(
    ("raw", "at"),
    [
        ({**POINTER, "model": {"heads": 3}}, "model.d_model"),
        ({**SEGMENT, "model": {"heads": 3, "ffn": 32}}, "model.d_model"),
        ({"task": "classify", "data": {"dataset": "digits"}, "model": {"heads": 6}}, "model.d_model"),
        ({**POINTER, "optimizer": {"warmup_steps": 1001}}, "optimizer.warmup_steps"),
    ],
)
def test_a_field_at_its_default_is_checked_against_the_others(raw: dict[str, Any], at: str) -> None:
    """It means the same as with the default written out; a stored one is read as it was accepted."""
    assert list(spec_errors(raw)) == [at]
    stored = parse_spec(raw, stored=True)
    assert list(spec_errors(resolved(stored))) == [at]
    assert content_hash(parse_spec(resolved(stored), stored=True)) == content_hash(stored)


@pytest.mark.parametrize(
    ("task", "attention", "refused"),
    [
        (POINTER, {"variant": "no_q", "frozen": ["W_q"]}, True),
        (POINTER, {"variant": "const_q", "frozen": ["W_q"]}, True),
        (POINTER, {"variant": "tied_qk", "frozen": ["W_k"]}, True),
        (POINTER, {"variant": "no_q", "frozen": ["W_k"]}, False),
        (POINTER, {"frozen": ["W_q"], "by_kind": {"self": {"variant": "no_q"}}}, True),
        (POINTER, {"frozen": ["W_q"], "by_kind": {"text": {"variant": "no_q"}}}, False),
        (SEGMENT, {"frozen": ["W_q"], "by_kind": {"text": {"variant": "no_q"}}}, True),
        (SEGMENT, {"frozen": ["W_q"], "by_kind": {"text_to_image": {"variant": "no_q"}}}, False),
        (POINTER, {"variant": "no_q", "frozen": ["W_q"], "by_kind": {"self": {"variant": "full"}}}, False),
    ],
)
def test_freezing_a_matrix_that_no_site_has_is_refused(
    task: dict[str, Any], attention: dict[str, Any], refused: bool
) -> None:
    raw = {**task, "model": {"attention": attention}}
    if refused:
        assert "does not have" in spec_errors(raw)["model.attention.frozen"]
        parse_spec(raw, stored=True)
    else:
        parse_spec(raw)


KINDS = {"self": {"variant": "no_q"}}
INERT: list[tuple[dict[str, Any], dict[str, Any], str, Any]] = [
    (POINTER, {}, "optimizer.momentum", 0.9),
    (POINTER, {"optimizer.name": "sgd"}, "optimizer.beta1", 0.8),
    (POINTER, {}, "optimizer.drop_every", 7),
    (POINTER, {}, "optimizer.drop_factor", 0.5),
    (POINTER, {"model.attention.init": "xavier"}, "model.attention.init_std", 0.5),
    (POINTER, {}, "model.attention.by_kind.image.variant", "no_q"),
    (SEGMENT, {}, "model.attention.by_kind.text_to_image.variant", "no_q"),
    (POINTER, {"model.attention.by_kind": KINDS}, "model.attention.variant", "tied_qk"),
    (POINTER, {"model.attention.variant": "uniform"}, "model.attention.scale", "none"),
    (SEGMENT, {}, "loss.mask_l2", 1.0),
    (SEGMENT, {"loss.mask_form": "l2"}, "loss.mask_dice", 1.0),
    ({"task": "hf", "data": {"dataset": "text"}, "model": {"config": {"model_type": "gpt2"}}}, {}, "loss.score", 1.0),
]  # fmt: skip


@pytest.mark.parametrize(("base", "with_it", "path", "value"), INERT)
def test_what_acts_in_no_run_is_refused_where_it_is_written(
    base: dict[str, Any], with_it: dict[str, Any], path: str, value: Any
) -> None:
    assert "has no effect" in errors_of(spec=base, overrides={**with_it, path: value})[f"overrides/{path}"]
    above, _, name = path.rpartition(".")
    section = errors_of(spec=base, overrides=with_it, matrix={above: [{name: value}]}) if not with_it else {}
    assert all(f"{path}: has no effect" in message for message in section.values())
    default = dict(flatten(resolved(planned(spec=base, overrides=with_it).spec)))[path]
    assert planned(spec=base, overrides={**with_it, path: default}).runs
    only = errors_of(spec=base, overrides=with_it, matrix={path: [value]})
    assert "has no effect" in only[f"matrix/{path}"]
    varied = planned(spec=base, overrides=with_it, matrix={path: [default, value]})  # an alarm tells of it
    assert len({json.dumps(effective(resolved(run.spec)), sort_keys=True) for run in varied.runs}) == 1
    whole = resolved(planned(spec=base, overrides=with_it).spec)
    *parents, leaf = path.split(".")
    here = whole
    for part in parents:
        here = here[part]
    here[leaf] = value
    assert planned(spec=whole).runs[0].spec == parse_spec(whole)  # a run's resolved spec that is sent again
    del whole["record"]
    assert list(errors_of(spec=whole, matrix={"train.steps": [200, 300]})) == [f"spec/{path.replace('.', '/')}"]


def test_what_acts_in_some_run_is_used() -> None:
    spec = {**POINTER, "optimizer": {"momentum": 0.9}}
    both = planned(spec=spec, matrix={"optimizer.name": ["adamw", "sgd"]})
    for run in both.runs:
        assert planned(spec=resolved(run.spec)).runs[0].spec_hash == run.spec_hash


def test_a_seed_of_the_spec_that_is_not_trained_is_refused() -> None:
    assert "has no effect" in errors_of(spec={**POINTER, "seed": 5}, seeds=[1, 2])["spec/seed"]
    for fields in ({"seeds": [5, 6]}, {"seeds": []}):
        assert planned(spec={**POINTER, "seed": 5}, **fields).seeds[0] == 5
    assert planned(spec={**POINTER, "seed": 0}, seeds=[1, 2]).seeds == [1, 2]


TEXT = {"task": "language", "data": {"dataset": "text"}}
COCO = {"task": "segment", "data": {"dataset": "coco", "path": "a"}}
HF = {"task": "hf", "data": {"dataset": "text"}, "model": {"config": {"model_type": "gpt2"}}}
ONE_VALUE: list[tuple[dict[str, Any], str, Any, Any]] = [
    (POINTER, "model.attention.frozen", ["W_q", "W_k"], ["W_k", "W_q"]),
    (POINTER, "model.attention.frozen", ["W_q"], ["W_q", "W_q"]),
    (POINTER, "model.attention.frozen", ["W_q", "W_k", "W_v", "W_o"], ["W_o", "W_v", "W_q", "W_k", "W_o"]),
    (SEGMENT, "data.held_out", ["red car", "red tree"], ["red tree", "red car", "red tree"]),
    (HF, "model.frozen", ["a", "b"], ["b", "a", "b"]),
    (TEXT, "data.path", "a.txt", "./a.txt"),
    (TEXT, "data.path", "a/b.txt", "a//b.txt"),
    (COCO, "data.path", "a", "a/"),
    (COCO, "data.path", ".", ""),
    ({**HF, "model": {"path": "z"}}, "model.path", "a/b", "a/./b"),
]  # fmt: skip


@pytest.mark.parametrize(("base", "path", "plain", "spelled"), ONE_VALUE)
def test_a_set_and_a_path_are_one_value_in_every_spelling(
    base: dict[str, Any], path: str, plain: Any, spelled: Any
) -> None:
    one, other = (planned(spec=base, overrides={path: value}) for value in (plain, spelled))
    assert one.spec_hash == other.spec_hash
    assert content_hash(one.spec) == content_hash(other.spec)
    assert dict(flatten(resolved(other.spec)))[path] == plain
    assert "lists a value twice" in errors_of(spec=base, matrix={path: [plain, spelled]})[f"matrix/{path}"]


def test_a_stored_set_or_path_keeps_its_spelling_and_its_hash() -> None:
    for base, path, plain, spelled in ONE_VALUE[:7]:
        old = resolved(planned(spec=base, overrides={path: plain}).spec)
        *above, field = path.split(".")
        section = old
        for part in above:
            section = section[part]
        section[field] = spelled
        assert resolved(parse_spec(old, stored=True)) == json.loads(json.dumps(old))
        assert content_hash(parse_spec(old, stored=True)) != content_hash(parse_spec(old))


def test_a_path_that_turns_back_is_refused() -> None:
    assert "'..'" in errors_of(spec=TEXT, overrides={"data.path": "x/../a.txt"})["overrides/data.path"]


@st.composite
def specs(draw: st.DrawFn) -> dict[str, Any]:
    """Valid specs of several tasks in several spellings."""
    number = lambda low, high: st.integers(low, high).map(draw(st.sampled_from([int, float, str])))  # noqa: E731
    task = draw(st.sampled_from([POINTER, SEGMENT, {"task": "classify", "data": {"dataset": "digits"}}]))
    steps = draw(st.integers(1, 300))
    optimizer: dict[str, Any] = {"lr": draw(st.sampled_from([1e-3, "1e-3", 1, "2"]))}
    if draw(st.booleans()):
        optimizer["warmup_steps"] = draw(number(0, steps))
    variant = draw(st.sampled_from(["full", "no_q", "tied_qk", "uniform"]))
    kind = draw(st.sampled_from(["self", "text", "image"]))
    own = draw(st.sampled_from([None, "full", "const_q"]))
    attention = {"variant": variant, "by_kind": {kind: {"variant": own}}}
    raw = {**task, "model": {"heads": draw(number(1, 2)), "attention": attention}}
    raw |= {"train": {"steps": steps, "batch_size": draw(number(1, 9))}, "optimizer": optimizer}
    return raw | ({"seed": draw(number(0, 9))} if draw(st.booleans()) else {})


@settings(max_examples=60)
@given(specs())
def test_a_resolved_spec_sent_again_is_the_same_spec(raw: dict[str, Any]) -> None:
    spec = parse_spec(raw)
    again = parse_spec(resolved(spec))
    assert resolved(again) == resolved(spec)
    assert content_hash(again) == content_hash(spec)
    assert resolved(parse_spec(load(dump(resolved(spec))))) == resolved(spec)
