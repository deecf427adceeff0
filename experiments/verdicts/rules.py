"""The rule of each preset's verdict, one YAML file each in `rules/`. Pure, no Django.

A rule says what is compared and with which margin, never the outcome.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from experiments.submissions.presets import Words

_FOLDER = Path(__file__).parent / "rules"
# difference   value − against lies above the margin
# equivalence  value − against lies inside ± margin
# threshold    the value lies above the margin
# ratio        value ÷ against lies above the margin
# bound        the value is at most the margin at every seed: deterministic, no test
# floor        the value lies above the margin at every seed: deterministic, no test
Kind = Literal["difference", "equivalence", "threshold", "ratio", "bound", "floor"]
UNTESTED: frozenset[Kind] = frozenset({"bound", "floor"})


class Result(StrEnum):
    """The result of a comparison or of a preset."""

    SUPPORTED = "supported"
    NOT_SUPPORTED = "not supported"
    INCONCLUSIVE = "inconclusive"
    MIXED = "mixed"  # only of a preset: its comparisons disagree


class _RuleModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Term(_RuleModel):
    """A measured quantity of the one cell of the preset that `where` selects: the last value of a series, or the mean
    of several, minus the mean of the series in `minus`; or the first step at which a series lies `below` a value."""

    metric: str | list[str]
    minus: list[str] = []
    below: float | None = None
    where: dict[str, Any] = {}  # dotted path of the spec → value

    @model_validator(mode="after")
    def _is_one_kind(self) -> Term:
        if self.below is not None and (self.minus or len(self.metrics) > 1):
            raise ValueError(f"{self.metric}: `below` needs exactly one series and no `minus`")
        return self

    @property
    def metrics(self) -> list[str]:
        return [self.metric] if isinstance(self.metric, str) else list(self.metric)

    @property
    def last(self) -> list[str]:
        """The series whose last value it reads."""
        return [] if self.below is not None else [*self.metrics, *self.minus]

    def selects(self, leaves: Mapping[str, Any]) -> bool:
        """Whether the cell has these values; a missing field matches nothing."""
        return all(path in leaves and _same(leaves[path], value) for path, value in self.where.items())


class SubClaim(_RuleModel):
    """One comparison."""

    id: str = Field(pattern=r"^[a-z0-9-]+$")
    claim: Words
    kind: Kind
    value: Term
    against: Term | None = None
    margin: float
    resolution: float = Field(0.0, ge=0)  # the step between possible values: a smaller spread counts as that
    refutable: bool = False  # a difference that only equivalence, or the opposite difference, refutes
    decides: bool = True  # False: shown, but does not count towards the verdict

    @model_validator(mode="after")
    def _has_its_parts(self) -> SubClaim:
        paired = self.kind in {"difference", "equivalence", "ratio"}
        if paired != (self.against is not None):
            raise ValueError(f"{self.id}: a {self.kind} {'needs' if paired else 'takes no'} `against`")
        if self.refutable and self.kind != "difference":
            raise ValueError(f"{self.id}: `refutable` needs the kind difference")
        return self

    @property
    def terms(self) -> list[Term]:
        return [self.value] if self.against is None else [self.value, self.against]


class Shown(_RuleModel):
    """A mean with its interval, shown without a test."""

    label: Words
    term: Term


class Saying(_RuleModel):
    """An explanation, shown when the named comparisons have exactly these results."""

    when: dict[str, Result]
    say: Words


class Rule(_RuleModel):
    """How the verdict of one preset is decided."""

    preset: str
    pilot_seeds: list[int] = []  # used to choose the margins; they decide nothing
    test_seeds: list[int] = Field(min_length=2)  # fixed before training; fewer decide nothing
    claims: list[SubClaim] = Field(min_length=1)
    why: list[Saying]
    shows_not: Words
    differs: list[Words] = []  # how our model differs from the notes' sketch and from SAM 3
    differs_as: str | None = None  # the preset whose `differs` applies to this one's runs of the task segment
    shown: list[Shown] = []

    @model_validator(mode="after")
    def _names_what_it_has(self) -> Rule:
        known = [claim.id for claim in self.claims]
        if len(set(known)) < len(known):
            raise ValueError(f"{self.preset}: two comparisons have the same id")
        if unknown := {name for saying in self.why for name in saying.when} - set(known):
            raise ValueError(f"{self.preset}: `why` names unknown comparisons {sorted(unknown)}")
        if shared := sorted({*self.pilot_seeds} & {*self.candidates}):
            raise ValueError(f"{self.preset}: the seeds {shared} are pilot seeds and cannot be test seeds")
        return self

    @property
    def differences(self) -> list[Words]:
        """Its own, then those of the preset in `differs_as`."""
        return self.differs + (rules()[self.differs_as].differs if self.differs_as else [])

    @property
    def seeds(self) -> int:
        """The number of seeds of a look."""
        return len(self.test_seeds)

    @property
    def further_seeds(self) -> list[int]:
        """The same number of seeds again, which the second look adds."""
        after = max(self.test_seeds) + 1
        return list(range(after, after + self.seeds))

    @property
    def candidates(self) -> list[int]:
        """All seeds that can count, in order."""
        return [*self.test_seeds, *self.further_seeds]

    @property
    def terms(self) -> list[Term]:
        return [term for claim in self.claims for term in claim.terms] + [shown.term for shown in self.shown]

    @property
    def metrics(self) -> list[str]:
        """Every series whose last value it reads, in order of first use."""
        return list(dict.fromkeys(metric for term in self.terms for metric in term.last))

    @property
    def crossings(self) -> list[tuple[str, float]]:
        """Every series of which it reads the first step below a value, with that value."""
        return list(dict.fromkeys((term.metrics[0], term.below) for term in self.terms if term.below is not None))


@cache
def rules() -> dict[str, Rule]:
    """All rules by preset."""
    every = [Rule.model_validate(yaml.safe_load(path.read_text("utf-8"))) for path in sorted(_FOLDER.glob("*.yaml"))]
    return {rule.preset: rule for rule in every}


def _same(ours: Any, wanted: Any) -> bool:
    return list(ours) == list(wanted) if isinstance(wanted, list) and isinstance(ours, list | tuple) else ours == wanted
