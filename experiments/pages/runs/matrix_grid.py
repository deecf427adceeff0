"""Small charts of the gradient norm at each site, W_q beside W_k beside W_v, for runs that are compared."""

from __future__ import annotations

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
    found = [sites for names in names_by_run if (sites := {_site(name) for name in names} - {""})]
    shared = [site for site in dict.fromkeys(map(_site, ordered)) if site and sum(site in sites for sites in found) > 1]
    known = set(ordered)
    return [Site(site, tuple(_known(f"grad_norm/{site}/{matrix}", known) for matrix in MATRICES)) for site in shared]


def _site(name: str) -> str:
    """The site that a series is about, or nothing."""
    parts = name.split("/")
    return parts[1] if len(parts) == 3 and parts[0] == "grad_norm" and parts[2] in MATRICES else ""


def _known(name: str, known: set[str]) -> str | None:
    return name if name in known else None
