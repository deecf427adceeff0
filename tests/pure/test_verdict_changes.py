"""docs/verdict-changes.md has a line for every change of a rule, and its last lines are what docs/verdicts.md says."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

from experiments.verdicts.rules import Rule, SubClaim, rules

DOCS = Path(__file__).parents[2] / "docs"
WHAT_DECIDES = {"id", "kind", "value", "against", "margin", "refutable", "decides"}


def digest(rule: Rule) -> str:
    """Of all that can move a verdict: seeds, terms, kinds and margins; not of the sentences."""
    claims = [one.model_dump(mode="json", include=WHAT_DECIDES) | _resolution(one) for one in rule.claims]
    whole = json.dumps([rule.pilot_seeds, rule.test_seeds, claims], sort_keys=True)
    return hashlib.sha256(whole.encode()).hexdigest()[:8]


def _resolution(claim: SubClaim) -> dict[str, float]:
    return {"resolution": claim.resolution} if claim.resolution else {}


def lines() -> dict[str, list[list[str]]]:
    """preset → its lines, oldest first: date, preset, rule, before, after, cause."""
    found: dict[str, list[list[str]]] = {}
    for line in (DOCS / "verdict-changes.md").read_text("utf-8").splitlines():
        if re.match(r"\| \d{4}-\d\d-\d\d \|", line):
            cells = [cell.strip().strip("`") for cell in line.strip("|").split("|")]
            found.setdefault(cells[1], []).append(cells)
    return found


@pytest.mark.parametrize("name", rules())
def test_the_last_line_of_a_preset_is_of_its_rule_as_it_stands(name: str) -> None:
    found = digest(rules()[name])
    assert lines()[name][-1][2] == found, f"the rule of {name} changed: add a line with its digest, {found}, and why"


@pytest.mark.parametrize("name", rules())
def test_the_last_line_of_a_preset_says_what_the_verdicts_say(name: str) -> None:
    (row,) = re.findall(
        rf"^\| \[`{name}`\]\(#{name}\) \| \*\*(.+?)\*\*", (DOCS / "verdicts.md").read_text(), re.MULTILINE
    )
    assert lines()[name][-1][4] == row


def test_every_line_has_a_cause_and_begins_where_the_one_before_it_ended() -> None:
    for found in lines().values():
        assert all(len(cells) == 6 and cells[5] for cells in found)
        assert [cells[0] for cells in found] == sorted(cells[0] for cells in found)
        assert [cells[3] for cells in found[1:]] == [cells[4] for cells in found[:-1]]


def test_a_margin_a_seed_and_a_term_move_the_digest_and_a_sentence_does_not() -> None:
    rule = rules()["why-q"]
    first, *others = rule.claims
    for changed in (
        rule.model_copy(update={"test_seeds": [*rule.test_seeds, 99]}),
        rule.model_copy(update={"claims": [first.model_copy(update={"margin": 0.1}), *others]}),
        rule.model_copy(update={"claims": others}),
    ):
        assert digest(changed) != digest(rule)
    assert digest(rule.model_copy(update={"shows_not": rule.why[0].say})) == digest(rule)
