"""The gradient chain and the probes of a run, over REST and on their tabs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from django.test import Client

from experiments import lifecycle, store
from experiments.models import Run

from .api_client import API, client_of, get, needs_database, problem
from .factories import claim, frame, make_project, make_run, make_user
from .html_form import flowing

pytestmark = needs_database
FLOW = ("flow/encoder.0.self/Q", "flow/encoder.0.self/W_q", "flow/encoder.0.self/pred", "chain_error/encoder.0.self")
PROBES = {"test/probe/q/class": 0.9, "test/untrained/probe/q/class": 0.74, "test/probe/x/class": 0.91}


@pytest.fixture
def user() -> Any:
    return make_user()


@pytest.fixture
def run(user: Any) -> Run:
    """Steps 0–9 with a chain at every second one, and two probes at the end."""
    run = make_run(make_project(viewer=user))
    held = claim(run).held
    steps = np.arange(0, 10, 2)
    values = np.stack([steps + column / 10 for column in range(4)], 1).astype(np.float32)
    values[1, 1] = np.nan
    chain = store.Incoming(
        "probe", [*FLOW, "test/chain_error/fp32"], steps, steps / 10.0, np.pad(values, ((0, 0), (0, 1)))
    )
    finals = np.array([list(PROBES.values())], np.float32)
    test = store.Incoming("test", list(PROBES), np.array([9]), np.array([0.9]), finals)
    lifecycle.commit(held, 0, 10, [frame(0, 10), chain, test])
    return run


def test_a_chain_has_its_stations_from_the_loss_downwards(user: Any, run: Run) -> None:
    told = get(client_of(user), f"/runs/{run.pk}/flow/")
    [ladder] = told["sites"]
    assert told["steps"] == [0, 2, 4, 6, 8]
    assert (ladder["site"], ladder["stations"]) == ("encoder.0.self", ["pred", "Q", "W_q"])
    assert ladder["values"][1] == [0, 2, 4, 6, 8]
    assert ladder["values"][2][1] is None, "a gradient that is not finite stays visible"
    assert ladder["error"] == pytest.approx([0.3, 2.3, 4.3, 6.3, 8.3])
    assert told["errors"]["fp64"] is None
    assert told["missing"] == ""


def test_a_chain_of_many_steps_is_brought_to_the_columns_that_are_asked(user: Any, run: Run) -> None:
    told = get(client_of(user), f"/runs/{run.pk}/flow/", columns=2)
    assert len(told["steps"]) == len(told["sites"][0]["values"][0]) == 2


def test_probes_stand_beside_their_baselines(user: Any, run: Run) -> None:
    told = get(client_of(user), f"/runs/{run.pk}/probes/")["probes"]
    q, x = ({key: row[key] for key in ("vector", "trained", "untrained", "control")} for row in told)
    assert q == {"vector": "q", "trained": pytest.approx(0.9), "untrained": pytest.approx(0.74), "control": None}
    assert x["untrained"] is None


def test_runs_without_them_report_the_reason(user: Any, run: Run) -> None:
    bare, client = make_run(run.project), client_of(user)
    assert "no gradient" in get(client, f"/runs/{bare.pk}/flow/")["missing"]
    assert "no probes" in get(client, f"/runs/{bare.pk}/probes/")["missing"]
    for part in ("flow", "probes"):
        problem(client_of(make_user()).get(f"{API}/runs/{run.pk}/{part}/"), 404)


def test_the_tabs_show_both_and_say_so_where_there_is_nothing(user: Any, run: Run) -> None:
    browser = Client()
    browser.force_login(user)
    bare = make_run(run.project)
    pages = {
        (each.pk, tab): browser.get(f"/runs/{each.pk}/", {"tab": tab}).content.decode()
        for each in (run, bare)
        for tab in ("flow", "probes")
    }
    assert "<option selected> encoder.0.self </option>" in flowing(pages[run.pk, "flow"])
    assert ("data-flow" in pages[run.pk, "flow"], "data-flow" in pages[bare.pk, "flow"]) == (True, False)
    assert '<rect class="probe-q"' in pages[run.pk, "probes"]
    assert "This run has no probes" in pages[bare.pk, "probes"]
