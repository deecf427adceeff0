"""An ETag where all runs have ended, and 304 for callers who have that answer.

The ETag covers the groups' revisions and rows, which a retry changes, so an answer from before it never matches.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from typing import Any, ClassVar

from django.http.response import HttpResponseBase
from django.utils.cache import get_conditional_response, patch_cache_control, patch_vary_headers
from django.utils.http import quote_etag
from rest_framework.request import Request
from rest_framework.response import Response

from experiments.models import Group, Run
from experiments.states import ENDED

from .renderers import to_json

FORM = 3  # raise it when the form of an answer changes


class Cached:
    """A view whose answers only the caller may cache; documented as such."""

    cached: ClassVar[bool] = True

    @staticmethod
    def answer(
        request: Request, runs: Collection[int], make: Callable[[], Response], groups: Sequence[Group] | None = None
    ) -> HttpResponseBase:
        """The reply of `make`, or 304 without calling it. `groups` are those of the answer, where known."""
        etag = _etag(request, runs, groups)
        reply = get_conditional_response(request._request, etag=etag) if etag else None
        reply = reply if reply is not None and reply.status_code == 304 else make()
        if etag:
            reply["ETag"] = etag
        patch_cache_control(reply, private=True, no_cache=True)  # cached, but validated each time
        patch_vary_headers(reply, ["Accept", "Authorization", "Cookie"])
        return reply


def _etag(request: Request, runs: Collection[int], groups: Sequence[Group] | None) -> str | None:
    """A weak ETag, since a proxy may compress; None while one of the runs can still change."""
    if Run.objects.filter(pk__in=runs).exclude(state__in=ENDED).exists():
        return None
    if groups is None:
        marks = list(Group.objects.filter(run_id__in=runs).order_by("pk").values_list("pk", "revision", "rows"))
    else:
        marks = [(group.pk, group.revision, group.rows) for group in groups]
    renderer: Any = request.accepted_renderer
    key = [FORM, request.path, sorted(request.query_params.items()), renderer.media_type, marks]
    return "W/" + quote_etag(hashlib.sha256(to_json(key)).hexdigest()[:32])
