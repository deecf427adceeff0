"""The stored runs that today's code would train alike: those of this training revision and installed torch."""

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
    """Major.minor of the installed torch, without importing it; empty where there is none."""
    try:
        return ".".join(version("torch").split("+")[0].split(".")[:2])
    except PackageNotFoundError:
        return ""


def is_todays(identity: Identity) -> bool:
    """Whether a run was trained by this revision and, where torch is installed, by that torch."""
    return identity.revision == REVISION and (not torch_here() or identity.torch in {"", torch_here()})


def todays(hashes: Collection[str], visible: RunQuerySet) -> list[Candidate]:
    """Today's succeeded runs of these specs, oldest first, without forks."""
    return [run for run in candidates(hashes, visible) if not run.forked and is_todays(run.identity)]


def trained_already(hashes: Collection[str], visible: RunQuerySet) -> dict[str, Candidate]:
    """The newest such run of each spec. Whether files that it read have changed is only known when training."""
    return {run.spec_hash: run for run in todays(hashes, visible)}
