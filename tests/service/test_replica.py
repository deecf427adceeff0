"""A read replica gives the points of series, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.db import connections
from django.test import RequestFactory

from attnservice.replica import ALIAS, Reading
from experiments import store
from experiments.models import ArchivedBlock, Block, Frame, Group, Run, StepIndex
from experiments.store.blocks.cover import BLOCK

from .api_client import API, client_of, get, problem
from .factories import frame, make_run, make_user

POINTS = (Group, Frame, StepIndex, Block)
pytestmark = [pytest.mark.django_db, pytest.mark.db]


@pytest.fixture
def replica(settings: Any, tmp_path: Path) -> Iterator[str]:
    """A second database that has the tables of points and no others; it lags as far as a test wants."""
    own = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "replica.sqlite3")}
    connections.databases[ALIAS] = connections.configure_settings({"default": own, ALIAS: own})[ALIAS]
    connections[ALIAS].connect()  # Django's guard lets tests ask databases that were connected before
    connections[ALIAS].disable_constraint_checking()
    with connections[ALIAS].schema_editor() as editor:
        for model in (*POINTS, ArchivedBlock):
            editor.create_model(model)
    connections[ALIAS].disable_constraint_checking()  # the editor has switched it on again
    settings.DATABASE_ROUTERS = ["attnservice.replica.Router"]
    settings.MIDDLEWARE = ["attnservice.replica.Reading", *settings.MIDDLEWARE]
    yield ALIAS
    connections[ALIAS].close()
    del connections.databases[ALIAS]
    del connections[ALIAS]


def copy(alias: str) -> None:
    """What replication would have brought over by now."""
    for model in POINTS:
        model._default_manager.using(alias).all().delete()
        model._default_manager.using(alias).bulk_create(list(model._default_manager.all()))


def test_points_come_from_the_replica_as_far_as_it_is_and_runs_and_rights_from_the_primary(replica: str) -> None:
    run, user = make_run(), make_user(is_superuser=True)
    store.append(run.pk, [frame(0, BLOCK + 10)])
    store.seal_next(Group.objects.get(), 2**60)
    copy(replica)
    store.append(run.pk, [frame(BLOCK + 10, BLOCK + 50)])
    client, asked = client_of(user), {"runs": run.pk, "names": "loss/total", "max_points": 100_000}
    (behind,) = get(client, "/series/", **asked)["series"]
    assert (behind["count"], behind["exact"]) == (BLOCK + 10, True)
    copy(replica)
    (level,) = get(client, "/series/", **asked)["series"]
    assert level["points"]["value"] == np.arange(BLOCK + 50, dtype=np.float32).tolist()
    assert get(client, f"/runs/{run.pk}/")["id"] == run.pk
    problem(client_of(make_user()).get(f"{API}/series/", asked), 404)


def test_only_get_reads_there_and_outside_of_requests_nothing_does(replica: str) -> None:
    def where(_: Any) -> Any:
        return [model.objects.all().db for model in (Block, Run)]

    ask = RequestFactory()
    assert Reading(where)(ask.get("/")) == ["replica", "default"]  # type: ignore[comparison-overlap]
    assert Reading(where)(ask.post("/")) == ["default", "default"]  # type: ignore[comparison-overlap]
    assert where(None) == ["default", "default"]
