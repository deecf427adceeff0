"""Export: every recorded point as CSV or Parquet, in pieces, whatever is sealed meanwhile."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from rest_framework.test import APIClient

from experiments import lifecycle, store
from experiments.models import Group, Project, Run
from experiments.store.blocks.cover import BLOCK
from experiments.store.readers import history as past

from .api_client import API, client_of, needs_database, pointers, problem
from .factories import SPEC, claim, make_run, make_user

pytestmark = needs_database
TRAIN = ["loss/total", "grad_norm/encoder.0.self/W_q"]
EVAL = ["eval/accuracy"]


def trained(project: Project, steps: int) -> tuple[Run, lifecycle.Held]:
    run = make_run(project, spec={**SPEC, "train": {"steps": 100_000}})
    held = claim(run).held
    go_on(held, 0, steps)
    return run, held


def go_on(held: lifecycle.Held, low: int, high: int) -> None:
    """Training points at every step, evaluation at every hundredth; one value is not finite."""
    steps = np.arange(low, high)
    values = np.stack([steps / 8, -steps / 8], axis=1).astype(np.float32)
    values[steps == 2] = np.nan, np.inf
    seldom = steps[99::100]
    frames = [store.Incoming("train", TRAIN, steps, steps / 10, values)]
    if len(seldom):
        frames.append(store.Incoming("eval", EVAL, seldom, seldom / 10, (seldom[:, None] / 1000).astype(np.float32)))
    lifecycle.commit(held, low, high, frames)


def seal(run: Run, before: int) -> None:
    for group in Group.objects.filter(run=run):
        while store.seal_next(group, before):
            pass


def body(reply: Any) -> bytes:
    assert reply.status_code == 200, reply.content
    return b"".join(reply.streaming_content)


def csv_of(reply: Any) -> pa.Table:
    return pyarrow.csv.read_csv(io.BytesIO(body(reply)))


def parquet_of(reply: Any) -> pa.Table:
    return pyarrow.parquet.read_table(io.BytesIO(body(reply)))


def arrow_of(reply: Any) -> pa.Table:
    return pa.ipc.open_stream(io.BytesIO(body(reply))).read_all()


TABLE_OF = {"csv": csv_of, "parquet": parquet_of, "arrow": arrow_of}


def test_a_group_is_one_row_a_step_in_csv(api: APIClient, project: Project) -> None:
    run, _ = trained(project, 5)
    reply = api.get(f"{API}/runs/{run.pk}/export/?group=train")
    assert reply["Content-Type"] == "text/csv; charset=utf-8"
    assert reply["Content-Disposition"] == f'attachment; filename="run-{run.pk}-train.csv"'
    assert body(reply).decode().splitlines() == [
        '"step","time","loss/total","grad_norm/encoder.0.self/W_q"',
        "0,0,0,0",
        "1,0.1,0.125,-0.125",
        "2,0.2,nan,inf",
        "3,0.3,0.375,-0.375",
        "4,0.4,0.5,-0.5",
    ]


def test_several_groups_are_one_row_a_point(api: APIClient, project: Project) -> None:
    run, _ = trained(project, 200)
    table = csv_of(api.get(f"{API}/runs/{run.pk}/export/"))
    assert table.column_names == ["group", "name", "step", "time", "value"]
    assert table.num_rows == 402
    assert table.slice(6, 2).to_pylist() == [
        {"group": "train", "name": TRAIN[0], "step": 3, "time": 0.3, "value": 0.375},
        {"group": "train", "name": TRAIN[1], "step": 3, "time": 0.3, "value": -0.375},
    ]
    assert table.slice(400).to_pylist() == [
        {"group": "eval", "name": EVAL[0], "step": step, "time": step / 10, "value": step / 1000} for step in (99, 199)
    ]
    assert parquet_of(api.get(f"{API}/runs/{run.pk}/export/?format=parquet")).num_rows == 402
    arrow = arrow_of(api.get(f"{API}/runs/{run.pk}/export/?format=arrow"))
    assert arrow.slice(6, 2).to_pylist() == table.slice(6, 2).to_pylist()


@pytest.mark.parametrize("kind", TABLE_OF)
def test_a_long_history_comes_in_pieces_from_blocks_and_tail(
    api: APIClient, project: Project, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(past, "PIECE", 1)  # one block at a time
    rows = 3 * BLOCK + 500
    run, held = trained(project, 2 * BLOCK + 700)
    go_on(held, 2 * BLOCK + 700, rows)
    seal(run, 2 * BLOCK + 700)
    assert 0 < Group.objects.get(run=run, name="train").sealed < rows, "some is in blocks, some in the tail"
    reply = api.get(f"{API}/runs/{run.pk}/export/", {"names": "loss/*,grad_norm/**", "format": kind})
    table = TABLE_OF[kind](reply)
    assert table["step"].to_pylist() == list(range(rows))
    assert np.array_equal(table["time"].to_numpy(), np.arange(rows) / 10)
    column = table[TRAIN[0]].to_numpy()
    assert np.isnan(column[2])
    assert np.array_equal(np.delete(column, 2), np.delete(np.arange(rows) / 8, 2))


def test_sealing_and_new_points_meanwhile_change_nothing(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(past, "PIECE", 1)
    run, held = trained(project, BLOCK + 300)
    go_on(held, BLOCK + 300, 2 * BLOCK + 300)
    rows = past.history(run.pk, ["loss/*"]).rows()
    first = next(rows)
    seal(run, BLOCK + 300)
    assert Group.objects.get(run=run, name="train").sealed > 0
    go_on(held, 2 * BLOCK + 300, 2 * BLOCK + 400)
    steps = np.concatenate([first.steps, *(piece.steps for piece in rows)])
    assert np.array_equal(steps, np.arange(2 * BLOCK + 300))


def test_an_attempt_from_a_checkpoint_meanwhile_is_not_mixed_in(
    api: APIClient, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(past, "PIECE", 1)
    run, held = trained(project, BLOCK + 300)
    rows = past.history(run.pk, ["loss/*"]).rows()
    next(rows)
    lifecycle.stopping(held, why="a test")
    lifecycle.release(held)
    claim(run)
    with pytest.raises(past.Changed, match="earlier checkpoint"):
        next(rows)


def test_columns_of_an_earlier_attempt_stay_empty_in_a_later_one(api: APIClient, project: Project) -> None:
    run, held = trained(project, 2)
    steps = np.arange(2, 4)
    other = store.Incoming("train", ["loss/total", "lr"], steps, steps / 10, np.ones((2, 2), np.float32))
    lifecycle.commit(held, 2, 4, [other])
    table = csv_of(api.get(f"{API}/runs/{run.pk}/export/"))
    assert table.column_names == ["step", "time", *TRAIN, "lr"]
    assert [row["lr"] for row in table.to_pylist()] == [None, None, 1.0, 1.0]


def test_the_kind_of_file_follows_the_query_else_what_the_caller_accepts(api: APIClient, project: Project) -> None:
    run, _ = trained(project, 3)
    path = f"{API}/runs/{run.pk}/export/"
    assert api.get(path)["Content-Type"].startswith("text/csv")
    assert api.get(path, headers={"accept": "text/csv"})["Content-Type"].startswith("text/csv")
    reply = api.get(path, headers={"accept": "application/vnd.apache.parquet"})
    assert reply["Content-Type"] == "application/vnd.apache.parquet"
    assert reply["Content-Disposition"] == f'attachment; filename="run-{run.pk}.parquet"'
    reply = api.get(path, headers={"accept": "application/vnd.apache.arrow.stream"})
    assert reply["Content-Type"] == "application/vnd.apache.arrow.stream"
    assert reply["Content-Disposition"] == f'attachment; filename="run-{run.pk}.arrow"'
    assert arrow_of(reply).num_rows == 3
    assert pointers(api.get(f"{path}?format=xlsx")) == ["/format"]
    assert csv_of(api.get(f"{path}?names=nothing")).num_rows == 0


def test_only_who_may_see_a_run_may_export_it(project: Project) -> None:
    run, _ = trained(project, 3)
    problem(client_of(make_user()).get(f"{API}/runs/{run.pk}/export/"), 404)
    problem(client_of().get(f"{API}/runs/{run.pk}/export/"), 401)
