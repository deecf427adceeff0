"""Pointer and roles: the truth against a naive reading, determinism, the swaps, the last score."""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments.spec import PointerData, PointerSpec, RolesData, RolesSpec
from tests.lab.collected import tiny, train_collected
from workers.trainer.attention import Attention, Tap
from workers.trainer.attention.hooks import tapped
from workers.trainer.attention.sites import sites
from workers.trainer.data.draws import stream
from workers.trainer.data.tokens import pointer, roles
from workers.trainer.data.tokens.grammar import CASES, MODALS, PEOPLE, UNKNOWN, VERBS, VOCABULARY, read
from workers.trainer.data.tokens.lookups import PADDING, Lookups
from workers.trainer.tasks.lookup.pointer import PointerTask, any_two, sgd_delta
from workers.trainer.tasks.lookup.roles import RolesTask, namesakes, position_gold_mass
from workers.trainer.tasks.lookup.swaps import Pairs, expected_classes, following, swapped

POINTER = PointerData(dataset="pointer", tokens=5, payloads=4)
ROLES = RolesData(dataset="roles")
CPU = torch.device("cpu")


def test_a_pointer_is_answered_by_the_token_of_the_name_it_asks_for() -> None:
    drawn = pointer.batch(POINTER, "val", np.arange(20))
    for tokens, targets, answers, gold in zip(drawn.fields, drawn.targets, drawn.truth(), drawn.gold, strict=True):
        assert sorted(tokens[:, pointer.NAME]) == list(range(5))
        for place, (name, asks, _) in enumerate(tokens):
            (found,) = [at for at, other in enumerate(tokens) if other[pointer.NAME] == asks]
            assert asks != name
            assert (targets[place], answers[place]) == (found, tokens[found][pointer.PAYLOAD])
            assert gold[place].nonzero()[0].tolist() == [found]


@pytest.mark.parametrize("order", ["shuffled", "fixed"])
def test_each_role_asks_its_own_clause(order: str) -> None:
    data = RolesData.model_validate({"dataset": "roles", "order": order})
    drawn = roles.batch(data, "val", np.arange(60))
    asks = {"主": "modal", "modal": "verb", "verb": "主", "宾": "verb"}
    gold = {"主": {"modal"}, "modal": {"主", "verb"}, "verb": {"主", "宾"}, "宾": {"verb"}}
    for row in range(60):
        length = int(drawn.present[row].sum())
        read_as = [_role(drawn, row, place) for place in range(length)]
        for place, (role, clause) in enumerate(read_as):
            if role is None:
                continue
            targets = int(drawn.targets[row, place])
            assert drawn.truth()[row, place] == drawn.fields[row, targets, roles.WORD]
            assert read_as[targets] in ((asks[role], clause), (None, clause))
            liked = {read_as[other][0] or "hidden" for other in np.flatnonzero(drawn.gold[row, place])}
            assert liked <= gold[role] | {"hidden"}
            assert len(np.flatnonzero(drawn.gold[row, place])) == len(gold[role])
        assert (drawn.targets[row, length:] == PADDING).all()
        assert not drawn.gold[row, length:].any()
        assert not drawn.gold[row, :, length:].any()


def _role(drawn: Lookups, row: int, place: int) -> tuple[str | None, str]:
    """Role and clause by a token's word and marker; the role of a hidden predicate is not to be seen."""
    word, marker = VOCABULARY[drawn.fields[row, place, 0]], CASES[drawn.fields[row, place, 1]]
    if marker[0] in "主宾":
        return marker[0], marker[1]
    kinds = {word: "modal" for words in MODALS.values() for word in words}
    kinds |= {word: "verb" for words in VERBS.values() for word in words}
    return kinds.get(word), marker[1]


def test_a_sentence_is_one_or_two_whole_clauses_of_one_language() -> None:
    drawn = roles.batch(ROLES, "train", stream(3, 0, 300))
    assert set(drawn.present.sum(1)) == {4, 8}
    chinese = {word for word in VOCABULARY if not word.isascii()}
    for tokens, present in zip(drawn.fields, drawn.present, strict=True):
        words = {VOCABULARY[word] for word in tokens[present, roles.WORD]} - {"<unknown>"}
        assert words <= chinese or not words & chinese


def test_words_are_hidden_now_and_then_so_that_the_unknown_is_known() -> None:
    drawn = roles.batch(ROLES, "train", stream(0, 0, 2000))
    hidden = (drawn.fields[..., roles.WORD] == UNKNOWN)[drawn.present].mean()
    assert 0.02 < hidden < 0.045


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_sample_is_the_same_in_any_batch_and_order(split: str) -> None:
    mixed = np.array([7, 0, 41, 3])
    for make in (lambda rows: pointer.batch(POINTER, split, rows), lambda rows: roles.batch(ROLES, split, rows)):  # type: ignore[arg-type]
        many, some = make(np.arange(50)), make(mixed)
        assert (many.fields[mixed] == some.fields).all()
        assert (many.targets[mixed] == some.targets).all()


def test_splits_and_seeds_differ() -> None:
    first = [pointer.batch(POINTER, split, np.arange(50)).fields for split in ("train", "val", "test")]  # type: ignore[arg-type]
    first.append(pointer.batch(POINTER, "train", stream(1, 0, 50)).fields)
    assert all((a != b).any() for at, a in enumerate(first) for b in first[:at])


def test_every_pair_of_places_is_asked_about_equally_often() -> None:
    drawn = pointer.batch(POINTER, "test", np.arange(20_000))
    shares = drawn.gold.mean(0)
    assert np.abs(shares[~np.eye(5, dtype=bool)] - 0.25).max() < 0.015


def test_the_mode_guess_counts_the_most_frequent_payload() -> None:
    drawn = pointer.batch(POINTER, "val", np.arange(40))
    right = 0
    for content, answers in zip(drawn.content, drawn.truth(), strict=True):
        values, counts = np.unique(content, return_counts=True)
        right += int((answers == values[counts.argmax()]).sum())
    assert pointer.mode_guess(drawn, 4) == pytest.approx(right / (40 * 5))


# --- Typed sentences


@pytest.mark.parametrize("text", ["我 爱 吃 苹果", "我爱吃苹果", " 我爱 吃苹果。"])
def test_a_sentence_reads_with_and_without_spaces(text: str) -> None:
    sentence = read(text)
    assert sentence.labels == ("我", "爱", "吃", "苹果")
    assert sentence.markers == ("主甲", "谓甲", "谓甲", "宾甲")
    assert sentence.unknown == ()


def test_unknown_words_are_named_and_keep_their_place() -> None:
    sentence = read("我爱吃榴莲，妈妈 wants 看 书")
    assert sentence.unknown == ("榴莲", "wants")
    assert sentence.labels[3:5] == ("榴莲", "妈妈")
    assert sentence.words[3] == UNKNOWN
    assert sentence.cases[3:5] == (3, 4)


def test_typed_markers_free_the_order() -> None:
    sentence = read("苹果/宾 吃 我/主 爱")
    assert sentence.markers == ("宾甲", "谓甲", "主甲", "谓甲")
    assert read("I love eat apples").markers == ("主甲", "谓甲", "谓甲", "宾甲")


@pytest.mark.parametrize(("text", "told"), [("  ", "type a sentence"), ("我 " * 9, "at most 8 tokens")])
def test_a_sentence_that_cannot_be_read_is_refused(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        read(text)


def test_every_spoken_order_of_the_grammar_reads_as_the_data_marks_it() -> None:
    fixed = roles.batch(RolesData(dataset="roles", order="fixed"), "test", np.arange(200))
    for tokens, present in zip(fixed.fields, fixed.present, strict=True):
        if (tokens[:, roles.WORD] == UNKNOWN).any():
            continue
        text = " ".join(VOCABULARY[word] for word in tokens[present, roles.WORD])
        assert list(read(text).words) == tokens[present, roles.WORD].tolist()
        assert list(read(text).cases) == tokens[present, roles.CASE].tolist()


# --- Swaps


def by_hand() -> Lookups:
    """Place 0 asks 1, 1 asks 2, 2 asks 0; contents 10, 11, 12."""
    targets = np.array([[1, 2, 0]])
    gold = targets[..., None] == np.arange(3)
    return Lookups(np.zeros((1, 3, 1), np.int64), np.ones((1, 3), bool), np.array([[10, 11, 12]]), targets, gold)


def test_a_swap_predicts_who_is_answered_by_whom() -> None:
    order = Pairs(np.array([0]), np.array([1])).order(3)
    assert order.tolist() == [[1, 0, 2]]
    assert by_hand().truth().tolist() == [[11, 12, 10]]
    assert expected_classes(by_hand(), order, "q").tolist() == [[12, 11, 10]]  # 0 and 1 ask each other's question
    assert expected_classes(by_hand(), order, "k").tolist() == [[10, 12, 11]]  # targets 0 and 1 are exchanged
    assert expected_classes(by_hand(), order, "v").tolist() == [[10, 12, 11]]


def test_following_counts_only_answers_that_ought_to_move() -> None:
    order = Pairs(np.array([0]), np.array([1])).order(3)
    assert following(by_hand(), np.array([[12, 0, 0]]), order, "q") == 0.5
    assert following(by_hand(), by_hand().truth(), order, "q") == 0.0
    assert following(by_hand(), np.array([[10, 0, 11]]), order, "k") == 1.0


@pytest.mark.parametrize("role", ["q", "k", "v"])
def test_a_swap_inside_a_site_is_a_swap_of_its_vectors(role: str) -> None:
    task = PointerTask(_spec("pointer"), CPU)  # type: ignore[arg-type]
    order = torch.tensor([[2, 1, 0, 3]])
    x = torch.randn(1, 4, 16, generator=torch.Generator().manual_seed(0))
    site: Attention = next(iter(sites(task.model).values()))
    calls: list[Tap] = []
    for change in (nullcontext(), swapped(task.model, role, order), nullcontext()):  # nothing is left behind
        with tapped({"site": site}) as tap, change:
            site(x)
        calls.append(tap["site"])
    plain, inside, after = ({"q": tap.q_BHTD, "k": tap.k_BHSD, "v": tap.v_BHSE} for tap in calls)
    for name, value in inside.items():
        assert torch.equal(value, plain[name][:, :, order[0]] if name == role else plain[name])
        assert torch.equal(after[name], plain[name])


def test_namesakes_have_one_role_in_two_clauses() -> None:
    drawn = roles.batch(ROLES, "val", np.arange(80))
    both, pairs = namesakes(drawn)
    assert both.present.all()
    for row, (first, second) in enumerate(zip(pairs.first, pairs.second, strict=True)):
        here, there = (_role(both, row, int(place)) for place in (first, second))
        assert here[1:] == ("甲",)
        assert there[1:] == ("乙",)
        assert here[0] == there[0] or None in (here[0], there[0])


def test_two_places_of_a_pointer_pair_differ() -> None:
    pairs = any_two(pointer.batch(POINTER, "test", np.arange(500)))
    assert (pairs.first != pairs.second).all()
    assert set(pairs.first) == set(pairs.second) == set(range(5))


# --- Baselines and the last score


def test_position_alone_knows_the_fixed_order_and_not_the_shuffled_one() -> None:
    fixed, shuffled = (
        [roles.batch(RolesData(dataset="roles", order=order), split, np.arange(600)) for split in ("val", "test")]  # type: ignore[arg-type]
        for order in ("fixed", "shuffled")
    )
    assert position_gold_mass(*fixed) == pytest.approx(1.0)
    assert position_gold_mass(*shuffled) < 0.4


def test_a_plain_step_moves_a_weight_by_its_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(8, 8, generator=generator))
    weight.grad = torch.randn(8, 8, generator=generator) * 1e-6
    assert 0 < sgd_delta([weight]) < 1e-6
    still = torch.nn.Parameter(torch.randn(8, 8))
    still.grad = torch.zeros(8, 8)
    assert math.isnan(sgd_delta([still]))  # nothing was tested


@pytest.mark.parametrize("task", ["pointer", "roles"])
@pytest.mark.parametrize("variant", ["full", "const_q", "uniform", "no_qk"])
def test_the_last_score_is_whole_and_finite(task: str, variant: str, tmp_path: Path) -> None:
    spec = tiny(task, model={"attention": {"variant": variant}}, train={"steps": 2, "predictions": 2})
    sink, _ = train_collected(spec, tmp_path)
    finals = (PointerTask if task == "pointer" else RolesTask).finals
    scores = {name: values[-1] for name, (_, values) in sink.series("test").items()}
    assert {name for name in scores if "chain_error" not in name} == {f"test/{name}" for name in finals}
    assert np.isfinite(list(scores.values())).all()
    assert 0 <= scores["test/accuracy"] <= 1
    mass = sink.values("attn/object_mass/encoder.1.self", "probe")
    assert ((mass >= 0) & (mass <= 1)).all()


def test_the_last_score_depends_on_weights_and_seed_alone() -> None:
    for make, task in ((PointerTask, "pointer"), (RolesTask, "roles")):
        first, second = (make(_spec(task), CPU) for _ in range(2))  # type: ignore[arg-type]
        torch.manual_seed(5)
        before = first.model.state_dict()
        before = {name: value.clone() for name, value in before.items()}
        assert first.final() == second.final() == first.final()
        assert all(torch.equal(value, before[name]) for name, value in first.model.state_dict().items())


def test_without_residual_a_token_hands_on_only_what_it_was_told() -> None:
    task = PointerTask(_spec("pointer", residual=False, layers=1), CPU)  # type: ignore[arg-type]
    layer = task.model.encoder[0]
    x = torch.randn(2, 3, 16)
    told = layer.self_attention(layer.norm(x))
    assert torch.equal(layer(x), layer.ffn(told))


def _spec(task: str, **model: object) -> PointerSpec | RolesSpec:
    spec = tiny(task, model=dict(model))
    assert isinstance(spec, PointerSpec | RolesSpec)
    return spec


def test_people_stand_on_both_sides_of_a_verb() -> None:
    """Else the word would tell the role, and no marker were needed."""
    drawn = roles.batch(ROLES, "test", np.arange(500))
    people = {VOCABULARY.index(word) for words in PEOPLE.values() for word in words}
    cases = {int(case) for word, case in drawn.fields.reshape(-1, 2) if word in people}
    assert cases == {1, 3, 4, 6}
