"""Names of packages in a submission: known where a worker of the pool has published them."""

from __future__ import annotations

from typing import Any

import pytest

from experiments.lifecycle import register_worker
from experiments.submissions import plugins
from experiments.submissions.submission import Plan, SubmissionError, plan

pytestmark = pytest.mark.django_db


def planned(**changes: Any) -> Plan:
    spec = {"task": "pointer", "data": {"dataset": "pointer"}, "model": {"attention": {"variant": "mine.linear"}}}
    return plan({"name": "own code", "spec": spec, **changes})


def publish(name: str, pool: str, *names: str) -> None:
    register_worker(name, "host", 1, [pool], 1, "CPU", {"plugins": list(names)})


def test_a_name_that_a_worker_of_the_pool_published_is_taken() -> None:
    publish("a", "cpu", "variants:mine.linear")
    assert plugins.check(planned()).runs


def test_an_unknown_name_is_refused_at_its_field_with_what_is_known() -> None:
    publish("a", "gpu", "variants:mine.linear")
    publish("b", "cpu", "variants:other.one", "tasks:mine.linear")
    with pytest.raises(SubmissionError) as caught:
        plugins.check(planned(matrix={"model.layers": [1, 2]}))
    (error,) = caught.value.errors
    assert error.dotted == "spec.model.attention.variant"
    assert error.message == "no worker of pool 'cpu' has 'mine.linear'; known there: other.one"
    assert plugins.check(planned(pool="gpu")).runs


def test_a_name_in_the_matrix_is_refused_there() -> None:
    spec = {"task": "pointer", "data": {"dataset": "pointer"}}
    for path, value in (("model.attention.variant", "mine.linear"), ("model.attention", {"variant": "mine.linear"})):
        with pytest.raises(SubmissionError) as caught:
            plugins.check(plan({"name": "own code", "spec": spec, "matrix": {path: [value]}}))
        assert [error.path for error in caught.value.errors] == [("matrix", path)]
        assert "none of them has published variants" in caught.value.errors[0].message


def test_what_is_ours_needs_no_worker() -> None:
    assert plugins.check(plan({"name": "ours", "preset": "learn-qkv"})).runs
