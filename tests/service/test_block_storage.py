"""Exact values in an object store that speaks S3: the same answers as from the database, or a clear error."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from django.db.models.functions import Now
from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test

from attnservice.env import BadSetting
from attnservice.storage_url import blocks_storage
from experiments import lifecycle, store
from experiments.maintenance import archiving, retention
from experiments.models import ArchivedBlock, Block, Group, PendingDeletion, Project, Run
from experiments.states import State
from experiments.store.archive import objects
from experiments.store.blocks.cover import BLOCK
from experiments.store.readers.history import history

from . import block_storage
from .api_client import API, client_of, problem
from .block_storage import Bucket
from .factories import make_project, make_run, make_user
from .test_store_model import Store, dying_after

pytestmark = [pytest.mark.django_db, pytest.mark.db]
NAMES = ["loss/total", "lr", "grad_norm/a/W_q", "grad_norm/a/W_q/head.0"]


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[Bucket, str]]:
    yield from block_storage.serve()


@pytest.fixture
def bucket(server: tuple[Bucket, str], settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    bucket, endpoint = server
    block_storage.use(settings, monkeypatch, endpoint)
    yield bucket
    bucket.empty()


def make_past(rows: int = 3 * BLOCK + 7) -> tuple[Run, Any]:
    """A succeeded, sealed run and its values."""
    run, steps = make_run(make_project()), np.arange(rows)
    values = np.random.default_rng(rows).normal(size=(rows, len(NAMES))).astype(np.float32)
    values[rows // 2, 0] = 50
    store.append(run.pk, [store.Incoming("train", NAMES, steps, steps / 10, values)])
    group = Group.objects.get(run=run)
    while store.seal_next(group, rows, final=True):
        pass
    Run.objects.filter(pk=run.pk).update(state=State.SUCCEEDED, finished=Now())
    return run, values


def exact(run: Run) -> Any:
    return np.concatenate([rows.values for rows in history(run.pk, ["**"]).rows()], axis=1).T


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[objects.Span]:
    """What has been read from the object store since."""
    spans: list[objects.Span] = []
    through = objects.ranges
    monkeypatch.setattr(objects, "ranges", lambda wanted: spans.extend(wanted) or through(wanted))
    return spans


def test_exact_values_move_out_and_every_answer_stays_the_same(bucket: Bucket) -> None:
    run, values = make_past()
    before = store.read([run.pk], ["**"], max_points=10**6, from_step=5, to_step=9000)
    while archiving.sweep():
        pass
    assert len(bucket.names()) == ArchivedBlock.objects.count() == 4
    assert all(key.startswith(f"{block_storage.PREFIX}/") for key in bucket.names())
    assert not Block.objects.filter(data__isnull=False).exists()
    assert not PendingDeletion.objects.exists()
    after = store.read([run.pk], ["**"], max_points=10**6, from_step=5, to_step=9000)
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old.values, new.values)
        assert new.exact
    np.testing.assert_array_equal(exact(run), values)
    assert archiving.sweep() == 0


def test_charts_and_heat_maps_read_no_object_and_one_series_reads_its_own_bytes(
    bucket: Bucket, asked: list[objects.Span]
) -> None:
    run, _ = make_past(17 * BLOCK)
    archiving.sweep(60)
    (series,) = store.read([run.pk], ["loss/total"], max_points=1000)
    store.grid(run.pk, ["**"], columns=100)
    assert (asked, series.values.max()) == ([], 50)
    store.read([run.pk], ["lr"], max_points=10**6)
    assert len(asked) == 17
    assert sum(end - first for _, first, end in asked) < 17 * BLOCK * 4.1
    asked.clear()
    store.read([run.pk], ["**"], max_points=10**6)
    assert {first for _, first, _ in asked} == {0}, "whole objects where most of them is wanted"


def test_a_missing_or_damaged_object_is_an_error_with_run_and_series_never_a_curve(bucket: Bucket) -> None:
    run, _ = make_past()
    archiving.sweep(60)
    second = ArchivedBlock.objects.get(number=1)
    key = f"{block_storage.PREFIX}/{second.key}"
    whole = bucket.read(key)
    bucket.write(key, whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    with pytest.raises(store.Unreadable, match=rf"run {run.pk}, series loss/total, block 1: object .* damaged"):
        store.read([run.pk], ["loss/total"], max_points=10**6)
    assert store.read([run.pk], ["lr"], max_points=10**6)[0].exact, "the others are whole"
    bucket.write(key, whole[:-5])
    with pytest.raises(store.Unreadable, match=r"head\.0, block 1"):
        exact(run)
    bucket.client.delete_object(Bucket=block_storage.BUCKET, Key=key)
    asked = {"runs": run.pk, "names": "lr", "max_points": 100_000}
    reply = client_of(make_user(is_superuser=True)).get(f"{API}/series/", asked)
    assert f"run {run.pk}, series lr, block 1" in problem(reply, 503)["detail"]
    bucket.write(key, whole)
    assert store.read([run.pk], ["lr"], max_points=10**6)[0].exact


def test_without_the_setting_what_lies_outside_is_told_and_charts_go_on(bucket: Bucket, settings: Any) -> None:
    run, _ = make_past()
    archiving.sweep(60)
    settings.STORAGES = {name: entry for name, entry in settings.STORAGES.items() if name != "blocks"}
    assert len(store.read([run.pk], ["**"], max_points=500)) == 4
    with pytest.raises(store.Unreadable, match="ATTN_BLOCKS_STORAGE is not set here"):
        store.read([run.pk], ["lr"], max_points=10**6)


def test_small_blocks_and_runs_that_go_on_stay_in_the_database(bucket: Bucket, settings: Any) -> None:
    run, _ = make_past(BLOCK + 10)
    Run.objects.filter(pk=run.pk).update(state=State.RUNNING, finished=None)
    assert archiving.sweep() == 0
    assert store.archive_next(Group.objects.get(), 0) is None, "a run that was resumed since it was read"
    Run.objects.filter(pk=run.pk).update(state=State.SUCCEEDED, finished=Now())
    settings.ATTN_BLOCKS_MIN_KB = 4
    archiving.sweep(60)
    assert [block.number for block in ArchivedBlock.objects.all()] == [0], "the last block has ten rows"
    assert not archiving.due().exists()
    retention.sweep()
    assert len(bucket.names()) == 1, "the object that was not named is swept"


def test_killed_between_object_and_row_the_object_is_swept_and_archived_again(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, values = make_past()

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ArchivedBlock.objects, "create", die)
        with pytest.raises(KeyboardInterrupt):
            archiving.sweep(60)
    assert (len(bucket.names()), ArchivedBlock.objects.count(), PendingDeletion.objects.count()) == (1, 0, 1)
    np.testing.assert_array_equal(exact(run), values)
    retention.sweep()
    assert (bucket.names(), PendingDeletion.objects.count()) == ([], 0)
    archiving.sweep(60)
    np.testing.assert_array_equal(exact(run), values)


def test_a_name_that_a_sweep_has_doomed_is_not_given_by_a_slow_writer(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, values = make_past(BLOCK)
    through = objects.put

    def slow(key: str, data: bytes) -> None:
        through(key, data)
        retention.sweep()  # another reconciler's, which cannot know that this one still lives

    monkeypatch.setattr(objects, "put", slow)
    assert store.archive_next(Group.objects.get(), 0) is None
    assert (ArchivedBlock.objects.count(), bucket.names()) == (0, [])
    np.testing.assert_array_equal(exact(run), values)


def test_thinning_takes_archived_blocks_back_and_a_deleted_run_leaves_no_object(bucket: Bucket) -> None:
    run, values = make_past(17 * BLOCK)
    archiving.sweep(60)
    Project.objects.filter(pk=run.project_id).update(thin_days=1, thin_level=2)
    Run.objects.filter(pk=run.pk).update(finished="2020-01-01T00:00:00Z")
    for _ in range(5):
        retention.sweep()
        archiving.sweep(60)
    assert len(bucket.names()) == ArchivedBlock.objects.count() == 17
    series_by_name = {series.name: series for series in store.read([run.pk], ["**"], max_points=10**6)}
    assert [series_by_name[name].thinned for name in NAMES] == [0, 0, 0, 2]
    np.testing.assert_array_equal(series_by_name["lr"].values, values[:, 1])
    assert sum(len(bucket.read(key)) for key in bucket.names()) < 17 * BLOCK * 3 * 4.1, "without the thinned series"
    lifecycle.delete_run(run.pk, None)
    while retention.sweep():
        pass
    assert (bucket.names(), ArchivedBlock.objects.count(), Group.objects.count()) == ([], 0, 0)


@pytest.mark.parametrize("url", ["bucket", "s3://", "http://x/y", "file://host/x", "s3://b?x=1"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(BadSetting, match="ATTN_BLOCKS_STORAGE"):
        blocks_storage(url, {})


def test_a_folder_is_a_block_storage_too(settings: Any, tmp_path: Any) -> None:
    settings.ATTN_BLOCKS_STORAGE, settings.ATTN_BLOCKS_MIN_KB = f"file://{tmp_path}", 0
    settings.ATTN_BLOCKS_AFTER_S = 0
    settings.STORAGES = {**settings.STORAGES, "blocks": blocks_storage(settings.ATTN_BLOCKS_STORAGE, {})}
    run, values = make_past()
    archiving.sweep(60)
    assert ArchivedBlock.objects.count() == 4
    np.testing.assert_array_equal(exact(run), values)


class Archived(Store):
    """The same sequences, while blocks leave for the object store in between."""

    def _over(self) -> None:
        Run.objects.filter(pk=self.run.pk).update(state=State.FAILED, finished=Now())

    @rule()
    def archive(self) -> None:
        self._over()
        for group in Group.objects.filter(run=self.run):
            while store.archive_next(group, 0) is not None:
                pass
        Run.objects.filter(pk=self.run.pk).update(state=State.QUEUED, finished=None)

    @rule(statements=st.integers(0, 8))
    def archive_and_crash(self, statements: int) -> None:
        self._over()
        for group in Group.objects.filter(run=self.run):
            with dying_after(statements):
                store.archive_next(group, 0)
        Run.objects.filter(pk=self.run.pk).update(state=State.QUEUED, finished=None)

    @rule()
    def sweep(self) -> None:
        lifecycle.clear_files(1000)

    def teardown(self) -> None:
        self.archive()
        super().teardown()
        lifecycle.clear_series(10**6)
        lifecycle.clear_files(10**6)
        assert not ArchivedBlock.objects.exists()


def test_any_sequence_with_blocks_in_the_object_store_equals_a_plain_list(bucket: Bucket) -> None:
    patient = hypothesis_settings(
        max_examples=10,
        stateful_step_count=25,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Archived, settings=patient)
