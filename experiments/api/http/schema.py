"""The OpenAPI 3.1 document, made from the class attributes of the views, and its page."""

from __future__ import annotations

import re
from typing import Any

from django.contrib.auth.mixins import LoginRequiredMixin
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.generic import View as DjangoView
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter
from rest_framework.request import Request
from rest_framework.response import Response

from .base import View
from .problems import PROBLEM, Invalid, Problem
from .query import Query

_METHODS = ("get", "post", "patch", "delete")


class TokenScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "experiments.api.http.tokens.Token"
    name = "token"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, str]:
        return {
            "type": "apiKey",
            "in": "header",
            "name": "Authorization",
            "description": "`Token <token>`, the token from `POST /api/v1/auth/login/`",
        }


class Schema(AutoSchema):
    """Reads `query`, `body` and `answers` of our views."""

    view: Any  # one of ours

    def get_operation_id(self) -> str:
        words = re.sub(r"(?<!^)(?=[A-Z])", "_", type(self.view).__name__).lower()
        return f"{self.method.lower()}_{words}"

    def get_tags(self) -> list[str]:
        return [self.path.removeprefix("/api/v1").split("/")[1]]

    def get_override_parameters(self) -> list[Any]:
        if self.method == "GET":
            return _parameters(self.view.query)
        return [_IDEMPOTENCY] if getattr(self.view, "idempotent", False) else []

    def get_request_serializer(self) -> Any:
        return self.view.body

    def get_response_serializers(self) -> Any:
        status, model = self.view.answers[self.method]
        good: dict[Any, Any] = {status: None} if model is None else {(status, _media(model)): _documented(model)}
        good |= {(status, media): OpenApiTypes.BINARY for media in getattr(self.view, "also", ())}
        if getattr(self.view, "cached", False):
            good[304] = None
        return good | {(code, PROBLEM): Problem for code in _failures(self)}


_IDEMPOTENCY = OpenApiParameter(
    "Idempotency-Key", str, OpenApiParameter.HEADER, description="makes a call safe to repeat: one experiment per key"
)


def _media(model: Any) -> str:
    return model if isinstance(model, str) else "application/json"


def _documented(model: Any) -> Any:
    if not isinstance(model, str):
        return model
    return OpenApiTypes.OBJECT if model.endswith("json") else OpenApiTypes.BINARY


def _failures(schema: Schema) -> list[int]:
    """400 for invalid parameters and bodies, 401 without a login; then not found, forbidden and impossible."""
    codes = [400, 401, 406]
    codes += [404] if "{" in schema.path or schema.method == "GET" else []
    own = getattr(schema.view, "failures", ())
    return [*codes, *([403, 404, 409, 413, 415, 429] if schema.method != "GET" else []), *own]


def _parameters(query: type[Query]) -> list[OpenApiParameter]:
    whole = query.model_json_schema()
    required = whole.get("required", [])
    fixed = [
        OpenApiParameter(name, _plain(part, whole), required=name in required, description=part.get("description", ""))
        for name, part in whole.get("properties", {}).items()
    ]
    return fixed + [_family(prefix) for prefix in query.free_prefixes()]


def _plain(part: dict[str, Any], whole: dict[str, Any]) -> dict[str, Any]:
    """A parameter is given or absent, never null; references are resolved."""
    choices = [option for option in part.get("anyOf", [part]) if option.get("type") != "null"]
    chosen = choices[0]
    if "$ref" in chosen:
        chosen = whole["$defs"][chosen["$ref"].rsplit("/", 1)[-1]]
    default = part.get("default")
    shown = {} if default is None else {"default": ",".join(default) if isinstance(default, list) else default}
    hidden = {"title", "description", "default", "anyOf"}
    return {key: value for key, value in (part | chosen).items() if key not in hidden} | shown


def _family(prefix: str) -> OpenApiParameter:
    description = f"any number of `{prefix}<name>` parameters, with `__ne`, `__lt`, `__lte`, `__gt` or `__gte`"
    free = {"type": "object", "additionalProperties": {"type": "string"}}
    return OpenApiParameter(f"{prefix}*", free, description=description, style="form", explode=True)


class Document(View[Query]):
    """The OpenAPI 3.1 document of this API."""

    answers = {"GET": (200, "application/vnd.oai.openapi+json")}

    def get(self, request: Request) -> Response:
        return Response(document(request), content_type="application/vnd.oai.openapi+json")


class Docs(LoginRequiredMixin, DjangoView):
    """The page of the endpoints, made from the document, without scripts or external files."""

    def get(self, request: HttpRequest) -> HttpResponse:
        try:
            Query.read(request.GET)
        except Invalid as error:
            return HttpResponse(str(error), status=400, content_type="text/plain; charset=utf-8")
        return render(request, "api/docs.html", {"groups": _groups(document(None))})


def document(request: Request | None) -> dict[str, Any]:
    """Every endpoint, for every caller: the endpoints themselves check permissions."""
    generator = SchemaGenerator(urlconf=None)  # type: ignore[no-untyped-call]
    whole: dict[str, Any] = generator.get_schema(request=request, public=True)  # type: ignore[no-untyped-call]
    return whole


def _groups(whole: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for path, methods in whole["paths"].items():
        for method in _METHODS:
            if method in methods:
                call = methods[method]
                row = {"method": method.upper(), "path": path, "about": call.get("description", "")}
                row["parameters"] = [part for part in call.get("parameters", []) if part["in"] == "query"]
                row["fields"] = _body_fields(call, whole)
                groups.setdefault(call["tags"][0], []).append(row)
    return groups


def _body_fields(call: dict[str, Any], whole: dict[str, Any]) -> dict[str, dict[str, Any]]:
    if "requestBody" not in call:
        return {}
    reference = call["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    body = whole["components"]["schemas"][reference.rsplit("/", 1)[-1]]
    required = body.get("required", [])
    return {
        name: {"required": name in required, "about": part.get("description", "")}
        for name, part in body["properties"].items()
    }
