"""The names that the form of a new experiment sends; whatever else is posted would be dropped, so it is refused."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from django.http import QueryDict

from experiments.spec import FieldError
from experiments.spec.errors import did_you_mean

from . import spec_form as specform

TEXTS = ("name", "project", "preset", "seeds", "priority", "tags", "notes")
_SPEC = ("spec.task", "spec.data.dataset")
_REPEATED = {"matrix-path", "matrix-values", "csrfmiddlewaretoken"}
_OWN = {*TEXTS, *_REPEATED, "source", "yaml", "to", "submit", "shown.task", "shown.dataset"}


def wrong_names(post: QueryDict, fields: dict[str, specform.Field] | None) -> list[FieldError]:
    """Inputs that the form with these fields of a spec does not have, those sent twice, and uneven rows of a matrix.
    Without `fields` the spec is text and has no inputs."""
    known = set() if fields is None else {*_SPEC, *(f"spec.{path}" for path in fields)}
    fields = fields or {}
    flags = {f"has.{path}" for path in fields}
    many = {f"spec.{path}" for path, item in fields.items() if item.kind == "many"}
    errors = [*_unknown(post, known | flags), *_twice(post, many | _REPEATED)]
    if len(post.getlist("matrix-path")) != len(post.getlist("matrix-values")):
        errors.append(FieldError(("matrix",), "each field to vary needs its values, and each values their field"))
    return errors


def _unknown(post: QueryDict, known: Collection[str]) -> Iterator[FieldError]:
    for name in post:
        if name in _OWN or name in known:
            continue
        head, _, path = name.partition(".")
        at = ("spec", *path.split(".")) if head in {"spec", "has"} and path else (name,)
        yield FieldError(at, f"unknown field '{path or name}'{_hint(name, known)}")


def _hint(name: str, known: Collection[str]) -> str:
    shown = sorted(one.removeprefix("spec.") for one in known if one.startswith("spec."))
    path = name.removeprefix("spec.")
    return did_you_mean(path.rpartition(".")[2], shown) or did_you_mean(path, shown) or did_you_mean(name, TEXTS)


def _twice(post: QueryDict, repeated: Collection[str]) -> Iterator[FieldError]:
    for name, values in post.lists():
        if len(values) > 1 and name not in repeated:
            yield FieldError(tuple(name.split(".")), "is given more than once")
