"""Files of runs, for everyone who may see the run; their content cannot act on our pages."""

from __future__ import annotations

from django.core.exceptions import SuspiciousOperation
from django.core.files.storage import default_storage
from django.http import FileResponse, Http404, HttpResponseBase
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request

from experiments.api.http.base import View
from experiments.api.http.query import MAX_ID, Query
from experiments.models import Artifact, Run

# Pictures that a browser may show. SVG is not among them, since it can contain scripts.
SHOWN = {"image/png", "image/jpeg", "image/webp", "image/gif"}


@extend_schema(exclude=True)  # outside of /api/v1/; artifacts have its address
class ArtifactFile(View[Query]):
    """The bytes of an artifact: pictures are shown, anything else is a download."""

    answers = {"GET": (200, "application/octet-stream")}

    def get(self, request: Request, artifact_id: int) -> HttpResponseBase:
        runs = Run.objects.visible_to(request.user)
        file = Artifact.objects.filter(pk=min(artifact_id, MAX_ID), run__in=runs).first()
        if file is None:
            raise Http404("there is no such file, or you may not see it")
        return _serve(file)


def _serve(file: Artifact) -> HttpResponseBase:
    shown = file.media_type in SHOWN
    try:
        stream = default_storage.open(file.path)
    except (FileNotFoundError, SuspiciousOperation):
        raise Http404("the file is no longer stored") from None
    kind = file.media_type if shown else "application/octet-stream"
    reply = FileResponse(stream, as_attachment=not shown, filename=file.name.rsplit("/", 1)[-1], content_type=kind)
    reply["X-Content-Type-Options"] = "nosniff"
    reply["Content-Security-Policy"] = "default-src 'none'; sandbox"
    reply["Cache-Control"] = "private, max-age=300"
    return reply
