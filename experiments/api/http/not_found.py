"""Unknown addresses under /api/v1/ get a problem document, not a page."""

from __future__ import annotations

from django.http import Http404
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView


@extend_schema(exclude=True)
class NotFound(APIView):
    """404 for every method, also where only the final slash is missing."""

    authentication_classes = ()
    permission_classes = ()

    def initial(self, request: Request, *args: object, **kwargs: object) -> None:
        super().initial(request, *args, **kwargs)
        slash = "" if request.path.endswith("/") else "; addresses end with a slash"
        raise Http404(f"unknown address {request.path}{slash}")

    def get(self, request: Request, rest: str) -> Response:
        raise Http404

    post = put = patch = delete = get
