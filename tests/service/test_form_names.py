"""Posted names that a page's form does not have are refused; nothing is stored or changed."""

from __future__ import annotations

import pytest
from django.test import Client

from experiments.models import Experiment, Run, Worker

from .api_client import needs_database
from .factories import make_project, make_run, make_user, make_worker
from .html_form import sent_by

pytestmark = needs_database
NEW = "/experiments/new/"


@pytest.fixture
def browser() -> Client:
    client = Client()
    user = make_user("ed", is_superuser=True)
    make_project("lab", editor=user)
    client.force_login(user)
    return client


def untouched(browser: Client, query: str = "") -> dict[str, list[str]]:
    sent = sent_by(browser.get(f"{NEW}{query}").content.decode())
    return sent | {"name": ["a question"]}


WRONG = [
    ({"spec.optimizer.lrr": ["0.1"]}, "optimizer.lrr", "did you mean 'optimizer.lr'"),
    ({"has.train.stpes": ["1"]}, "train.stpes", "did you mean 'train.steps'"),
    ({"spec.lr": ["0.1"]}, "lr", "did you mean 'optimizer.lr'"),
    ({"sedes": ["0-3"]}, "sedes", "did you mean 'seeds'"),
    ({"spec.optimizer.lr": ["0.1", "0.2"]}, "optimizer.lr", "more than once"),
    ({"seeds": ["0", "1"]}, "seeds", "more than once"),
    ({"matrix-path": ["optimizer.lr", "train.steps"], "matrix-values": ["0.1"]}, "matrix", "needs values"),
    ({"source": ["yaml"], "yaml": ["task: pointer\ndata: {dataset: pointer}"]}, "train.steps", "unknown field"),
]


@pytest.mark.parametrize(("change", "at", "words"), WRONG)
def test_an_input_that_the_form_does_not_have_is_refused(
    browser: Client, change: dict[str, list[str]], at: str, words: str
) -> None:
    form = untouched(browser) | change
    reply = browser.post(NEW, form)
    html = reply.content.decode().replace("&#x27;", "'")
    assert reply.status_code == 400
    errors = reply.context["errors"]
    assert words in errors.get(f"spec.{at}", errors.get(at, "")), errors
    assert words in html
    assert words in browser.post(f"{NEW}check/", form).content.decode().replace("&#x27;", "'")
    assert not Experiment.objects.exists()


@pytest.mark.parametrize("query", ["", "?preset=learn-qkv"])
def test_what_the_form_itself_sends_is_known(browser: Client, query: str) -> None:
    form = untouched(browser, query)
    assert browser.post(NEW, form | {"submit": ["1"]}).status_code == 302
    for task in ("segment", "hf", "language", "nonsense"):
        switched = browser.post(f"{NEW}editor/", form | {"spec.task": [task]})
        assert switched.status_code == 200
        assert sent_by(switched.content.decode())["spec.task"] == [task if task != "nonsense" else "segment"]
        assert "unknown field" not in switched.content.decode()


def test_a_verb_with_an_invalid_value_changes_nothing(browser: Client) -> None:
    run, worker = make_run(), make_worker()
    Run.objects.filter(pk=run.pk).update(state="failed")
    for path, data in (
        (f"/runs/{run.pk}/retry/", {"from": "strat"}),
        (f"/workers/{worker.pk}/drain/", {"draining": "y"}),
    ):
        html = browser.post(path, data, follow=True).content.decode()
        assert "Nothing was changed" in html
    assert Run.objects.get(pk=run.pk).state == "failed"
    assert not Worker.objects.get(pk=worker.pk).draining
    assert browser.post(f"/runs/{run.pk}/retry/").status_code == 302
    assert Run.objects.get(pk=run.pk).state == "queued"
