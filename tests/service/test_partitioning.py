"""Partitions by group of series: made on PostgreSQL with what is there, and everything goes on as before."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from experiments import lifecycle, store
from experiments.models import Block, Frame, Group, Run, StepIndex
from experiments.states import State
from experiments.store.blocks.cover import BLOCK
from tests.environment import ON_POSTGRES

from .factories import make_run

pytestmark = [pytest.mark.django_db, pytest.mark.db]
NAMES = ["loss/total", "lr"]


def grow(run: Run, first: int, rows: int, *, seal: bool = True) -> None:
    steps = np.arange(first, first + rows)
    values = np.stack([np.sin(steps), steps], axis=1).astype(np.float32)
    store.append(run.pk, [store.Incoming("train", NAMES, steps, steps / 10, values)])
    while seal and store.seal_next(Group.objects.get(run=run), 2**60):
        pass


def check(run: Run, rows: int) -> None:
    waves, straight = store.read([run.pk], ["**"], max_points=10**6)
    np.testing.assert_array_equal(straight.values, np.arange(rows, dtype=np.float32))
    np.testing.assert_array_equal(waves.values, np.sin(np.arange(rows)).astype(np.float32))


def ask(sql: str, *params: Any) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        return cursor.fetchall()


@pytest.mark.skipif(ON_POSTGRES, reason="about other databases than PostgreSQL")
def test_another_database_is_told_that_it_partitions_nothing_and_keeps_its_tables() -> None:
    run = make_run()
    grow(run, 0, BLOCK + 9)
    with pytest.raises(CommandError, match="only PostgreSQL partitions tables"):
        call_command("partition", parts=4)
    check(run, BLOCK + 9)


@pytest.mark.skipif(not ON_POSTGRES, reason="only PostgreSQL partitions tables: its own pass runs this")
def test_tables_are_partitioned_with_their_rows_and_the_store_goes_on() -> None:
    runs = [make_run() for _ in range(6)]
    for run in runs:
        grow(run, 0, BLOCK + 9)
    keys = "SELECT conname, contype FROM pg_constraint WHERE conrelid = %s::regclass AND contype IN ('p','u','f')"
    before = {model: set(ask(keys, model._meta.db_table)) for model in (Block, Frame, StepIndex)}
    call_command("partition", parts=4)
    for model, names in before.items():
        assert names
        assert set(ask(keys, model._meta.db_table)) == names
    for run in runs:
        check(run, BLOCK + 9)
        grow(run, BLOCK + 9, 2 * BLOCK)
        check(run, 3 * BLOCK + 9)
    spread = {row[0] for row in ask("SELECT tableoid::regclass::text FROM experiments_block")}
    assert len(spread) > 1
    assert ask(
        "SELECT DISTINCT attstorage FROM pg_attribute WHERE attname = 'data' AND attrelid = ANY(%s::regclass[])",
        list(spread),
    ) == [("e",)]
    plan = str(
        ask('EXPLAIN SELECT summary FROM experiments_block WHERE group_id = 3 AND "column" IN (0, 1) AND level = 1')
    )
    assert len(set(re.findall(r"experiments_block_p(\d+)", plan))) == 1, "one partition is asked"
    with pytest.raises(CommandError, match="partitioned already"):
        call_command("partition", parts=4)
    end_of(runs[0])


def end_of(run: Run) -> None:
    """Truncation and deletion find their rows."""
    store.truncate(run.pk, BLOCK + 1)
    check(run, BLOCK + 1)
    Run.objects.filter(pk=run.pk).update(state=State.FAILED)
    lifecycle.delete_run(run.pk, None)
    while lifecycle.clear_series(1000):
        pass
    assert Group.objects.count() == 5


@pytest.mark.parametrize("parts", [1, 5000])
def test_an_odd_number_of_partitions_is_refused(parts: int) -> None:
    with pytest.raises(CommandError, match="--parts must be from 2 to 1024"):
        call_command("partition", parts=parts)
