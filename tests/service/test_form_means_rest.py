"""The form, its YAML editor, a template and REST give the same runs."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import transaction
from django.test import Client
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from experiments import lifecycle
from experiments.models import Experiment, Run
from experiments.pages.new_experiment import spec_form
from experiments.spec import TASKS, content_hash, parse_spec, resolved
from experiments.submissions.presets import presets
from experiments.submissions.submission import SubmissionError, plan
from tests.service.api_client import API, client_of, needs_database
from tests.service.factories import make_project, make_user
from tests.service.html_form import sent_by

pytestmark = needs_database
NEW, EDITOR = "/experiments/new/", "/experiments/new/editor/"
GPT2, SAM3 = {"model_type": "gpt2", "n_embd": 16}, {"model_type": "sam3"}
Trained = list[tuple[int, dict[str, Any], int, dict[str, Any], str]]


@pytest.fixture
def user() -> Any:
    person = make_user("ed")
    make_project("lab", editor=person)
    return person


@pytest.fixture
def ed(user: Any) -> Client:
    browser = Client()
    browser.force_login(user)
    return browser


def trained(experiment: Experiment) -> Trained:
    """The stored definition of each run."""
    rows = experiment.runs.order_by("index")
    return [(run.index, run.params, run.seed, run.spec, run.spec_hash) for run in rows]


def by_rest(user: Any, **body: Any) -> Experiment:
    reply = client_of(user).post(f"{API}/experiments/", {"name": "by REST", "project": "lab", **body}, format="json")
    assert reply.status_code == 201, reply.content
    return Experiment.objects.get(pk=reply.json()["id"])


def send(browser: Client, form: dict[str, Any]) -> Experiment:
    reply = browser.post(NEW, {"project": "lab", **form, "name": "by form"})
    assert reply.status_code == 302, reply.content.decode()
    return Experiment.objects.latest("pk")


def opened(browser: Client, address: str) -> dict[str, Any]:
    return dict(sent_by(browser.get(address).content.decode()))


def edited(browser: Client, form: dict[str, Any]) -> dict[str, Any]:
    """The form after its editor was reloaded: for another task or dataset, or as YAML."""
    html = browser.post(EDITOR, form).content.decode()
    kept = {name: values for name, values in form.items() if name.split(".")[0] not in {"spec", "has", "shown", "to"}}
    return {**kept, **sent_by(html)}


@pytest.mark.parametrize("name", presets())
def test_a_preset_submitted_untouched_is_what_rest_stores(ed: Client, user: Any, name: str) -> None:
    form = opened(ed, f"{NEW}?preset={name}")
    wanted = trained(by_rest(user, preset=name))
    assert trained(send(ed, form)) == wanted
    as_yaml = edited(ed, {**form, "to": "yaml"})
    assert as_yaml["source"] == ["yaml"]
    assert trained(send(ed, as_yaml)) == wanted
    assert trained(send(ed, edited(ed, {**as_yaml, "to": "form"}))) == wanted


@pytest.mark.parametrize("name", presets())
def test_a_preset_in_another_pool_keeps_all_its_runs(ed: Client, user: Any, name: str) -> None:
    form = opened(ed, f"{NEW}?preset={name}") | {"spec.resources.pool": "gpu"}
    assert trained(send(ed, form)) == trained(by_rest(user, preset=name, pool="gpu"))


BRANCHES = [(task, dataset) for task in TASKS for dataset in spec_form.datasets(task)]


def required(task: str, dataset: str) -> dict[str, Any]:
    """Fields without a default, by path."""
    config = SAM3 if dataset.endswith("scenes") else {"model_type": "vit"} if dataset == "digits" else GPT2
    known = spec_form.fields(task, dataset)
    return {path: value for path, value in {"data.path": "a.txt", "model.config": config}.items() if path in known}


@pytest.mark.parametrize(("task", "dataset"), BRANCHES)
def test_a_blank_form_that_is_switched_to_a_task_is_that_task_at_its_defaults(
    ed: Client, user: Any, task: str, dataset: str
) -> None:
    form = opened(ed, NEW)
    form = edited(ed, {**form, "spec.task": task})
    form = edited(ed, {**form, "spec.data.dataset": dataset})
    spec: dict[str, Any] = {"task": task, "data": {"dataset": dataset}}
    for path, value in required(task, dataset).items():
        section, leaf = path.split(".")
        spec.setdefault(section, {})[leaf] = value
        form[f"spec.{path}"] = str(value)
    assert trained(send(ed, form)) == trained(by_rest(user, spec=spec))


def test_what_was_changed_survives_a_switch_and_what_was_not_follows_it(ed: Client, user: Any) -> None:
    form = opened(ed, NEW) | {"spec.optimizer.lr": "0.01", "spec.train.batch_size": "7"}
    form = edited(ed, {**form, "spec.task": "pointer"})
    spec = {"task": "pointer", "data": {"dataset": "pointer"}}
    changed = {"optimizer": {"lr": 0.01}, "train": {"batch_size": 7}}
    assert trained(send(ed, form)) == trained(by_rest(user, spec=spec | changed))


def test_a_shortened_blank_form_warms_up_as_rest_does(ed: Client, user: Any) -> None:
    form = opened(ed, NEW) | {"spec.train.steps": "60"}
    spec = {"task": "segment", "data": {"dataset": "scenes"}, "train": {"steps": 60}}
    assert trained(send(ed, form)) == trained(by_rest(user, spec=spec))


def test_variants_chosen_in_the_form_train_different_models(ed: Client) -> None:
    """The fault that this module was written for: an untouched select said `full` for every kind of site."""
    matrix = {"matrix-path": ["model.attention.variant"], "matrix-values": ["full, const_q"]}
    form = opened(ed, f"{NEW}?preset=token-roles") | matrix | {"seeds": "0-1"}
    runs = list(send(ed, form).runs.order_by("index"))
    assert [run.spec["model"]["attention"]["variant"] for run in runs] == ["full", "full", "const_q", "const_q"]
    for run in runs:
        assert {site["variant"] for site in run.spec["model"]["attention"]["by_kind"].values()} == {None}


def test_what_a_changed_preset_leaves_out_is_reported_before_and_after(ed: Client, user: Any) -> None:
    form = opened(ed, f"{NEW}?preset=why-q") | {"spec.data.tokens": "8"}
    told = ed.post(f"{NEW}check/", form).content.decode()
    assert "24 runs of task segment" in told
    assert "Submit 128 runs" in told
    reply = client_of(user).post(
        f"{API}/experiments/",
        {"name": "x", "project": "lab", "preset": "why-q", "overrides": {"data.tokens": 8}},
        format="json",
    )
    assert "24 runs of task segment" in reply.json()["left_out"][0]
    assert trained(send(ed, form)) == trained(Experiment.objects.get(pk=reply.json()["id"]))
    assert "24 runs of task segment" in ed.get("/experiments/").content.decode()


@pytest.mark.parametrize(
    ("typed", "overrides"),
    [
        ({"spec.optimizer.lr": "0.003"}, {"optimizer.lr": 0.003}),
        ({"spec.train.steps": "50"}, {"train.steps": 50}),
        (
            {"spec.train.steps": "50", "spec.optimizer.warmup_steps": "5"},
            {"train.steps": 50, "optimizer.warmup_steps": 5},
        ),
    ],
)
def test_a_change_that_every_part_can_take_keeps_them_all(
    ed: Client, user: Any, typed: dict[str, str], overrides: dict[str, Any]
) -> None:
    """Both parts of why-q are given it: of 600 steps and 400, each becomes one of 50, and their warm-ups follow."""
    form = opened(ed, f"{NEW}?preset=why-q") | typed
    told = ed.post(f"{NEW}check/", form).content.decode()
    assert ("Submit 152 runs" in told, "left out" in told) == (True, False)
    rows = trained(by_rest(user, preset="why-q", overrides=overrides))
    assert trained(send(ed, form)) == rows
    for path, value in overrides.items():
        section, name = path.split(".")
        assert {spec[section][name] for _, _, _, spec, _ in rows} == {value}


@pytest.mark.parametrize("matrix", [{}, {"optimizer.beta1": [0.8, 0.9]}])
def test_a_template_means_the_runs_that_were_trained(ed: Client, user: Any, matrix: dict[str, Any]) -> None:
    """A section of a matrix once set what it did not name to the defaults; now it leaves that as the base has it."""
    spec = {"task": "roles", "data": {"dataset": "roles"}, "optimizer": {"clip_norm": 1.0}}
    stored = by_rest(user, spec=spec, matrix={"optimizer": [{"lr": 0.5}, {"lr": 0.25}], **matrix})
    wanted = [row[3:] for row in trained(stored)]
    assert {spec["optimizer"]["clip_norm"] for spec, _ in wanted} == {1.0}
    again = send(ed, opened(ed, f"{NEW}?from={stored.pk}"))
    assert (again.matrix, [row[3:] for row in trained(again)]) == (stored.matrix, wanted)
    for run in stored.runs.all():
        spec_of_old = parse_spec({**run.spec, "optimizer": {**run.spec["optimizer"], "clip_norm": 0.1}})
        Run.objects.filter(pk=run.pk).update(spec=resolved(spec_of_old), spec_hash=content_hash(spec_of_old))
    assert [row[3:] for row in trained(send(ed, opened(ed, f"{NEW}?from={stored.pk}")))] == [
        row[3:] for row in trained(stored)
    ]


def test_tags_with_commas_and_quotes_stay_what_they_are_in_a_template(ed: Client, user: Any) -> None:
    tags = ["plain", "a, b", '"quoted"', 'half "a', "  blanks ", "x,", 'say "a, b"']
    first = by_rest(user, spec={"task": "pointer", "data": {"dataset": "pointer"}}, tags=tags)
    assert send(ed, opened(ed, f"{NEW}?from={first.pk}")).tags == tags


def test_frozen_modules_of_a_model_of_transformers_can_be_typed(ed: Client, user: Any) -> None:
    spec = {"task": "hf", "data": {"dataset": "text"}, "model": {"config": GPT2, "frozen": ["wte", "h.0, x"]}}
    form = edited(ed, opened(ed, NEW) | {"spec.task": "hf"})
    form = edited(ed, {**form, "spec.data.dataset": "text"}) | {"spec.model.config": str(GPT2)}
    for text in ("wte, 'h.0, x'", '["wte", "h.0, x"]'):
        assert trained(send(ed, {**form, "spec.model.frozen": text})) == trained(by_rest(user, spec=spec))


@pytest.mark.parametrize(("text", "words"), [("wte, [", "must be a list"), ("wte, 3", "string")])
def test_frozen_modules_that_are_no_list_of_names_are_refused_at_their_field(ed: Client, text: str, words: str) -> None:
    form = edited(ed, opened(ed, NEW) | {"spec.task": "hf"})
    form |= {"spec.model.config": str(GPT2), "spec.model.frozen": text, "name": "x", "project": "lab"}
    html = ed.post(NEW, form).content.decode()
    assert words in html.split('data-error-for="spec.model.frozen">')[1].split("<")[0]
    assert f'value="{text}"' in html


def test_the_whole_count_is_announced(ed: Client) -> None:
    told = ed.post(f"{NEW}check/", opened(ed, f"{NEW}?preset=why-q")).content.decode()
    assert "Submit 152 runs" in told
    assert "16 variants of pointer and 3 variants of segment × 8 seeds" in " ".join(told.split())


def test_all_errors_are_reported_at_once_each_at_its_field(ed: Client) -> None:
    wrong = {"spec.model.d_model": "65", "spec.optimizer.lr": "0", "name": "", "seeds": "3-1", "priority": "many"}
    form = opened(ed, NEW) | wrong
    html = ed.post(NEW, form).content.decode()
    for name in ("spec.optimizer.lr", "name", "seeds", "priority"):
        assert f'data-error-for="{name}">' in html
        assert html.split(f'data-error-for="{name}">')[1].split("<")[0].strip(), name


def test_an_error_that_a_value_of_the_matrix_causes_stands_at_its_row(ed: Client) -> None:
    form = opened(ed, NEW) | {"matrix-path": ["train.steps", "model.d_model"], "matrix-values": ["200, 300", "64, 65"]}
    page = ed.post(f"{NEW}check/", form).content.decode()
    assert "matrix.model.d_model" in page
    assert "spec.model" not in page


def test_a_field_that_acts_in_no_run_is_refused_at_itself_in_the_form_and_as_yaml(ed: Client) -> None:
    for address in (NEW, f"{NEW}?preset=token-roles"):
        form = opened(ed, address) | {"spec.optimizer.momentum": "0.9"}
        html = ed.post(NEW, form).content.decode()
        assert "optimizer.name is adamw" in html.split('data-error-for="spec.optimizer.momentum">')[1].split("<")[0]
        as_yaml = edited(ed, {**form, "to": "yaml"})
        assert "momentum: 0.9" in as_yaml["yaml"][0]
        assert "has no effect: optimizer.name is adamw" in ed.post(NEW, as_yaml).content.decode()


def test_yaml_that_the_form_cannot_show_stays_yaml(ed: Client) -> None:
    form = edited(ed, {**opened(ed, NEW), "to": "yaml"})
    form["yaml"] = [form["yaml"][0].replace("d_model", "d_modle")]
    again = edited(ed, {**form, "to": "form"})
    assert again["source"] == ["yaml"]
    assert "d_modle" in again["yaml"][0]


def some_value(item: spec_form.Field) -> st.SearchStrategy[Any]:
    """Values of a field, good ones mostly; `None` is what optional fields are without one."""
    absent = [st.none()] if item.optional else []
    if item.kind == "choice":
        return st.one_of(st.sampled_from(item.choices), *absent)
    if item.kind == "many":
        return st.lists(st.sampled_from(item.choices), max_size=2, unique=True)
    if item.kind == "list":
        return st.lists(st.sampled_from(["vision_encoder", "a, b", "1e-4", "yes", "x: y", "[z", "0o7", ""]), max_size=3)
    if item.kind == "flag":
        return st.booleans()
    if item.kind == "int":
        low = int(item.low or 0)
        return st.one_of(st.integers(low, low + 8), st.sampled_from([4, 8, 16, 64, 128]), *absent)
    if item.kind == "float":
        return st.one_of(st.sampled_from([0.0, 0.05, 0.25, 0.5, 1.0, 2.0, 1e-4]), *absent)
    return st.just(item.default)


@st.composite
def specs(draw: st.DrawFn) -> dict[str, Any]:
    task, dataset = draw(st.sampled_from(BRANCHES))
    fields = spec_form.fields(task, dataset)
    spec: dict[str, Any] = {"task": task, "data": {"dataset": dataset}}
    chosen = draw(st.lists(st.sampled_from(sorted(fields)), max_size=5, unique=True))
    settings_of = {path: draw(some_value(fields[path])) for path in chosen if fields[path].kind != "text"}
    for path, value in (settings_of | required(task, dataset)).items():
        here = spec
        *parents, leaf = path.split(".")
        for part in parents:
            here = here.setdefault(part, {})
        here[leaf] = value
    return spec


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), print_blob=False)
@given(spec=specs())
def test_any_spec_keeps_its_meaning_through_every_way_in(ed: Client, user: Any, spec: dict[str, Any]) -> None:
    """REST, a template in the form, the same as YAML, and a seed that is added later: one resolved spec, one hash."""
    try:
        plan({"name": "x", "spec": spec})
    except SubmissionError:
        assume(False)
    with transaction.atomic():
        stored = by_rest(user, spec=spec)
        wanted = trained(stored)
        form = opened(ed, f"{NEW}?from={stored.pk}")
        assert trained(send(ed, form)) == wanted
        assert trained(send(ed, edited(ed, {**form, "to": "yaml"}))) == wanted
        assert trained(by_rest(user, spec=wanted[0][3])) == wanted
        (added,) = lifecycle.append_seeds(stored.pk, [0, 11], user, max_runs=10)
        row: Run = added
        assert {**row.spec, "seed": 0} == wanted[0][3]
        transaction.set_rollback(True)
