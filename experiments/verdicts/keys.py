"""Which runs may be pooled: those with the same evidence key. Pure.

The key is the spec hash, a digest of the files that were read, the revision of the training code, torch's major.minor
and the kind of device. A pool takes its runs from one revision, torch and kind of device, and for each source of data
from one digest: those that cover most of its specs, an experiment's own runs first. A fork, which started with another
run's weights, counts only in its own experiment, and is pooled with no other run there.
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
        """What has to be equal in the whole pool."""
        return (
            self.identity.revision,
            self.identity.torch,
            self.identity.device_kind,
            self.run if self.forked else None,
        )


@dataclass(frozen=True)
class ExcludedRuns:
    """Runs of the same specs that do not count here, and the parts in which they differ: part → (theirs, used)."""

    runs: int
    differs: Mapping[str, tuple[str, str]]

    @property
    def text(self) -> str:
        parts = [f"{_NAMES.get(part, part)} {theirs} (used: {used})" for part, (theirs, used) in self.differs.items()]
        noun = "run of the same specs is" if self.runs == 1 else "runs of the same specs are"
        return f"{self.runs} {noun} left out: {', '.join(parts)}"


@dataclass(frozen=True)
class Choice:
    """Spec hash → run, all with one key; the parts of that key; and the runs that were left out."""

    runs: dict[str, int] = field(default_factory=dict)
    identities: tuple[Identity, ...] = ()  # one for each digest of data
    left_out: tuple[ExcludedRuns, ...] = ()

    @property
    def unknown_data(self) -> bool:
        """Whether the runs read files of which no digest was stored, so that they may have differed."""
        return any(identity.data_digest == UNKNOWN for identity in self.identities)

    @property
    def text(self) -> str:
        """The key in words; empty where no trainer has reported it."""
        key = self.identities[0] if self.identities else Identity()
        parts = [f"training revision {key.revision}"] if key.revision is not None else []
        parts += [f"torch {key.torch}"] if key.torch else []
        return ", ".join([*parts, key.device_kind] if key.device_kind else parts)


def choose(sources: Mapping[str, Hashable], candidates: Iterable[Candidate], own: Collection[int] = ()) -> Choice:
    """`sources` maps each wanted spec hash to the source of its data. Of several runs with one key, which trained to
    the same result, the first of `own` is used, else the first."""
    mine = set(own)
    known = [candidate for candidate in candidates if candidate.spec_hash in sources]
    usable = [candidate for candidate in known if not candidate.forked or candidate.run in mine]
    if not usable:
        return Choice(left_out=(ExcludedRuns(len(known), {"start": (_FORK, _SCRATCH)}),) if known else ())
    used, digests = _pooled(usable, sources, mine)
    runs: dict[str, int] = {}
    for candidate in sorted(used, key=lambda candidate: (candidate.run not in mine, candidate.run)):
        runs.setdefault(candidate.spec_hash, candidate.run)
    identities = sorted({candidate.identity for candidate in used}, key=lambda identity: identity.data_digest)
    left_out = _left_out(_without(known, used), used[0], digests, sources)
    return Choice(runs, tuple(identities), tuple(left_out))


def _pooled(
    usable: Sequence[Candidate], sources: Mapping[str, Hashable], mine: Collection[int]
) -> tuple[list[Candidate], dict[Hashable, str]]:
    """The runs with the commonest circumstances and, for each source of data, its commonest digest; and these."""
    circumstances = _most([(candidate.circumstances, candidate) for candidate in usable], mine)
    near = [candidate for candidate in usable if candidate.circumstances == circumstances]
    by_source: dict[Hashable, list[tuple[tuple[Any, ...], Candidate]]] = defaultdict(list)
    for candidate in near:
        by_source[sources[candidate.spec_hash]].append(((candidate.identity.data_digest,), candidate))
    digests = {source: _most(keyed, mine)[0] for source, keyed in by_source.items()}
    return [each for each in near if each.identity.data_digest == digests[sources[each.spec_hash]]], digests


def _without(candidates: Iterable[Candidate], used: Iterable[Candidate]) -> list[Candidate]:
    runs = {candidate.run for candidate in used}
    return [candidate for candidate in candidates if candidate.run not in runs]


def _most(keyed: Sequence[tuple[tuple[Any, ...], Candidate]], own: Collection[int]) -> tuple[Any, ...]:
    """The key that covers most specs by own runs, then by any run, then has the newest run."""
    mine: dict[tuple[Any, ...], set[str]] = defaultdict(set)
    every: dict[tuple[Any, ...], set[str]] = defaultdict(set)
    newest: dict[tuple[Any, ...], int] = {}
    for key, candidate in keyed:
        every[key].add(candidate.spec_hash)
        newest[key] = max(newest.get(key, 0), candidate.run)
        if candidate.run in own:
            mine[key].add(candidate.spec_hash)
    return max(every, key=lambda key: (len(mine[key]), len(every[key]), newest[key]))


def _left_out(
    others: Iterable[Candidate], used: Candidate, digests: Mapping[Hashable, str], sources: Mapping[str, Hashable]
) -> list[ExcludedRuns]:
    counts: Counter[tuple[tuple[str, str, str], ...]] = Counter()
    for other in others:
        theirs = other.identity.fields
        ours = used.identity.fields | {"data_digest": digests.get(sources[other.spec_hash], theirs["data_digest"])}
        parts = [
            (part, _shown(part, theirs[part]), _shown(part, ours[part])) for part in ours if theirs[part] != ours[part]
        ]
        if other.forked or used.forked:
            parts.append(("start", _start(other), _start(used)))
        counts[tuple(parts)] += 1
    return [
        ExcludedRuns(count, {part: (theirs, ours) for part, theirs, ours in parts})
        for parts, count in counts.most_common()
    ]


def _start(candidate: Candidate) -> str:
    return _FORK if candidate.forked else _SCRATCH


def _shown(part: str, value: Any) -> str:
    if value is None or value == "":
        return "no file" if part == "data_digest" else "unknown"
    return str(value)[:12] if part == "data_digest" else str(value)
