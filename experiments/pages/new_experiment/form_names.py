"""The input names of the new-experiment form; any other name would be dropped silently, so it is refused."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from django.http import QueryDict

from experiments.spec import FieldError
from experiments.spec.errors import did_you_mean

from .spec_form import FormField

TEXTS = ("name", "project", "preset", "seeds", "priority", "tags", "notes")
_SPEC = ("spec.task", "spec.data.dataset")
_REPEATED = {"matrix-path", "matrix-values", "csrfmiddlewaretoken"}
_OWN = {*TEXTS, *_REPEATED, "source", "yaml", "to", "submit", "shown.task", "shown.dataset"}


def wrong_names(post: QueryDict, fields: dict[str, FormField] | None) -> list[FieldError]:
    """Inputs that a form with these fields does not have, inputs sent twice, and uneven rows of the matrix. `fields` is
    None where the spec is edited as text."""
    known = set() if fields is None else {*_SPEC, *(f"spec.{path}" for path in fields)}
    fields = fields or {}
    flags = {f"has.{path}" for path in fields}
    many = {f"spec.{path}" for path, field in fields.items() if field.kind == "many"}
    errors = [*_unknown(post, known | flags), *_twice(post, many | _REPEATED)]
    if len(post.getlist("matrix-path")) != len(post.getlist("matrix-values")):
        errors.append(FieldError(("matrix",), "each varied field needs values, and all values need a field"))
    return errors


def _unknown(post: QueryDict, known: Collection[str]) -> Iterator[FieldError]:
    for name in post:
        if name in _OWN or name in known:
            continue
        head, _, path = name.partition(".")
        where = ("spec", *path.split(".")) if head in {"spec", "has"} and path else (name,)
        yield FieldError(where, f"unknown field '{path or name}'{_hint(name, known)}")


def _hint(name: str, known: Collection[str]) -> str:
    shown = sorted(other.removeprefix("spec.") for other in known if other.startswith("spec."))
    path = name.removeprefix("spec.")
    return did_you_mean(path.rpartition(".")[2], shown) or did_you_mean(path, shown) or did_you_mean(name, TEXTS)


def _twice(post: QueryDict, repeated: Collection[str]) -> Iterator[FieldError]:
    for name, values in post.lists():
        if len(values) > 1 and name not in repeated:
            yield FieldError(tuple(name.split(".")), "is given more than once")
