"""Every query parameter of every call and page is known or refused by name. The calls come from the OpenAPI document
and the pages from the URL configuration, so that a new one is asked as well."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urljoin, urlsplit

import pytest
from django.conf import settings
from django.test import Client
from django.urls import URLPattern

from experiments import lifecycle
from experiments.api.http.schema import document
from experiments.models import Artifact, Headline, Run, Worker
from experiments.pages import urls

from .api_client import API, client_of, needs_database, problem
from .factories import claim, make_experiment, make_project, make_run, make_user, train

pytestmark = needs_database
STATIC = Path(settings.BASE_DIR) / "experiments/static/attn"
PAGES_OF = {"pages/compare.js": ["compare"], "charts/tools.js": ["run", "compare"]}  # the others: "run"
UNKNOWN = "no-such-thing"
# Names that people invent: an empty list is what is true of one that nobody has used.
FREE = {("/runs/", "tag"), ("/runs/", "pool"), ("/experiments/", "tag")}


@pytest.fixture
def user() -> Any:
    return make_user("ed", is_staff=True)


@pytest.fixture
def run(user: Any) -> Run:
    """An ended run with series and maps, and a second one of its experiment."""
    project = make_project("lab", owner=user)
    experiment = make_experiment(project, seeds=[0, 1], preset=None, tags=["a"])
    taken = claim(experiment.runs.order_by("pk").first())
    train(taken.held, 0, 20)
    sites = {"sites": [{"name": "encoder.0.self", "heads": 1, "asks": "token", "answers": "token"}], "samples": 1}
    common = {"media_type": "x/y", "path": "nowhere", "size": 1}
    lifecycle.add_artifact(taken.held, name="maps", step=0, kind="map", meta=sites, **common)  # type: ignore[arg-type]
    lifecycle.succeed(taken.held)
    lifecycle.request_cancel(experiment.runs.exclude(pk=taken.held.run_id).get().pk, user)
    Headline.objects.get_or_create(run_id=taken.held.run_id, key="eval/accuracy", defaults={"last": 0.5})
    return Run.objects.get(pk=taken.held.run_id)


@cache
def calls() -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (method, path.removeprefix(API), call)
        for path, methods in document(None)["paths"].items()
        for method, call in methods.items()
    ]


def filled(path: str, run: Run) -> str:
    """The path with things that exist."""
    known = {
        "{experiment_id}": str(run.experiment_id),
        "{run_id}": str(run.pk),
        "{worker_id}": str(Worker.objects.get().pk),
        "{question_id}": "1",
        "{name}": "why-q" if path.startswith("/presets") else "lab",
    }
    for name, value in known.items():
        path = path.replace(name, value)
    assert "{" not in path, f"this test does not know what to put into {path}"
    return API + path


def needed(call: dict[str, Any], run: Run) -> dict[str, str]:
    """The parameters that the call cannot do without."""
    wanted = [one for one in call.get("parameters", []) if one["in"] == "query" and one.get("required")]
    return {one["name"]: str(run.pk) for one in wanted}


@pytest.mark.parametrize(("method", "path"), [(method, path) for method, path, _ in calls()])
def test_a_call_refuses_a_parameter_that_it_does_not_know(user: Any, run: Run, method: str, path: str) -> None:
    call = next(call for way, where, call in calls() if (way, where) == (method, path))
    client = client_of(user)
    query = "&".join(f"{name}={value}" for name, value in {**needed(call, run), "sed": "1"}.items())
    for verb in ["get", "head"] if method == "get" else [method]:
        reply = client.generic(verb.upper(), f"{filled(path, run)}?{query}", "{}", content_type="application/json")
        assert reply.status_code == 400, (verb, reply.content)
        if verb != "head":
            (error,) = problem(reply, 400)["errors"]
            assert error["pointer"] == "/sed"
            assert "unknown query parameter" in error["message"]


def texts() -> list[tuple[str, str]]:
    """The parameters of GET that take a text."""
    return [
        (path, one["name"])
        for method, path, call in calls()
        for one in call.get("parameters", [])
        if method == "get" and one["in"] == "query" and one["schema"].get("type") == "string"
    ]


def test_there_are_calls_and_texts_to_be_asked() -> None:
    assert len(calls()) > 30
    assert set(texts()) > {("/series/groups/", "by"), ("/experiments/{experiment_id}/report/", "metric"), *FREE}


@pytest.mark.parametrize(("path", "name"), [one for one in texts() if one not in FREE])
def test_a_call_refuses_a_value_that_names_nothing(user: Any, run: Run, path: str, name: str) -> None:
    call = next(call for way, where, call in calls() if (way, where) == ("get", path))
    reply = client_of(user).get(filled(path, run), {**needed(call, run), name: UNKNOWN})
    where = {error["pointer"] for error in problem(reply, 400)["errors"]}
    assert len(where) == 1
    assert where <= {f"/{name}", f"/{name}/0"}


SLIPS = [
    ("/experiments/{experiment_id}/report/", "metric", "loss/totl", "did you mean 'loss/total'"),
    ("/series/groups/", "by", "optimizer.lrr", "did you mean 'optimizer.lr'"),
    ("/series/groups/", "by", "lr", "did you mean 'optimizer.lr'"),
    ("/series/groups/", "names", "loss/totl", "did you mean 'loss/total'"),
    ("/series/", "names", "loss/*,loss/totl", "did you mean 'loss/total'"),
    ("/series/grid/", "names", "loss/totl", "did you mean 'loss/total'"),
    ("/runs/{run_id}/export/", "names", "loss/totl", "did you mean 'loss/total'"),
    ("/runs/{run_id}/export/", "names", "los/*", "did you mean 'loss/*'"),
    ("/runs/{run_id}/export/", "group", "trian", "did you mean 'train'"),
    ("/runs/{run_id}/attention/", "site", "encoder.0.slf", "did you mean 'encoder.0.self'"),
    ("/runs/{run_id}/attention/", "sample", "1", "only sample 0"),
    ("/runs/{run_id}/artifacts/", "kind", "maps", "did you mean 'map'"),
    ("/runs/", "fields", "id,specs", "did you mean 'spec'"),
    ("/runs/", "state", "queud", "did you mean 'queued'"),
    ("/runs/", "ordering", "creatd", "did you mean 'created'"),
    ("/runs/", "project", "labb", "did you mean 'lab'"),
    ("/runs/", "experiment", "987654", "no experiment 987654"),
    ("/experiments/", "project", "labb", "did you mean 'lab'"),
    ("/experiments/", "preset", "why-r", "did you mean 'why-q'"),
]


@pytest.mark.parametrize(("path", "name", "value", "words"), SLIPS)
def test_a_misspelt_value_is_reported_with_a_suggestion(
    user: Any, run: Run, path: str, name: str, value: str, words: str
) -> None:
    call = next(call for way, where, call in calls() if (way, where) == ("get", path))
    reply = client_of(user).get(filled(path, run), {**needed(call, run), name: value})
    (error,) = problem(reply, 400)["errors"]
    assert error["pointer"] == f"/{name}"
    assert words in error["message"]


def test_series_that_a_live_run_may_still_record_are_no_mistake_but_are_named(user: Any, run: Run) -> None:
    """A pattern, and any name while a run goes on, may match nothing; the answer says which."""
    other = make_run(run.project)
    client = client_of(user)
    asked = {"runs": f"{run.pk},{other.pk}", "names": "loss/total,eval/lter,flow/*"}
    assert client.get(f"{API}/series/", asked).json()["unmatched"] == ["eval/lter", "flow/*"]
    assert client.get(f"{API}/series/groups/", asked).json()["unmatched"] == ["eval/lter", "flow/*"]
    assert client.get(f"{API}/series/", {"runs": run.pk, "names": "flow/*"}).json()["unmatched"] == ["flow/*"]
    assert client.get(f"{API}/series/grid/", {"run": run.pk, "names": "flow/*"}).json()["unmatched"] == ["flow/*"]
    assert "unmatched" not in client.get(f"{API}/series/", {"runs": run.pk, "names": "loss/*"}).json()


def test_a_metric_of_the_rule_may_be_asked_for_before_anything_is_recorded(user: Any, run: Run) -> None:
    fresh = make_experiment(run.project)
    for metric in ("eval/accuracy", "loss/total"):
        assert client_of(user).get(f"{API}/experiments/{fresh.pk}/report/", {"metric": metric}).status_code == 200


# --- Pages -----------------------------------------------------------------------------------------

ASSETS = {"favicon"}  # leads to a file, which takes nothing


def pages() -> list[str]:
    return [pattern.name or str(pattern.pattern) for pattern in urls.urlpatterns]


def address(name: str, run: Run) -> str:
    pattern = next(one for one in urls.urlpatterns if (one.name or str(one.pattern)) == name)
    assert isinstance(pattern, URLPattern)
    path = str(pattern.pattern)
    pks = {"workers": Worker.objects.get().pk, "experiments": run.experiment_id}
    pk = pks.get(path.split("/", maxsplit=1)[0], run.pk)
    path = path.replace("<int:pk>", str(pk)).replace("<slug:name>", "lab")
    assert "<" not in path, f"this test does not know what to put into {path}"
    return f"/{path}"


@pytest.fixture
def browser(user: Any) -> Client:
    client = Client()
    client.force_login(user)
    return client


def shown(reply: Any) -> str:
    text: str = reply.content.decode()
    return text.replace("&#x27;", "'").replace("&quot;", '"')


@pytest.mark.parametrize("name", [name for name in pages() if not name.startswith("favicon")])
def test_a_page_refuses_a_parameter_that_it_does_not_know(browser: Client, run: Run, name: str) -> None:
    where = f"{address(name, run)}?sed=1"
    visitor = Client() if name == "login" else browser
    before = snapshot()
    replies = [visitor.get(where), visitor.post(where, {})]
    replies = [reply for reply in replies if reply.status_code != 405]
    assert replies
    for reply in replies:
        assert reply.status_code == 400
        assert "<code>sed</code> unknown query parameter" in shown(reply)
    assert snapshot() == before


def snapshot() -> Any:
    return list(Run.objects.order_by("pk").values_list("pk", "state", "desired")), Artifact.objects.count()


WRONG_VALUES = [
    ("experiment", {"metric": "loss/totl"}, "metric", "did you mean 'loss/total'"),
    ("experiment-report", {"metric": "loss/totl"}, "metric", "did you mean 'loss/total'"),
    ("experiment-report", {"part": "verdct"}, "part", "must be one of verdict"),
    ("experiment", {"part": "rows"}, "part", "must be one of live"),
    ("experiment-list", {"part": "live"}, "part", "must be one of rows"),
    ("experiment-list", {"page": "7"}, "page", "the last page is 1"),
    ("experiment-list", {"project": "labb"}, "project", "did you mean 'lab'"),
    ("run-list", {"cols": "param.optimizer.lrr"}, "cols", "did you mean 'param.optimizer.lr'"),
    ("run-list", {"cols": "metric.loss/total:best,metric.eval/acuracy"}, "cols", "did you mean 'metric.eval/accuracy'"),
    ("run-list", {"cols": "lr"}, "cols", "did you mean 'param.optimizer.lr'"),
    ("run-list", {"cols": "metric.loss/total:mean"}, "cols", "':mean' is not a headline value"),
    ("run-list", {"cols": "metric.loss/total__gt"}, "cols", "remove '__gt'"),
    ("run-list", {"stat": "failed"}, "stat", "did you mean 'state'"),
    ("run-list", {"state": "faild"}, "state", "did you mean 'failed'"),
    ("run-list", {"limit": "3"}, "limit", "unknown query parameter"),
    ("run-list", {"fields": "id"}, "fields", "unknown query parameter"),
    ("run-list", {"project": "labb"}, "project", "did you mean 'lab'"),
    ("run-list", {"where": "tag", "sign": "like", "value": "x"}, "tag__like", "did you mean 'tag'"),
    ("run-list", {"sign": "gt"}, "sign", "needs a field"),
    ("compare", {"color": "optimizer.lrr"}, "color", "did you mean 'optimizer.lr'"),
    ("compare", {"diff": "al"}, "diff", "must be one of all"),
    ("compare", {"names": "loss/*,los/*"}, "names", "'los/*'"),
    ("compare", {"runs": "{both},x"}, "runs", "'x'"),
    ("compare", {"runs": "{both},987654"}, "runs", "987654"),
    ("compare", {"axis": "steps"}, "axis", "did you mean 'step'"),
    ("experiment-new", {"from": "x"}, "from", "whole number"),
    ("experiment-new", {"preset": "why-q", "from": "{experiment}"}, "from", "preset or from"),
    ("run", {"tab": "trainin"}, "tab", "did you mean 'training'"),
    ("run", {"m": "W_q,W_x"}, "m", "W_x"),
    ("run", {"tab": "config", "only": "difering"}, "only", "must be one of differing"),
    ("run", {"tab": "flow", "site": "nowhere"}, "site", "nowhere"),
    ("run-log", {"after": "x"}, "after", "whole number"),
    ("run-panels", {"part": "less"}, "part", "must be one of more"),
    ("run-predictions", {"at": "x"}, "at", "whole number"),
    ("run-histograms", {"of": "gradients"}, "of", "did you mean 'gradient'"),
    ("run-histograms", {"matrix": "W_x"}, "matrix", "W_x"),
    ("workers", {"part": "liv"}, "part", "must be one of live"),
    ("home", {"part": "liv"}, "part", "must be one of"),
]


@pytest.mark.parametrize(("name", "query", "field", "words"), WRONG_VALUES)
def test_a_page_reports_a_value_that_names_nothing(
    browser: Client, run: Run, name: str, query: dict[str, str], field: str, words: str
) -> None:
    both = ",".join(map(str, run.experiment.runs.values_list("pk", flat=True)))
    given = {key: value.format(both=both, experiment=run.experiment_id) for key, value in query.items()}
    given = {"runs": both, **given} if name == "compare" else given
    reply = browser.get(address(name, run), given, follow=True)
    html = shown(reply)
    assert reply.status_code == 400
    assert f"<code>{field}</code>" in html
    assert words in html.split(f"<code>{field}</code>")[1].split("</p>")[0]


def test_nothing_else_is_lost_where_one_parameter_is_wrong(browser: Client, run: Run) -> None:
    """The other filters stay in the forms of the page, and no run is shown as if it matched."""
    html = shown(browser.get("/runs/", {"param.seed": "1", "state": "queued", "cols": "param.seed,param.sed"}))
    assert "Nothing was searched" in html
    assert 'name="param.seed" value="1"' in html
    assert 'value="param.seed,param.sed"' in html
    both = ",".join(map(str, run.experiment.runs.values_list("pk", flat=True)))
    html = shown(browser.get("/compare/", {"runs": both, "colr": "seed", "diff": "all"}))
    assert "did you mean 'color'" in html
    assert "Show differences" in html


class _Sent(HTMLParser):
    """Addresses that a page links to, polls, or builds with its GET forms."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.form: list[str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        for name in ("href", "data-live", "hx-get"):
            if name in given:
                self.found.append(given[name])
        if tag == "form":
            get = given.get("method", "get") == "get" and not any(name.startswith("data-") for name in given)
            self.form = [given.get("hx-get", "?")] if get else None
        elif tag in {"input", "select"} and self.form and given.get("name"):
            self.form.append(f"{given['name']}={given.get('value', '')}")

    def handle_endtag(self, tag: str) -> None:
        if tag == "form" and self.form:
            where, *pairs = self.form
            self.found.append(f"{where.rstrip('?')}?{'&'.join(pairs)}")
            self.form = None


def sent(browser: Client, path: str) -> Iterator[str]:
    reader = _Sent()
    reader.feed(browser.get(path).content.decode())
    for found in reader.found:
        whole = urlsplit(urljoin(f"http://testserver{path}", found))
        if whole.netloc == "testserver" and not whole.path.startswith(("/static/", "/admin/", "/api/")):
            yield f"{whole.path}?{whole.query}" if whole.query else whole.path


def test_what_the_pages_themselves_send_is_known(browser: Client, run: Run) -> None:
    """Followed two links deep from every page."""
    opened = [address(name, run) for name in pages() if name not in {"login", "logout"} and "favicon" not in name]
    opened += [f"/runs/{run.pk}/?tab={tab}" for tab in ("attention", "flow", "probes", "config", "log", "events")]
    seen: set[str] = set()
    for _ in range(2):
        opened = sorted({link for path in opened for link in sent(browser, path)} - seen)
        for path in opened:
            stored = path.startswith("/artifacts/")  # of a file that this run only names
            assert browser.get(path).status_code in ({404} if stored else {200, 302}), path
        seen |= set(opened)
        opened = [path for path in opened if "?" in path]
    assert any("where=" in path for path in seen)
    assert any("part=rows" in path for path in seen)


@pytest.mark.parametrize("script", sorted(str(path.relative_to(STATIC)) for path in STATIC.rglob("*.js")))
def test_what_scripts_write_into_the_address_is_known(browser: Client, run: Run, script: str) -> None:
    text = " ".join((STATIC / script).read_text().split())
    written = re.findall(r"(?:remember\(|const kept = )\{(.+?)\}(?:\)|;)", text)
    names = {name for part in written for name in re.findall(r"(?:^ ?|, ?|\{ ?)([a-z]\w*)(?=:|,| |$)", part)}
    names |= set(re.findall(r'recall\("(\w+)"', text))
    assert names or 'address.js"' not in text, "what it writes has not been read"
    pages_of = PAGES_OF.get(script, ["run"])
    both = ",".join(map(str, run.experiment.runs.values_list("pk", flat=True)))
    for page in pages_of:
        for name in names:
            query = {"runs": both, name: "1"} if page == "compare" else {name: "1"}
            html = shown(browser.get(address(page, run), query))
            assert "unknown query parameter" not in html, (script, name)
            assert "unknown query parameter" in shown(browser.get(address(page, run), {**query, "sed": "1"}))


def test_a_link_with_its_cursor_is_known(user: Any, run: Run) -> None:
    client = client_of(user)
    reply = client.get(f"{API}/runs/", {"limit": 1, "fields": "id", "tag": "a"}).json()
    assert dict(parse_qsl(urlsplit(reply["next"]).query)).keys() == {"limit", "fields", "tag", "cursor"}
    assert client.get(reply["next"]).status_code == 200


def test_undocumented_calls_are_checked_too(browser: Client, run: Run) -> None:
    for path in ("/api/v1/docs/", f"/artifacts/{Artifact.objects.get().pk}/"):
        reply = browser.get(path, {"sed": "1"})
        assert reply.status_code == 400
        assert "unknown query parameter" in shown(reply)
