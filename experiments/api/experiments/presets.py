"""The presets: predefined experiments with their specs."""

from __future__ import annotations

from django.http import Http404
from rest_framework.request import Request
from rest_framework.response import Response

from experiments.api.http.base import View, answer
from experiments.api.http.paging import Page
from experiments.api.http.query import Query
from experiments.submissions.presets import Preset, presets


class PresetPage(Page):
    results: list[Preset]


class PresetList(View[Query]):
    """All presets, in the order of the gallery; all on one page."""

    answers = {"GET": (200, PresetPage)}

    def get(self, request: Request) -> Response:
        return answer(PresetPage(results=list(presets().values()), next=None, previous=None))


class PresetDetail(View[Query]):
    """One preset, by name."""

    answers = {"GET": (200, Preset)}

    def get(self, request: Request, name: str) -> Response:
        preset = presets().get(name)
        if preset is None:
            raise Http404(f"there is no preset '{name}'")
        return answer(preset)
