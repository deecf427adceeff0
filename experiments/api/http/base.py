"""The base of all views: class attributes say what a view accepts and answers.

query     the query parameters of GET; any other name gets 400
body      the pydantic model that documents the body of a POST; without one, a body with fields gets 400
answers   method → (status, model of the answer); the OpenAPI document is made from the same lines
"""

from __future__ import annotations

from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from experiments.spec import FieldError

from .problems import Invalid
from .query import Query

Q = TypeVar("Q", bound=Query)
Body = TypeVar("Body", bound=BaseModel)
Answers = dict[str, tuple[int, type[BaseModel] | str | None]]


class View(APIView, Generic[Q]):
    """Base of every endpoint. `params` holds the validated query of a GET, `sent` the fields of a POST."""

    query: ClassVar[type[Query]] = Query
    body: ClassVar[type[BaseModel] | None] = None
    answers: ClassVar[Answers] = {}
    params: Q
    sent: dict[str, Any]

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if request.method in {"GET", "HEAD"}:
            self.params = self.query.read(request.query_params)  # type: ignore[assignment]
        elif request.method in {"POST", "PUT", "PATCH", "DELETE"}:
            Query.read(request.query_params)
            self.sent = self._fields(request.data)

    def sent_as(self, model: type[Body]) -> Body:
        """The body as a model. Raises Invalid."""
        try:
            return model.model_validate(self.sent)
        except ValidationError as error:
            raise Invalid.from_pydantic(error) from None

    def _fields(self, data: Any) -> dict[str, Any]:
        if not isinstance(data, dict):
            raise Invalid([FieldError((), "must be a JSON object")])
        if self.body is None and data:
            raise Invalid(FieldError((str(name),), "unknown field: this call takes none") for name in data)
        return data


def fields_of(source: object, *names: str) -> dict[str, Any]:
    """Attributes of a row or dataclass that the answer has under the same names."""
    return {name: getattr(source, name) for name in names}


def answer(model: BaseModel, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A pydantic model as the reply; the renderer converts datetimes and numbers."""
    return Response(model.model_dump(by_alias=True), status=status, headers=headers)
