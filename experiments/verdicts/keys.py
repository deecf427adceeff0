"""Which runs may stand beside each other: those with one evidence key. Pure.

The key is the spec hash, a digest of the files that were read, the revision of the training code, torch's major.minor
and the kind of device. A pool takes its runs from one revision, torch and kind of device, and for each source of data
from one digest; what covers most of its specs is taken, an experiment's own runs first. A fork, which began with
another run's weights, counts in its own experiment alone, and stands beside nothing but itself there.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from experiments.spec.identity import UNKNOWN, Identity

_NAMES = {
    "revision": "training revision",
    "torch": "torch",
    "device_kind": "device",
    "data_digest": "data",
    "start": "start from",
}

_FORK, _SCRATCH = "another run's weights", "step 0"


@dataclass(frozen=True)
class Candidate:
    """A succeeded run of a wanted spec."""

    run: int
    spec_hash: str
    identity: Identity
    forked: bool = False

    @property
    def circumstances(self) -> tuple[Any, ...]:
        """What has to be one in the whole pool."""
        return (
            self.identity.revision,
            self.identity.torch,
            self.identity.device_kind,
            self.run if self.forked else None,
        )


@dataclass(frozen=True)
class ExcludedRuns:
    """Runs of the same specs that do not count here, and in which parts they differ: part → (theirs, used)."""

    runs: int
    differs: Mapping[str, tuple[str, str]]

    @property
    def text(self) -> str:
        parts = [f"{_NAMES.get(part, part)} {theirs} (used: {used})" for part, (theirs, used) in self.differs.items()]
        noun = "run of the same specs is" if self.runs == 1 else "runs of the same specs are"
        return f"{self.runs} {noun} left out: {', '.join(parts)}"


@dataclass(frozen=True)
class Choice:
    """Spec hash → run, all of one key; what that is; and what was left out."""

    runs: dict[str, int] = field(default_factory=dict)
    identities: tuple[Identity, ...] = ()  # one for each digest of data
    left_out: tuple[ExcludedRuns, ...] = ()

    @property
    def unknown_data(self) -> bool:
        """Whether the runs read files of which no digest was kept, so that nobody knows whether they were the same."""
        return any(one.data_digest == UNKNOWN for one in self.identities)

    @property
    def text(self) -> str:
        """The key in words; empty where no trainer has told anything."""
        one = self.identities[0] if self.identities else Identity()
        parts = [f"training revision {one.revision}"] if one.revision is not None else []
        parts += [f"torch {one.torch}"] if one.torch else []
        return ", ".join([*parts, one.device_kind] if one.device_kind else parts)


def choose(sources: Mapping[str, Hashable], candidates: Iterable[Candidate], own: Collection[int] = ()) -> Choice:
    """`sources` says of each wanted spec hash where its data come from. Of several runs with one key, which trained to
    the same result, the first of `own` stands for all, else the first."""
    mine = set(own)
    known = [one for one in candidates if one.spec_hash in sources]
    usable = [one for one in known if not one.forked or one.run in mine]
    if not usable:
        return Choice(left_out=(ExcludedRuns(len(known), {"start": (_FORK, _SCRATCH)}),) if known else ())
    where = _most([(one.circumstances, one) for one in usable], mine)
    near = [one for one in usable if one.circumstances == where]
    by_source: dict[Hashable, list[Candidate]] = defaultdict(list)
    for one in near:
        by_source[sources[one.spec_hash]].append(one)
    digests = {
        source: _most([((one.identity.data_digest,), one) for one in some], mine)[0]
        for source, some in by_source.items()
    }
    used = [one for one in near if one.identity.data_digest == digests[sources[one.spec_hash]]]
    runs: dict[str, int] = {}
    for one in sorted(used, key=lambda one: (one.run not in mine, one.run)):
        runs.setdefault(one.spec_hash, one.run)
    identities = sorted({one.identity for one in used}, key=lambda one: one.data_digest)
    counted = {one.run for one in used}
    others = [one for one in known if one.run not in counted]
    return Choice(runs, tuple(identities), tuple(_left_out(others, used[0], digests, sources)))


def _most(keyed: Sequence[tuple[tuple[Any, ...], Candidate]], own: Collection[int]) -> tuple[Any, ...]:
    """The key that covers most specs by own runs, then by any, then the newest."""
    mine: dict[tuple[Any, ...], set[str]] = defaultdict(set)
    every: dict[tuple[Any, ...], set[str]] = defaultdict(set)
    newest: dict[tuple[Any, ...], int] = {}
    for key, one in keyed:
        every[key].add(one.spec_hash)
        newest[key] = max(newest.get(key, 0), one.run)
        if one.run in own:
            mine[key].add(one.spec_hash)
    return max(every, key=lambda key: (len(mine[key]), len(every[key]), newest[key]))


def _left_out(
    others: Iterable[Candidate],
    used: Candidate,
    digests: Mapping[Hashable, str],
    sources: Mapping[str, Hashable],
) -> list[ExcludedRuns]:
    counts: Counter[tuple[tuple[str, str, str], ...]] = Counter()
    for one in others:
        theirs = one.identity.fields
        ours = used.identity.fields | {"data_digest": digests.get(sources[one.spec_hash], theirs["data_digest"])}
        parts = [
            (part, _shown(part, theirs[part]), _shown(part, ours[part])) for part in ours if theirs[part] != ours[part]
        ]
        if one.forked or used.forked:
            parts.append(("start", _start(one), _start(used)))
        counts[tuple(parts)] += 1
    return [
        ExcludedRuns(count, {part: (theirs, ours) for part, theirs, ours in parts})
        for parts, count in counts.most_common()
    ]


def _start(one: Candidate) -> str:
    return _FORK if one.forked else _SCRATCH


def _shown(part: str, value: Any) -> str:
    if value is None or value == "":
        return "no file" if part == "data_digest" else "not told"
    return str(value)[:12] if part == "data_digest" else str(value)
