"""Small charts of the gradient norm at each site, W_q beside W_k beside W_v, for compared runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

MATRICES = ("W_q", "W_k", "W_v")
MAX_SITES = 16


@dataclass(frozen=True)
class Site:
    """One attention site: the series of each of its matrices, none where no run has that matrix."""

    name: str
    series: tuple[str | None, ...]

    @property
    def names(self) -> str:
        return ",".join(name for name in self.series if name)


def sites_of(names_by_run: Iterable[set[str]], ordered: list[str]) -> list[Site]:
    """Sites that at least two runs have, in the order of the model."""
    runs_with: Counter[str] = Counter()
    for names in names_by_run:
        runs_with.update({_site(name) for name in names})
    known = set(ordered)
    return [_charts(site, known) for site in dict.fromkeys(map(_site, ordered)) if site and runs_with[site] > 1]


def _charts(site: str, known: set[str]) -> Site:
    names = (f"grad_norm/{site}/{matrix}" for matrix in MATRICES)
    return Site(site, tuple(name if name in known else None for name in names))


def _site(name: str) -> str:
    """The site that a series belongs to, or nothing."""
    parts = name.split("/")
    return parts[1] if len(parts) == 3 and parts[0] == "grad_norm" and parts[2] in MATRICES else ""
