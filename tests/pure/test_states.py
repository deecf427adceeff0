"""The table of moves says what the design says."""

from __future__ import annotations

from experiments.states import ENDED, HELD, MOVES, Actor, State, sources


def test_every_state_is_reached_and_every_state_but_success_is_left() -> None:
    assert {to for _, to, _ in MOVES} == set(State)
    assert set(State) - {start for start, _, _ in MOVES} == {State.SUCCEEDED}


def test_only_a_worker_claims_and_only_the_holder_succeeds() -> None:
    assert {actor for _, to, actor in MOVES if to == State.CLAIMED} == {Actor.WORKER}
    assert {actor for _, to, actor in MOVES if to == State.SUCCEEDED} == {Actor.SUPERVISOR}


def test_users_move_nothing_that_is_held() -> None:
    assert not [move for move in MOVES if move[2] == Actor.USER and move[0] in HELD]
    assert sources(State.QUEUED, Actor.USER) == (State.FAILED, State.CANCELLED)


def test_the_reconciler_moves_only_what_is_held() -> None:
    assert {start for start, _, actor in MOVES if actor == Actor.RECONCILER} == set(HELD)
    assert not set(HELD) & set(ENDED)
