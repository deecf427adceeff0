"""Choosing series: globs over names, and the group rows that have them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import re2

from experiments.models import Group
from experiments.store.blocks.cover import finest


class Thinned(ValueError):
    """The request needs points that a retention rule has dropped."""


@dataclass(frozen=True)
class Chosen:
    """A group row and its matching columns."""

    group: Group
    columns: tuple[int, ...]

    @property
    def run(self) -> int:
        run_id: int | None = self.group.run_id
        assert run_id is not None, "groups are chosen by their runs; those of deleted runs have none"
        return run_id

    @property
    def floor(self) -> int:
        """The finest level that all columns are sure to have: 0 if every point is kept."""
        thinned = self.group.thinned
        return finest(max(thinned[column] for column in self.columns), self.group.sealed) if thinned else 0

    def by_floor(self) -> list[Chosen]:
        """The same columns in parts of equal floors."""
        if not self.group.thinned:
            return [self]
        floors: dict[int, list[int]] = {}
        for column in self.columns:
            floors.setdefault(self.group.thinned[column], []).append(column)
        return [Chosen(self.group, tuple(columns)) for columns in floors.values()]


@lru_cache(maxsize=1024)
def matcher(glob: str) -> Any:
    """A glob over series names: `*` stops at a slash, `**` crosses it. RE2 matches in time linear in the name: Python's
    own engine backtracks between many stars, and one request would block the server for minutes."""
    parts = re.split(r"(\*\*|\*)", glob)
    return re2.compile("".join({"**": ".*", "*": "[^/]*"}.get(part) or re2.escape(part) for part in parts))


def matches(name: str, globs: Iterable[str]) -> bool:
    return any(matcher(glob).fullmatch(name) for glob in globs)


@lru_cache(maxsize=4096)
def _matching(names: tuple[str, ...], globs: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(column for column, name in enumerate(names) if matches(name, globs))


def choose(run_ids: Sequence[int], globs: Sequence[str]) -> list[Chosen]:
    """Group rows that have matching names, in order of run, with the matching columns."""
    groups = Group.objects.filter(run_id__in=run_ids).defer("stats").order_by("run_id", "id")
    chosen = [Chosen(group, _matching(tuple(group.names), tuple(globs))) for group in groups]
    return [choice for choice in chosen if choice.columns]
