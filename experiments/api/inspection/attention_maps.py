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
from experiments.inspection.attention_maps import NoMap, UnknownMap, steps_with_maps, stored_map


class MapQuery(Query):
    site: str | None = Field(None, max_length=100, description="without it, the last site")
    step: Step | None = Field(None, description="the newest map up to this step; without it, the newest of all")
    sample: int = Field(0, ge=0, le=1000, description="index of a stored validation sample")


class SiteRow(BaseModel):
    """A site: `asks` is the kind of its query positions, `answers` that of its key positions (token, text, patch or
    query)."""

    name: str
    heads: int
    asks: str
    answers: str


class AttentionMap(BaseModel):
    """`weights` are [heads][query positions][key positions], each axis pooled to at most `side` positions: by the mean
    over queries, by the sum over keys. `about` describes the sample: its tokens, or its image as base64 PNG. Without
    maps `weights` is empty and `missing` says why."""

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


NO_MAPS = "this run has no attention maps (yet); record.maps_every says when they are stored"


class RunAttention(View[MapQuery]):
    """A stored attention map of a fixed validation sample at a site and step."""

    query = MapQuery
    answers = {"GET": (200, AttentionMap)}

    def get(self, request: Request, run_id: int) -> Response:
        run = visible_run(request, run_id, defer=["spec"])
        steps = steps_with_maps(run)
        empty: dict[str, Any] = {"step": None, "site": "", "sites": [], "samples": 0, "side": 0, "weights": []}
        head = {"run": run.pk, "steps": steps, "sample": self.params.sample, "missing": ""}
        if not steps:
            return Response(head | empty | {"about": {}, "missing": NO_MAPS})
        try:
            return Response(head | stored_map(run, self.params.site, self.params.step, self.params.sample))
        except UnknownMap as error:
            raise Invalid.at(error.field, str(error)) from None
        except NoMap as error:
            raise Http404(str(error)) from None
