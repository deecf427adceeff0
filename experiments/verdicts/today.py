"""Which stored runs today's code would train again: those of this training revision and the torch installed here."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from experiments.models.runs import RunQuerySet
from experiments.spec.identity import Identity
from experiments.spec.revision import REVISION

from .keys import Candidate
from .samples import candidates


@cache
def torch_here() -> str:
    """Major.minor of the torch that is installed here, without importing it; empty where there is none."""
    try:
        return ".".join(version("torch").split("+")[0].split(".")[:2])
    except PackageNotFoundError:
        return ""


def is_todays(identity: Identity) -> bool:
    """Whether a run was trained by this revision and, as far as that is known here, this torch."""
    return identity.revision == REVISION and (not torch_here() or identity.torch in {"", torch_here()})


def todays(hashes: Collection[str], visible: RunQuerySet) -> list[Candidate]:
    """Succeeded runs of these specs, oldest first, that began with no other run's weights."""
    return [one for one in candidates(hashes, visible) if not one.forked and is_todays(one.identity)]


def trained_already(hashes: Collection[str], visible: RunQuerySet) -> dict[str, Candidate]:
    """The newest such run of each spec. Where it read files, nobody knows before training whether they are the same."""
    return {one.spec_hash: one for one in todays(hashes, visible)}
