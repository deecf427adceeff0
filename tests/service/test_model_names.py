"""A database of the version before, whose models had other names, opens as it is: no table is touched."""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection, connections

from experiments.models import ArchivedBlock, Group, LeaderLease, PendingDeletion, StepIndex

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.db]
BEFORE, AFTER = "0015_identity", "0016_plain_names"
OLD = "before"  # the alias of a database that the earlier migrations made
NAMES = {"parcel": "archivedblock", "leftover": "pendingdeletion", "clock": "stepindex", "beat": "leaderlease"}
# As a worker of the version before writes them.
INSERTS = {
    "parcel": 'INSERT INTO experiments_parcel (group_id, number, key, size, "index")'
    " VALUES ({n}, {n}, 'k{n}', 9, {b})",
    "leftover": "INSERT INTO experiments_leftover (path, storage, doomed) VALUES ('p{n}', 'blocks', {f})",
    "clock": "INSERT INTO experiments_clock (group_id, number, first_step, last_step, data)"
    " VALUES ({n}, {n}, 0, 4095, {b})",
    "beat": "INSERT INTO experiments_beat (name, owner, fence, lease_until, beat)"
    " VALUES ('duty{n}', 'host:1', 7, '2026-11-25 12:00:00', '2026-11-25 11:59:30')",
    "group": 'INSERT INTO experiments_group (id, run_id, name, version, names, stats, "rows", sealed, sealed_step,'
    " first_step, stride, parcelled, thinned, thin_done, revision)"
    " VALUES ({n}, NULL, 'train', 0, '[]', {b}, 9, 9, 8, 0, 1, 5, '[]', '', 0)",
}


@pytest.fixture
def before(tmp_path: Path) -> Iterator[Any]:
    """A connection to a database as the migrations before the renaming made it."""
    made = {**connections.databases["default"], "NAME": str(tmp_path / "before.sqlite3")}
    if connection.vendor == "postgresql":
        made["NAME"] = f"{connection.settings_dict['NAME']}_before"
        _on_server(f'CREATE DATABASE "{made["NAME"]}"')
    connections.databases[OLD] = made
    try:
        connections[OLD].connect()  # not through `ensure_connection`, which Django's tests allow to "default" only
        call_command("migrate", "experiments", BEFORE, database=OLD, verbosity=0)
        call_command("migrate", "auth", database=OLD, verbosity=0)
        yield connections[OLD]
    finally:
        connections[OLD].close()
        del connections[OLD], connections.databases[OLD]
        if connection.vendor == "postgresql":
            _on_server(f'DROP DATABASE "{made["NAME"]}"')


def _on_server(sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)


def ask(to: Any, sql: str) -> list[Any]:
    with to.cursor() as cursor:
        cursor.execute(sql)
        return list(cursor.fetchall()) if cursor.description else []


def insert(to: Any, table: str, number: int) -> None:
    postgres = to.vendor == "postgresql"
    words = {"n": number, "b": r"'\x2a'::bytea" if postgres else "x'2a'", "f": "false" if postgres else "0"}
    ask(to, INSERTS[table].format(**words))


def stored(to: Any) -> set[tuple[Any, ...]]:
    """Every table, index and constraint with the place where its rows lie, which a rewrite changes."""
    if to.vendor == "postgresql":
        kinds = "SELECT oid, relname, relfilenode, relnatts FROM pg_class WHERE relname LIKE 'experiments_%'"
        columns = "SELECT attrelid, attname FROM pg_attribute JOIN pg_class c ON c.oid = attrelid"
        ours = f"{columns} WHERE relname LIKE 'experiments_%'"
        return {*ask(to, kinds), *ask(to, ours), *ask(to, "SELECT oid, conname FROM pg_constraint")}
    return set(ask(to, "SELECT type, name, tbl_name, rootpage, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'"))


def permissions(to: Any) -> set[tuple[Any, ...]]:
    return set(
        ask(
            to,
            "SELECT c.id, c.model, p.id, p.codename, p.name FROM auth_permission p"
            " JOIN django_content_type c ON c.id = p.content_type_id WHERE c.app_label = 'experiments'",
        )
    )


def test_rows_of_before_are_found_under_the_new_names_and_no_table_is_touched(before: Any) -> None:
    for table in ("group", *NAMES):
        insert(before, table, 1)
    tables = stored(before)
    call_command("migrate", "experiments", AFTER, database=OLD, verbosity=0)
    assert stored(before) == tables
    block = ArchivedBlock.objects.using(OLD).get()
    assert (block.key, block.size, bytes(block.index), block.group.archived) == ("k1", 9, b"*", 5)
    assert PendingDeletion.objects.using(OLD).get().path == "p1"
    assert StepIndex.objects.using(OLD).get().last_step == 4095
    lead = LeaderLease.objects.using(OLD).get()
    assert (lead.owner, lead.fence, lead.renewed.second) == ("host:1", 7, 30)


def test_a_worker_of_before_goes_on_writing(before: Any) -> None:
    call_command("migrate", "experiments", AFTER, database=OLD, verbosity=0)
    for table in ("group", *NAMES):
        insert(before, table, 2)
    for model in (ArchivedBlock, PendingDeletion, StepIndex, LeaderLease, Group):
        assert model._default_manager.using(OLD).count() == 1
    assert Group.objects.using(OLD).filter(archived=5, archived_blocks__key="k2", step_indexes__number=2).exists()


def test_content_types_and_what_was_granted_follow_there_and_back(before: Any) -> None:
    was = permissions(before)
    assert {model for _, model, *_ in was} >= set(NAMES)
    granted = next(row for row in was if row[3] == "view_leftover")
    ask(before, "INSERT INTO auth_group (id, name) VALUES (1, 'operators')")
    ask(before, f"INSERT INTO auth_group_permissions (group_id, permission_id) VALUES (1, {granted[2]})")

    call_command("migrate", "experiments", AFTER, database=OLD, verbosity=0)
    now = permissions(before)
    assert {(row[0], row[2]) for row in now} == {(row[0], row[2]) for row in was}, "the same rows"
    assert not {model for _, model, *_ in now} & set(NAMES)
    for model_id, model, permission_id, codename, _ in was:
        action, _, of = codename.partition("_")
        renamed = (model_id, NAMES.get(model, model), permission_id, f"{action}_{NAMES.get(of, of)}")
        assert renamed in {row[:4] for row in now}
    assert (granted[0], "pendingdeletion", granted[2], "view_pendingdeletion", "Can view pending deletion") in now
    assert ask(before, "SELECT permission_id FROM auth_group_permissions") == [(granted[2],)]

    call_command("migrate", "experiments", BEFORE, database=OLD, verbosity=0)
    assert permissions(before) == was


def test_a_preview_of_the_migration_changes_nothing(before: Any) -> None:
    call_command("migrate", "contenttypes", database=OLD, verbosity=0)
    types = ask(before, "SELECT id, app_label, model FROM django_content_type ORDER BY id")
    assert {"parcel", "beat"} <= {model for _, _, model in types}
    call_command("sqlmigrate", "experiments", AFTER, database=OLD, stdout=StringIO())
    assert ask(before, "SELECT id, app_label, model FROM django_content_type ORDER BY id") == types
