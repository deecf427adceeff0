"""Linear probes of a run."""

from __future__ import annotations

from dataclasses import asdict

from pydantic import BaseModel
from rest_framework.request import Request
from rest_framework.response import Response

from experiments.api.http.access import visible_run
from experiments.api.http.base import View
from experiments.api.http.query import Query
from experiments.inspection.linear_probes import MISSING, probes


class ProbeRow(BaseModel):
    """Balanced accuracy of a linear probe: on the trained net, on an untrained net, and with shuffled labels."""

    vector: str
    property: str
    trained: float | None
    untrained: float | None
    control: float | None


class ProbeAnswer(BaseModel):
    """`missing` says why there are no probes."""

    run: int
    probes: list[ProbeRow]
    missing: str


class RunProbes(View[Query]):
    """Accuracy of linear probes of Q, K, V and the input X, with baselines."""

    answers = {"GET": (200, ProbeAnswer)}

    def get(self, request: Request, run_id: int) -> Response:
        run = visible_run(request, run_id, defer=["spec"])
        rows = [asdict(probe) for probe in probes(run.pk)]
        return Response({"run": run.pk, "probes": rows, "missing": "" if rows else MISSING})
