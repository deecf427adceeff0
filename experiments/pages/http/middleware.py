"""The admin's own content security policy; every other page keeps the strict one."""

from __future__ import annotations

from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import reverse


class AdminPolicy:
    """Relaxes the policy under the admin's URL only: its theme evaluates expressions."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        if request.path.startswith(reverse("admin:index")):
            response._csp_update = settings.ATTN_ADMIN_CSP  # type: ignore[attr-defined]  # read by django-csp
        return response
