"""Stored attention maps."""

from __future__ import annotations

from typing import Any

from django.http import Http404
from pydantic import BaseModel, Field
from rest_framework.request import Request
from rest_framework.response import Response

from experiments.api.http.access import visible_run
from experiments.api.http.base import View
from experiments.api.http.problems import Invalid
from experiments.api.http.query import Query, Step
from experiments.inspection.attention_maps import NoMap, NoPlace, steps_with_maps, stored_map


class MapQuery(Query):
    site: str | None = Field(None, max_length=100, description="the last site if absent")
    step: Step | None = Field(None, description="the newest map up to this step; the newest of all if absent")
    sample: int = Field(0, ge=0, le=1000, description="which of the stored validation samples")


class SiteRow(BaseModel):
    """What asks and what answers at a site: token, text, patch or query."""

    name: str
    heads: int
    asks: str
    answers: str


class AttentionMap(BaseModel):
    """`weights` are [heads][askers][answerers], each axis pooled to at most `side` places: the mean of pooled askers,
    the sum of pooled answerers. `about` tells what the sample is: its tokens, its image as base64 PNG. Without maps
    `weights` is empty and `missing` says why."""

    run: int
    step: int | None
    steps: list[int]
    site: str
    sites: list[SiteRow]
    sample: int
    samples: int
    side: int
    weights: list[list[list[float | None]]]
    about: dict[str, Any]
    missing: str


class RunAttention(View[MapQuery]):
    """A stored attention map of a fixed validation sample at a site and step."""

    query = MapQuery
    answers = {"GET": (200, AttentionMap)}

    def get(self, request: Request, run_id: int) -> Response:
        run = visible_run(request, run_id, defer=["spec"])
        steps = steps_with_maps(run)
        empty: dict[str, Any] = {
            "step": None,
            "site": "",
            "sites": [],
            "samples": 0,
            "side": 0,
            "weights": [],
            "about": {},
        }
        told = {"run": run.pk, "steps": steps, "sample": self.params.sample, "missing": ""}
        if not steps:
            return Response(told | empty | {"missing": "this run has stored no maps (yet): see record.maps_every"})
        try:
            return Response(told | stored_map(run, self.params.site, self.params.step, self.params.sample))
        except NoPlace as error:
            raise Invalid.at(error.field, str(error)) from None
        except NoMap as error:
            raise Http404(str(error)) from None
