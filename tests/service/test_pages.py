"""Pages: permissions, query counts of tables, and rejected forms."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.test import Client

from experiments import lifecycle
from experiments.models import Experiment, Group, Headline, Project, Run, Worker
from experiments.pages import urls
from experiments.pages.runs import table
from experiments.states import State
from experiments.templatetags.attn import ending
from tests.service.factories import SPEC, claim, make_experiment, make_project, make_run, make_user, make_worker, train
from tests.service.html_form import flowing

pytestmark = pytest.mark.django_db
PAGES = ["/", "/projects/", "/projects/lab/", "/experiments/", "/experiments/new/", "/runs/", "/compare/", "/workers/"]


def browser_of(user: Any) -> Client:
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def editor() -> Any:
    return make_user("ed")


@pytest.fixture
def project(editor: Any) -> Project:
    return make_project("lab", editor=editor)


@pytest.fixture
def ed(editor: Any, project: Project) -> Client:
    return browser_of(editor)


def form(**fields: Any) -> dict[str, Any]:
    text = "task: classify\ndata: {dataset: digits}\noptimizer: {warmup_steps: 2}\ntrain: {steps: 20}\n"
    usual = {"source": "yaml", "yaml": text, "name": "a question", "project": "lab", "seeds": "0-1", "priority": "0"}
    return usual | fields


@pytest.mark.parametrize("path", PAGES)
def test_a_page_opens_for_a_member_and_redirects_a_stranger_to_the_sign_in(ed: Client, path: str) -> None:
    assert ed.get(path).status_code == 200
    answer = Client().get(path)
    assert answer.status_code == 302
    assert answer["Location"].startswith("/login/?next=")


def test_what_belongs_to_others_is_not_found(ed: Client) -> None:
    run = make_run(make_project("theirs"))
    asked = 0
    for kind, pk in (("runs", run.pk), ("experiments", run.experiment_id)):
        for pattern in (str(each.pattern) for each in urls.urlpatterns):
            if pattern.startswith(f"{kind}/<int:pk>/"):
                path = "/" + pattern.replace("<int:pk>", str(pk))
                answers = {answer.status_code for answer in (ed.get(path), ed.post(path))}
                assert 404 in answers <= {404, 405}, path
                asked += 1
    assert asked > 12
    assert ed.get(f"/runs/{run.pk}/?tab=config").status_code == 404
    assert ed.get(f"/experiments/new/?from={run.experiment_id}").status_code == 404
    assert Run.objects.get().state == State.QUEUED
    address, whoever_sees_all = f"/compare/?runs={run.pk}", browser_of(make_user(is_superuser=True))
    for browser, sees in ((whoever_sees_all, True), (ed, False)):
        assert (run in browser.get("/runs/").context["runs"]) == sees
        assert (f"/runs/{run.pk}/" in browser.get(address).content.decode()) == sees


def test_a_viewer_may_look_and_change_nothing() -> None:
    viewer = make_user()
    project = make_project("lab", viewer=viewer)
    run = make_run(project)
    client = browser_of(viewer)
    assert client.get(f"/runs/{run.pk}/").status_code == 200
    assert client.post(f"/runs/{run.pk}/cancel/").status_code == 403
    assert client.post("/experiments/new/", form()).status_code == 403
    assert Run.objects.get(pk=run.pk).state == "queued"


def test_the_form_submits_what_rest_would(ed: Client) -> None:
    fields = {"matrix-path": ["model.attention.variant"], "matrix-values": ["full, no_q"]}
    answer = ed.post("/experiments/new/", form(**fields))
    experiment = Experiment.objects.get()
    assert answer["Location"] == f"/experiments/{experiment.pk}/"
    assert experiment.matrix == {"model.attention.variant": ["full", "no_q"]}
    assert experiment.seeds == [0, 1]
    assert experiment.runs.count() == 4


def test_a_preset_that_was_changed_keeps_its_name(ed: Client) -> None:
    page = ed.get("/experiments/new/?preset=learn-qkv")
    draft = page.context["draft"]
    fields = {"preset": draft.preset, "yaml": draft.yaml.replace("steps: 600", "steps: 200")}
    ed.post("/experiments/new/", form(**fields))
    experiment = Experiment.objects.get()
    assert (experiment.preset, experiment.spec["train"]["steps"]) == ("learn-qkv", 200)


@pytest.mark.parametrize(
    ("fields", "at"),
    [
        ({"name": " "}, "name"),
        ({"preset": "sam4"}, "preset"),
        ({"project": "theirs"}, "project"),
        ({"priority": "high"}, "priority"),
        ({"seeds": "0-99999999"}, "seeds"),
        ({"seeds": "-1"}, "seeds"),
        ({"seeds": ""}, "seeds"),
        ({"yaml": "task: [segment"}, "yaml"),
        ({"yaml": "just words"}, "yaml"),
        ({"yaml": "a: &x [1]\nb: *x"}, "yaml"),
        ({"yaml": "[" * 10_000}, "yaml"),
        ({"yaml": "x" * 70_000}, "yaml"),
        ({"yaml": "a: !!python/object/apply:os.system [ls]"}, "yaml"),
        ({"yaml": "task: classify\ndata: {dataset: digits}\ntrain: {steps: -1}"}, "spec.train.steps"),
        ({"matrix-path": ["train.steps"], "matrix-values": ["[1, &a 2, *a]"]}, "matrix.train.steps"),
        ({"matrix-path": ["train.steps"], "matrix-values": ["0"]}, "matrix.train.steps"),
        ({"matrix-path": ["train.stepz"], "matrix-values": ["3"]}, "matrix.train.stepz"),
        ({"matrix-path": [""], "matrix-values": ["3"]}, "matrix.0"),
    ],
)
def test_bad_input_is_reported_at_its_field_and_nothing_is_stored(ed: Client, fields: dict[str, Any], at: str) -> None:
    answer = ed.post("/experiments/new/", form(**fields))
    assert answer.status_code == 400
    assert at in answer.context["errors"], answer.context["errors"]
    assert not Experiment.objects.exists()


def test_an_unknown_preset_in_the_address_is_reported_beside_a_blank_form(ed: Client) -> None:
    answer = ed.get("/experiments/new/?preset=sam3-lit")
    assert answer.status_code == 400
    assert "did you mean &#x27;sam3-lite&#x27;" in answer.content.decode()


def test_the_form_shows_the_cost_before_anything_is_submitted(ed: Client, project: Project) -> None:
    fields = form(**{"matrix-path": ["model.attention.variant"], "matrix-values": ["full, no_q"]})
    before = ed.post("/experiments/new/check/", fields)
    smallest, largest = before.context["smallest"], before.context["largest"]
    assert 0 < smallest < largest
    assert f"{smallest:,} to {largest:,}" in flowing(before.content.decode())
    assert "no similar run measured yet" in before.content.decode()
    ed.post("/experiments/new/", fields)
    for run in Run.objects.all():
        Run.objects.filter(pk=run.pk).update(state="succeeded", finished=run.created)
        Headline.objects.create(run=run, key="time/step_ms", last=250.0)
    after = ed.post("/experiments/new/check/", fields)
    assert after.context["seconds"] == 4 * 20 * 0.25
    assert "about 20 s in all" in flowing(after.content.decode())


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("model.attention.frozen", "attention.frozen"),
        ("train.steps", "train.steps"),
        ("a.b" + "x" * 30, "b" + "x" * 30),
    ],
)
def test_a_column_of_variants_is_headed_by_the_last_words_of_its_path(path: str, shown: str) -> None:
    assert ending(path) == shown


def test_a_blank_form_complains_about_nothing_until_it_is_sent(ed: Client) -> None:
    assert ed.get("/experiments/new/").context["errors"] == {}
    assert "name" in ed.post("/experiments/new/check/", form(name="")).context["errors"]


@pytest.mark.parametrize("path", ["/runs/", "/experiments/", "/", "/workers/", "/compare/?runs={ids}"])
def test_a_list_costs_the_same_for_one_run_and_for_twenty(
    ed: Client, project: Project, django_assert_max_num_queries: Callable[..., Any], path: str
) -> None:
    first = make_experiment(project, seeds=[0, 1])
    make_worker()

    def cost() -> int:
        ids = ",".join(str(pk) for pk in Run.objects.values_list("pk", flat=True))
        with django_assert_max_num_queries(60) as counted:
            assert ed.get(path.format(ids=ids)).status_code == 200
        return len(counted)

    few = cost()
    for _ in range(3):
        make_worker()
        make_experiment(project, seeds=list(range(6)), spec=SPEC)
    assert first.pk
    assert cost() <= few + 1


def test_the_table_filters_sorts_and_names_its_columns(ed: Client, project: Project) -> None:
    experiment = make_experiment(project, seeds=[0, 1], matrix={"optimizer.lr": [0.1, 0.01]})
    taken = claim()
    train(taken.held, 0, 20)
    page = ed.get("/runs/?param.optimizer.lr=0.1&ordering=seed&cols=param.train.steps,metric.loss/total")
    assert [run.seed for run in page.context["runs"]] == [0, 1]
    assert [column.key for column in page.context["columns"]] == ["param.train.steps", "metric.loss/total"]
    numbers = re.findall(r'<td class="num">([^<]*)</td>', page.content.decode())
    assert numbers == ["0", "19", "1", "–"], "seed and last loss of the run that has trained, and of the one that waits"
    assert ed.get("/runs/?state=running").context["page"].count == 1
    assert ed.get(f"/runs/?experiment={experiment.pk}").context["page"].count == 4


def test_the_table_pages_forward_and_back(ed: Client, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = make_experiment(project, seeds=[3, 1, 4, 0, 2])
    monkeypatch.setattr(table, "PAGE_SIZE", 2)
    shown, links, path = [], [], "?ordering=seed"
    while path:
        page = ed.get(f"/runs/{path}").context
        assert page["page"].count == experiment.runs.count()
        shown.append([run.seed for run in page["runs"]])
        links.append(page["earlier"])
        path = page["later"]
    assert shown == [[0, 1], [2, 3], [4]]
    assert links[0] is None
    assert [run.seed for run in ed.get(f"/runs/{links[2]}").context["runs"]] == [2, 3]


def test_the_three_inputs_of_a_filter_become_what_rest_understands(ed: Client) -> None:
    answer = ed.get("/runs/?state=running&where=metric.loss/total&sign=lt&value=0.5&cursor=x")
    assert answer["Location"] == "/runs/?state=running&metric.loss%2Ftotal__lt=0.5"


@pytest.mark.parametrize(
    "query", ["colour=red", "state=asleep", "metric.loss/total__lt=much", "ordering=beauty", "cursor=guessed"]
)
def test_an_invalid_filter_is_reported(ed: Client, query: str) -> None:
    page = ed.get(f"/runs/?{query}")
    assert page.status_code == 400
    assert f"<code>{query.partition('=')[0]}</code>" in page.content.decode()


def test_compare_shows_the_matrices_of_the_sites_that_runs_share(ed: Client, project: Project) -> None:
    experiment = make_experiment(project, seeds=[0, 1, 2])
    own = ["grad_norm/b/W_q", "grad_norm/c/W_q", "grad_norm/d/W_q"]
    for run, name in zip(experiment.runs.order_by("id"), own, strict=True):
        names = ["grad_norm/total", "grad_norm/a/W_q", "grad_norm/a/W_v", "grad_norm/a/W_q/head.0", name]
        Group.objects.create(run=run, name="train", names=names)
    address = "/compare/?runs=" + ",".join(str(run.pk) for run in experiment.runs.all())
    page = ed.get(address)
    sites = [(site.name, site.series) for site in page.context["sites"]]
    assert sites == [("a", ("grad_norm/a/W_q", None, "grad_norm/a/W_v"))]
    assert ed.get(f"{address}&names=grad_norm/total").context["sites"] == []


def test_cancel_and_retry_go_through_the_same_verbs_as_rest(ed: Client, project: Project) -> None:
    run = make_run(project)
    ed.post(f"/runs/{run.pk}/cancel/")
    assert Run.objects.get(pk=run.pk).state == "cancelled"
    assert "already ended" in ed.post(f"/runs/{run.pk}/cancel/", follow=True).content.decode()
    ed.post(f"/runs/{run.pk}/retry/")
    assert Run.objects.get(pk=run.pk).state == "queued"


def test_the_whole_experiment_can_be_cancelled(ed: Client, project: Project) -> None:
    experiment = make_experiment(project, seeds=[0, 1, 2])
    ed.post(f"/experiments/{experiment.pk}/cancel/")
    assert set(experiment.runs.values_list("state", flat=True)) == {"cancelled"}


def test_a_claimed_run_says_what_it_waits_for(ed: Client, project: Project) -> None:
    run = make_run(project)
    words = "starting the trainer"
    assert words not in ed.get(f"/runs/{run.pk}/live/").content.decode()
    assert lifecycle.claim([run.pool], make_worker()) is not None
    assert words in ed.get(f"/runs/{run.pk}/live/").content.decode()


def test_a_log_is_continued_after_its_last_line(ed: Client, project: Project) -> None:
    run = make_run(project)
    held = claim(run).held
    lifecycle.add_log(held, "first <b>line</b>")
    first = ed.get(f"/runs/{run.pk}/log/")
    assert "first &lt;b&gt;line" in first.content.decode()
    lifecycle.add_log(held, "second line")
    rest = ed.get(f"/runs/{run.pk}/log/?after={first.context['after']}").content.decode()
    assert "second line" in rest
    assert "first" not in rest


def test_draining_a_worker_needs_the_permission_to_change_workers() -> None:
    worker, someone = make_worker(), make_user(is_staff=True)
    assert browser_of(someone).post(f"/workers/{worker.pk}/drain/", {"draining": "on"}).status_code == 403
    assert ">Drain<" not in browser_of(someone).get("/workers/").content.decode()
    assert not Worker.objects.get(pk=worker.pk).draining
    someone.user_permissions.add(Permission.objects.get(codename="change_worker"))
    assert ">Drain<" in browser_of(someone).get("/workers/").content.decode()
    for word, draining in (("on", True), ("off", False)):
        browser_of(someone).post(f"/workers/{worker.pk}/drain/", {"draining": word})
        assert Worker.objects.get(pk=worker.pk).draining is draining


def test_the_page_of_an_ended_run_stops_polling(ed: Client, project: Project) -> None:
    run = make_run(project)
    assert ed.get(f"/runs/{run.pk}/live/")["X-Next-Poll"] != "0"
    ed.post(f"/runs/{run.pk}/cancel/")
    assert ed.get(f"/runs/{run.pk}/live/")["X-Next-Poll"] == "0"


def test_too_many_sign_in_attempts_are_rejected(settings: Any) -> None:
    settings.AXES_FAILURE_LIMIT = 2
    make_user("someone")
    client = Client(REMOTE_ADDR="10.1.2.3")
    answers = [client.post("/login/", {"username": "someone", "password": "wrong"}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 429, 429]
    assert "Too many attempts" in answers[-1].content.decode()


def test_compare_lists_only_the_fields_that_differ(ed: Client, project: Project) -> None:
    experiment = make_experiment(project, matrix={"model.attention.variant": ["full", "no_q"]}, seeds=[0])
    address = "/compare/?runs=" + ",".join(str(run.pk) for run in experiment.runs.all())
    page = ed.get(address).context
    assert [(row.path, row.values) for row in page["rows"]] == [("model.attention.variant", ["full", "no_q"])]
    everything = ed.get(f"{address}&diff=all").context["rows"]
    assert len(everything) == page["same_count"] + 1 > 10
