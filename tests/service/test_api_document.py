"""The OpenAPI document, its page, and that the answers keep to it."""

from __future__ import annotations

import re
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from django.test import Client
from drf_spectacular.validation import validate_schema

from experiments import lifecycle
from experiments.api.http.schema import document
from experiments.models import Question

from .api_client import API, client_of, get, needs_database
from .factories import claim, make_project, make_run, make_user, train

pytestmark = needs_database


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    return document(None)


def test_the_document_is_valid_openapi_3_1(whole: dict[str, Any]) -> None:
    assert whole["openapi"].startswith("3.1")
    validate_schema(whole)  # type: ignore[no-untyped-call]
    calls = [call["operationId"] for methods in whole["paths"].values() for call in methods.values()]
    assert len(calls) == len(set(calls))


def test_the_document_is_served_to_those_who_are_logged_in(whole: dict[str, Any]) -> None:
    assert set(get(client_of(make_user()), "/schema/")["paths"]) == set(whole["paths"])


def test_every_call_of_the_contract_is_documented(whole: dict[str, Any]) -> None:
    calls = {(method.upper(), path.removeprefix(API)) for path, methods in whole["paths"].items() for method in methods}
    run = "/runs/{run_id}"
    reads = ["/presets/", "/presets/{name}/", "/experiments/", "/experiments/{experiment_id}/", "/runs/", f"{run}/"]
    reads += [f"{run}/{part}/" for part in ("series", "export", "predictions", "logs", "events", "artifacts")]
    reads += ["/series/", "/series/grid/", "/series/groups/", "/workers/", "/queue/", "/schema/"]
    reads += ["/questions/{question_id}/", f"{run}/flow/", f"{run}/probes/", f"{run}/attention/"]
    reads += ["/presets/{name}/verdict/", "/experiments/{experiment_id}/report/"]
    writes = [
        "/auth/login/",
        "/auth/logout/",
        "/experiments/",
        "/experiments/validate/",
        f"{run}/cancel/",
        f"{run}/retry/",
    ]
    writes += ["/experiments/{experiment_id}/cancel/", "/experiments/{experiment_id}/seeds/", f"{run}/questions/"]
    assert calls >= {("GET", path) for path in reads} | {("POST", path) for path in writes}


def test_answers_keep_to_the_document(whole: dict[str, Any]) -> None:
    user = make_user()
    project = make_project("learn-qkv", editor=user)  # one name fits every path that takes one
    run = make_run(project)
    held = claim(run).held
    train(held, 0, 10)
    lifecycle.add_log(held, "a line")
    facts = {"kind": "prediction", "media_type": "image/png", "path": "x", "size": 1, "meta": {}}
    lifecycle.add_artifact(held, name="x.png", step=1, **facts)  # type: ignore[arg-type]
    make_run(project)
    asked = Question.objects.create(run=run, user=user, step=10, request={"text": "我"})
    client = client_of(user)
    ids = {"question_id": asked.pk, "run_id": run.pk, "experiment_id": run.experiment_id, "name": "learn-qkv"}
    needed = {"/series/": {"runs": run.pk}, "/series/grid/": {"run": run.pk}, "/series/groups/": {"runs": run.pk}}
    checked = 0
    for path, methods in whole["paths"].items():
        short = path.removeprefix(API)
        content = methods.get("get", {}).get("responses", {}).get("200", {}).get("content", {})
        if path.startswith(API) and "application/json" in content:
            answer = get(client, re.sub(r"\{(\w+)\}", lambda name: str(ids[name[1]]), short), **needed.get(short, {}))
            good = content["application/json"]["schema"]
            jsonschema.Draft202012Validator({**good, "components": whole["components"]}).validate(answer)
            checked += 1
    assert checked > 20


def test_the_page_lists_every_call_without_inline_script(whole: dict[str, Any]) -> None:
    browser = Client()
    assert browser.get(f"{API}/docs/").status_code == 302
    browser.force_login(make_user())
    reply = browser.get(f"{API}/docs/")
    page = reply.content.decode()
    assert reply.status_code == 200
    assert all(path in page for path in whole["paths"] if path.startswith(API))
    scripts = re.findall("<script[^>]*>", page)
    assert scripts
    assert all(" src=" in tag for tag in scripts)
    assert " style=" not in page
    assert "http://" not in page.replace("http://testserver", "")
