"""The answers of report and verdict: numbers over seeds, with the runs they come from."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from experiments.submissions.presets import Words
from experiments.verdicts.rules import Kind, Result


class SeedValue(BaseModel):
    """The value of one seed and the run it comes from."""

    seed: int
    run: int
    value: float


class Spread(BaseModel):
    """Over seeds: mean, sample standard deviation (null for one seed) and the uncorrected 95 % t interval."""

    n: int
    mean: float | None
    std: float | None
    low: float | None
    high: float | None
    seeds: list[SeedValue]
    missing: list[int] = Field(description="seeds that no succeeded run has trained yet")


class VariantRow(Spread):
    label: str
    params: dict[str, Any]


class TestRow(BaseModel):
    """Paired t test over shared seeds of reference − variant, as in verdicts, with Holm's correction over all tests of
    the answer. `low` and `high` are the interval at the level 1 − `alpha` of that correction."""

    variant: str
    reference: str
    n: int
    difference: float | None
    low: float | None
    high: float | None
    alpha: float
    p: float | None = Field(description="of the hypothesis of no difference; null without a test")
    p_adjusted: float | None
    effect: float | None = Field(description="Cohen's d_z; null where nothing varies")
    conclusion: str = Field(description="the variant is larger or smaller, or the test is inconclusive or untested")
    untested: str = Field(description="why there is no test: one seed, or runs that have not ended; else empty")
    more_seeds: int | None = Field(description="the same number again, where the test is open")
    chance: float | None = Field(description="the predicted probability that these decide")


class TermRow(Spread):
    """A measured quantity of a comparison."""

    metrics: list[str]
    minus: list[str] = Field(description="the mean of these series is subtracted")
    below: float | None = Field(description="where set, the value is the first step at which the series lies below it")
    where: dict[str, Any]
    problem: str


class FindingRow(BaseModel):
    """One comparison of a verdict; `estimate` is a difference, a ratio or a mean, as `kind` says."""

    id: str
    claim: Words
    kind: Kind
    decides: bool = Field(description="false: shown, but does not count towards the verdict")
    result: Result
    margin: float
    refutable: bool = Field(description="a difference that only equivalence within ± margin refutes")
    n: int
    estimate: float | None
    std: float | None
    low: float | None
    high: float | None
    alpha: float | None
    hypothesis: str = Field(description="the hypothesis that a small p refutes")
    p: float | None
    p_adjusted: float | None
    effect: float | None = Field(description="Cohen's d_z; only of differences")
    look: int = Field(description="the look of this result: 1 at the seeds fixed beforehand, 2 at twice as many")
    more_seeds: int | None = Field(description="additional seeds of the next look; null where there is none")
    chance: float | None = Field(description="the probability that the next look decides")
    value: TermRow
    against: TermRow | None


class ShownRow(BaseModel):
    label: Words
    term: TermRow


class PartRow(BaseModel):
    theirs: str
    used: str


class LeftOutRow(BaseModel):
    """Succeeded runs of the same specs that do not count, and the parts of the evidence key in which they differ."""

    runs: int
    differs: dict[str, PartRow]
    text: str


class EvidenceRow(BaseModel):
    """The evidence key of the runs that count, apart from their specs: training revision, torch's major.minor, kind of
    device, and digests of the files that were read (one for each source of data)."""

    revision: int | None
    torch: str
    device_kind: str
    data_digests: list[str]
    unknown_data: bool = Field(description="they read files of which no digest was stored")
    left_out: list[LeftOutRow]


class VerdictAnswer(BaseModel):
    """The verdict of a preset, computed from runs on request."""

    preset: str
    verdict: Result
    seeds_needed: int
    test_seeds: list[int] = Field(description="fixed beforehand; the first look uses these")
    pilot_seeds: list[int] = Field(description="used to choose the margins; they never count")
    why: Words | None = Field(description="null where no sentence of the rule matches the results")
    shows_not: Words
    differs: list[Words]
    comparisons: list[FindingRow]
    shown: list[ShownRow]
    evidence: EvidenceRow


class AlarmRow(BaseModel):
    """Variants that do not differ: `same_training` where a varied field has no effect on training, `identical` where
    the recorded series are equal to the bit although the specs differ."""

    kind: str
    fields: list[str]
    variants: list[str]
    text: str


class ReportAnswer(BaseModel):
    """One series of an experiment, by variant and seed."""

    experiment: int
    metric: str
    metrics: list[str]
    seeds: list[int]
    looks: int = Field(description="how often seeds were chosen; each look uses a share of alpha")
    variants: list[VariantRow]
    tests: list[TestRow]
    verdict: VerdictAnswer | None
    departs_in: list[str] = Field(description="fields that differ from the preset; then `verdict` is null")
    alarms: list[AlarmRow]
    evidence: EvidenceRow
