"""Duplicate names in one object of a JSON text: a parser keeps one of the two values and drops the other.

Pure; used by the service and the laboratory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

Place = tuple[str | int, ...]  # names and indices down to the duplicate name, which is last


class _Members(list[tuple[str, Any]]):
    """A JSON object as it was written, with the members that a dict would drop."""


def duplicate_names(text: str | bytes) -> Iterator[Place]:
    """The place of each, in order. Numbers are not parsed; places are searched only where there is one. Raises
    ValueError where the text is not JSON."""
    if _has_duplicates(text):
        yield from _places(json.loads(text, object_pairs_hook=_Members, parse_int=len, parse_float=len), ())


def _has_duplicates(text: str | bytes) -> bool:
    """Keeps nothing of the text: an object becomes None as soon as it ends."""
    duplicates = False

    def ended(members: list[tuple[str, Any]]) -> None:
        nonlocal duplicates
        duplicates = duplicates or len(dict(members)) < len(members)

    json.loads(text, object_pairs_hook=ended, parse_int=len, parse_float=len)
    return duplicates


def _places(data: Any, parent: Place) -> Iterator[Place]:
    if isinstance(data, _Members):
        seen: set[str] = set()
        for name, part in data:
            if name in seen:
                yield (*parent, name)
            seen.add(name)
            yield from _places(part, (*parent, name))
    elif isinstance(data, list):
        for number, part in enumerate(data):
            yield from _places(part, (*parent, number))
