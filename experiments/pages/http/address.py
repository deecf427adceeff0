"""The query parameters of pages. A view declares them as a model; everything else is refused, as in REST.

A wrong parameter is reported on the page it was sent to, with status 400. The page is shown as if the parameter were
missing, so that the other parameters, and the forms that hold them, are kept. A POST is not carried out.
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
    """Base of a page's parameters. Those in `repeated` may be sent several times, as checkboxes do; they are read as
    one text with commas."""

    repeated: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def read(cls, given: QueryDict) -> Self:
        joined = given.copy()
        for name in cls.repeated:
            if name in joined:
                joined[name] = ",".join(value for value in joined.getlist(name) if value)
        return super().read(joined)


def takes(address: type[Query]) -> Callable[[V], V]:
    """Declare the parameters of a view; a view without this has none."""

    def mark(view: V) -> V:
        view.takes = address  # type: ignore[attr-defined]
        return view

    return mark


def page(view: View) -> View:
    """A view for users who are signed in, behind a check of its address."""
    return login_required(checked(view))


def checked(view: View) -> View:
    """The view behind a check of its address."""
    model = getattr(view, "takes", Query)

    @wraps(view)
    def checked_view(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        request.GET, request.problems = _cleaned(request.GET, model)  # type: ignore[assignment,attr-defined]
        if problems_of(request) and request.method not in {"GET", "HEAD"}:
            return render(request, "pages/refused.html", status=400)
        return _with_problems(request, view(request, *args, **kwargs))

    return checked_view


def problems_of(request: HttpRequest) -> list[FieldError]:
    """The problems with the address that are known so far."""
    problems: list[FieldError] = request.problems  # type: ignore[attr-defined]
    return problems


def refuse(request: HttpRequest, name: str, message: str) -> None:
    """Report a parameter on the page; for problems that only the view can find."""
    problems_of(request).append(FieldError((name,), message))


def refuse_all(request: HttpRequest, invalid: Invalid) -> None:
    problems_of(request).extend(invalid.errors)


def whole_number(text: str) -> int | None:
    """The number that an input spells in digits; None for any other text, and for more digits than a column holds."""
    text = text.strip()
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else None


def _cleaned(given: QueryDict, model: type[Query]) -> tuple[QueryDict, list[FieldError]]:
    """The valid parameters, and the problems with the others."""
    rest, problems = given.copy(), list[FieldError]()
    while True:
        try:
            model.read(rest)
        except Invalid as error:
            problems += [FieldError(problem.path[:1], problem.message) for problem in error.errors]
            wrong = {str(problem.path[0]) for problem in error.errors}
            if not wrong & rest.keys():
                return QueryDict(mutable=True), problems  # not valid as a name
            for name in wrong & rest.keys():
                del rest[name]
        else:
            return rest, problems


def _with_problems(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    """The response with the problems: a whole page shows them itself, a part of a page gets them in front, and after
    a redirect the next page shows them."""
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
        notices = render_to_string("pages/parts/problems.html", request=request)
        response.content = notices.encode() + response.content
    return response
