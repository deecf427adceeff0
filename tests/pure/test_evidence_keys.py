"""Runs are pooled where spec, data, code, torch and kind of device agree, and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.spec.identity import UNKNOWN, Identity
from experiments.verdicts.keys import Candidate, choose

HERE = Identity("", 2, "2.9", "cpu")
OTHERS = {
    "revision": replace(HERE, revision=1),
    "torch": replace(HERE, torch="2.8"),
    "device_kind": replace(HERE, device_kind="cuda"),
    "data_digest": replace(HERE, data_digest="b" * 64),
}


def runs(*identities: Identity, hashes: str = "abcdefgh", first: int = 1) -> list[Candidate]:
    return [Candidate(first + at, hashes[at], one) for at, one in enumerate(identities)]


def sources(hashes: str) -> dict[str, str]:
    return dict.fromkeys(hashes, "the same")


@pytest.mark.parametrize("part", OTHERS)
def test_a_run_that_differs_in_one_part_is_left_out_and_the_part_is_named(part: str) -> None:
    choice = choose(sources("abc"), runs(HERE, HERE, OTHERS[part]))
    assert choice.runs == {"a": 1, "b": 2}
    (left,) = choice.left_out
    assert (left.runs, set(left.differs)) == (1, {part})
    assert "1 run of the same specs is left out" in left.text


def test_what_covers_more_specs_is_used_and_the_newer_of_equals() -> None:
    old, new = OTHERS["revision"], HERE
    assert choose(sources("abc"), [*runs(old, old), *runs(new, first=9)]).identities == (old,)
    assert choose(sources("abc"), [*runs(old, old), *runs(new, new, first=9)]).identities == (new,)


def test_the_own_runs_of_an_experiment_decide_before_the_number_of_all() -> None:
    mine = runs(HERE, hashes="a", first=1)
    others = runs(*[OTHERS["torch"]] * 3, hashes="abc", first=5)
    assert choose(sources("abc"), [*mine, *others], own={1}).runs == {"a": 1}


def test_two_sources_of_data_have_a_digest_each() -> None:
    cat, dog = replace(HERE, data_digest="c" * 64), replace(HERE, data_digest="d" * 64)
    choice = choose({"a": "cat", "b": "dog", "c": "dog"}, runs(cat, dog, cat))
    assert choice.runs == {"a": 1, "b": 2} or choice.runs == {"a": 1, "c": 3}
    assert sum(left.runs for left in choice.left_out) == 1


def test_a_fork_counts_in_its_own_experiment_alone() -> None:
    fork = Candidate(7, "b", HERE, forked=True)
    choice = choose(sources("ab"), [*runs(HERE), fork])
    assert choice.runs == {"a": 1}
    assert [set(left.differs) for left in choice.left_out] == [{"start"}]
    assert choose(sources("ab"), [*runs(HERE), fork], own={7}).runs == {"b": 7}
    alone = choose(sources("b"), [fork])
    assert (alone.runs, alone.left_out[0].runs) == ({}, 1)


def test_runs_whose_data_nobody_knows_are_told() -> None:
    assert choose(sources("a"), runs(replace(HERE, data_digest=UNKNOWN))).unknown_data
    assert not choose(sources("a"), runs(HERE)).unknown_data


_identity = st.builds(
    Identity,
    st.sampled_from(["", "x", "y"]),
    st.sampled_from([None, 1, 2]),
    st.sampled_from(["", "2.8", "2.9"]),
    st.sampled_from(["cpu", "cuda"]),
)


@given(st.lists(st.tuples(st.sampled_from("abcd"), _identity, st.booleans()), max_size=12), st.data())
def test_whatever_is_stored_a_pool_has_one_key_and_every_run_is_counted_once(
    stored: list[tuple[str, Identity, bool]], data: st.DataObject
) -> None:
    found = {at: Candidate(at, *one) for at, one in enumerate(stored, start=1)}
    own = data.draw(st.sets(st.sampled_from(sorted(found)))) if found else set()
    choice = choose(sources("abcd"), found.values(), own)
    chosen = [found[run] for run in choice.runs.values()]
    assert {one.spec_hash: one.run for one in chosen} == choice.runs
    assert len({one.identity for one in chosen}) <= 1
    assert len(chosen) == 1 or not any(one.forked for one in chosen)
    assert bool(chosen) == any(not one.forked or one.run in own for one in found.values())
    alike = [one for one in found.values() if chosen and (one.identity, one.forked) == (chosen[0].identity, False)]
    counted = 1 if chosen and chosen[0].forked else len(alike)
    assert sum(left.runs for left in choice.left_out) == len(found) - counted
