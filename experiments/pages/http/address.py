"""What pages take from their addresses: each view says it as a model, and the rest is refused, as REST refuses it.

A parameter that is wrong is told on the page that it was sent to, with status 400; the page is shown as if it had not
been there, so that the other parameters, and the forms that hold them, are not lost. A POST is not carried out.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ClassVar, Self, TypeVar

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, QueryDict
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.template.loader import render_to_string
from django.template.response import TemplateResponse

from experiments.api.http.problems import Invalid
from experiments.api.http.query import Query
from experiments.spec import FieldError

View = Callable[..., HttpResponseBase]
V = TypeVar("V", bound=View)
WHOLE_PAGE = b'id="main"'


class Address(Query):
    """Base of what a page takes. Those in `repeated` may stand several times, as checkboxes send them; they are read
    as one text with commas."""

    repeated: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def read(cls, given: QueryDict) -> Self:
        joined = given.copy()
        for name in cls.repeated:
            if name in joined:
                joined[name] = ",".join(value for value in joined.getlist(name) if value)
        return super().read(joined)


def takes(address: type[Query]) -> Callable[[V], V]:
    """What the view takes from its address; without this, nothing."""

    def mark(view: V) -> V:
        view.takes = address  # type: ignore[attr-defined]
        return view

    return mark


def page(view: View) -> View:
    """For those who have logged in."""
    return login_required(checked(view))


def checked(view: View) -> View:
    """The view behind a check of its address."""
    known = getattr(view, "takes", Query)

    @wraps(view)
    def answer(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        request.GET, request.problems = _cleaned(request.GET, known)  # type: ignore[assignment,attr-defined]
        if problems_of(request) and request.method not in {"GET", "HEAD"}:
            return render(request, "pages/refused.html", status=400)
        return _told(request, view(request, *args, **kwargs))

    return answer


def problems_of(request: HttpRequest) -> list[FieldError]:
    """What is wrong with the address, as far as that is known by now."""
    found: list[FieldError] = request.problems  # type: ignore[attr-defined]
    return found


def refuse(request: HttpRequest, name: str, message: str) -> None:
    """Say on the page that the parameter's value names nothing; for what a view finds out itself."""
    problems_of(request).append(FieldError((name,), message))


def tell(request: HttpRequest, invalid: Invalid) -> None:
    problems_of(request).extend(invalid.errors)


def _cleaned(given: QueryDict, known: type[Query]) -> tuple[QueryDict, list[FieldError]]:
    """What of it is right, and what is wrong with the rest."""
    rest, problems = given.copy(), list[FieldError]()
    while True:
        try:
            known.read(rest)
        except Invalid as error:
            problems += [FieldError(each.path[:1], each.message) for each in error.errors]
            wrong = {str(each.path[0]) for each in error.errors}
            if not wrong & rest.keys():
                return QueryDict(mutable=True), problems  # a name that cannot even be said
            for name in wrong & rest.keys():
                del rest[name]
        else:
            return rest, problems


def _told(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    """With the problems on it: a whole page shows them itself, a part of one gets them in front, and where a view
    leads elsewhere they are shown there."""
    problems = problems_of(request)
    if not problems:
        return response
    if 300 <= response.status_code < 400:
        for problem in problems:
            messages.error(request, f"{problem.dotted}: {problem.message}")
        return response
    if response.status_code != 200 or not isinstance(response, HttpResponse):
        return response
    if isinstance(response, TemplateResponse):
        response.render()
    response.status_code = 400
    if WHOLE_PAGE not in response.content:
        told = render_to_string("pages/parts/problems.html", request=request)
        response.content = told.encode() + response.content
    return response
