"""Inputs that made one request hold the server for minutes: each is answered, or refused at its field.

A fault shows as a test that never ends.
"""

from __future__ import annotations

import re

import pytest
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st

from experiments import store
from experiments.models import Group
from experiments.store.choice import matches

from .api_client import client_of, get, needs_database
from .factories import make_project, make_run, make_user
from .html_form import sent_by

pytestmark = needs_database
NEW = "/experiments/new/"


def _by_recursion(name: str, glob: str) -> bool:
    """What the documents say of stars, one character at a time."""
    reached = {0}
    tokens = re.findall(r"\*\*|\*|[^*]", glob)
    for token in tokens:
        if token == "**":
            reached = {end for start in reached for end in range(start, len(name) + 1)}
        elif token == "*":
            reached = {e for s in reached for e in range(s, len(name) + 1) if "/" not in name[s:e]}
        else:
            reached = {place + 1 for place in reached if name[place : place + 1] == token}
    return len(name) in reached


@given(st.text("ab/.é", max_size=9), st.text("ab/.é*", max_size=9))
def test_globs_match_as_the_documents_say(name: str, glob: str) -> None:
    assert matches(name, [glob]) == _by_recursion(name, glob)


def test_many_stars_are_matched_in_linear_time() -> None:
    name = "grad_norm/encoder.0.self/W_q" * 8
    for star in ("*", "**"):
        assert not matches(name, [f"{star}a" * 60 + "Z"])
        assert matches(name, [star * 61])


@pytest.mark.parametrize("names", ["*" * 64 + "Z", "**a" * 40 + "Z", "*a" * 40])
def test_series_are_asked_for_by_many_stars(names: str) -> None:
    project = make_project("lab")
    run = make_run(project)
    Group.objects.create(run=run, name="train", names=["grad_norm/" + "encoder.0.self/" * 12 + "W_q"])
    client = client_of(make_user("ed", is_superuser=True))
    assert get(client, "/series/", runs=run.pk, names=names)["series"] == []
    assert store.choose([run.pk], [names]) == []


@pytest.mark.parametrize(
    "change",
    [
        {"seeds": "1" + " " * 300_000 + "1"},
        {"seeds": "-" + " -" * 150_000},
        {"tags": '"a,' * 100_000},
        {"matrix-path": ["train.steps"], "matrix-values": ["[" * 100_000]},
        {"matrix-path": ["train.steps"], "matrix-values": ["1, " * 100_000]},
        {"source": "yaml", "yaml": "a: [" + "1, " * 400_000 + "1]"},
        {"source": "yaml", "yaml": "a: {" * 30_000},
        {"source": "yaml", "yaml": "? " * 60_000},
        {"source": "yaml", "yaml": "- " * 60_000},
        {"source": "yaml", "yaml": "a: '" + "''" * 60_000},
    ],
    ids=["spaces", "dashes", "quotes", "brackets", "values", "long", "nested", "keys", "items", "quoted"],
)
def test_the_form_answers_to_a_text_that_is_slow_to_read(change: dict[str, object]) -> None:
    make_project("lab")
    browser = Client()
    browser.force_login(make_user("ed", is_superuser=True))
    form = sent_by(browser.get(NEW).content.decode()) | {"name": ["n"]} | change
    assert browser.post(f"{NEW}check/", form).status_code == 200
