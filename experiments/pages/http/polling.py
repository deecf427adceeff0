"""Responses that pages poll; live.js reads the header."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render


def polled(request: HttpRequest, template: str, context: dict[str, Any], seconds: float) -> HttpResponse:
    """The rendered template, to be polled again after `seconds`; 0 ends the polling."""
    response = render(request, template, context)
    response["X-Next-Poll"] = f"{seconds:g}"
    return response
