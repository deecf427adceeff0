"""Every claim of the notes has a comparison that decides it, and every comparison a claim."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from experiments.submissions.presets import presets
from experiments.verdicts.cells import chosen, preset_cells
from experiments.verdicts.rules import Rule, SubClaim, rules

CLAIMS: list[dict[str, Any]] = yaml.safe_load((Path(__file__).parents[2] / "docs/claims.yaml").read_text("utf-8"))
NINE = (
    "learn-qkv",
    "sam3-lite",
    "gradient-chain",
    "what-qkv-learn",
    "token-roles",
    "why-q",
    "image-self-attention",
    "text-finds-object",
    "self-vs-cross",
)


def test_all_nine_presets_have_a_rule() -> None:
    assert set(rules()) == set(NINE)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: f"{claim['section']} {claim['quote'][:20]}")
def test_every_claim_has_comparisons_that_decide_it(claim: dict[str, Any]) -> None:
    assert set(claim) == {"section", "quote", "preset", "comparisons", "metric"}
    known = {one.id: one for one in rules()[claim["preset"]].claims}
    assert claim["comparisons"]
    assert set(claim["comparisons"]) <= set(known)
    assert all(known[name].value.metrics[0] == claim["metric"] for name in claim["comparisons"])


def test_every_comparison_belongs_to_a_claim() -> None:
    claimed = {(claim["preset"], name) for claim in CLAIMS for name in claim["comparisons"]}
    assert {(name, one.id) for name, rule in rules().items() for one in rule.claims} == claimed


def test_every_section_of_the_notes_that_claims_something_is_tested() -> None:
    sections = {"1.1", "1.2", "1.3", "1.4", "1.5", "2.1", "2.2", "2.3", "2.4", "2.5", "3.1", "3.2", "3.3", "3.4", "4"}
    assert {claim["section"] for claim in CLAIMS} == sections


def test_every_rule_says_why_and_what_it_does_not_show_in_both_languages() -> None:
    for rule in rules().values():
        texts = [rule.shows_not, *(saying.say for saying in rule.why), *(one.claim for one in rule.claims)]
        assert rule.why
        assert all(text.en.strip() and text.zh.strip() for text in texts)


@pytest.mark.parametrize("name", NINE)
def test_every_comparison_means_one_variant_of_its_preset(name: str) -> None:
    rule = rules()[name]
    terms = [(one.id, term) for one in rule.claims for term in one.terms]
    terms += [(one.label.en, one.term) for one in rule.shown]
    counts = {label: len(chosen(preset_cells(name), term)) for label, term in terms}
    assert counts == dict.fromkeys(counts, 1)


@pytest.mark.parametrize("name", NINE)
def test_a_preset_trains_the_seeds_that_its_rule_fixed_and_none_of_its_pilot(name: str) -> None:
    rule = rules()[name]
    assert presets()[name].seeds == rule.test_seeds
    assert rule.pilot_seeds
    assert not {*rule.pilot_seeds} & {*rule.test_seeds, *rule.further_seeds}
    assert len(rule.further_seeds) == len(rule.test_seeds)


def test_a_difference_needs_something_to_differ_from() -> None:
    part = {"id": "a", "claim": {"en": "a", "zh": "a"}, "value": {"metric": "test/accuracy"}, "margin": 0}
    for kind, against, message in (
        ("difference", {}, "needs `against`"),
        ("threshold", {"against": {"metric": "test/x"}}, "takes no `against`"),
        ("ratio", {"against": {"metric": "test/x"}, "refutable": True}, "needs the kind difference"),
    ):
        with pytest.raises(ValidationError, match=message):
            SubClaim.model_validate({**part, "kind": kind, **against})
    both = [{**part, "kind": "threshold"}] * 2
    rule = {"preset": "x", "test_seeds": [8, 9], "why": [], "shows_not": {"en": "a", "zh": "a"}, "claims": both}
    with pytest.raises(ValidationError, match="two comparisons"):
        Rule.model_validate(rule)
    with pytest.raises(ValidationError, match="unknown comparisons"):
        Rule.model_validate(
            {**rule, "claims": both[:1], "why": [{"when": {"b": "supported"}, "say": {"en": "", "zh": ""}}]}
        )


@pytest.mark.parametrize("name", NINE)
def test_a_preset_with_runs_on_scenes_says_how_its_model_differs_from_sam3(name: str) -> None:
    own = presets()[name]
    specs = [own.spec, *(part.spec for part in own.also)]
    differences = rules()[name].differences
    assert bool(differences) == any(spec["task"] == "segment" for spec in specs)
    if differences:
        assert differences == rules()["sam3-lite"].differs
