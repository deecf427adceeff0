"""Names that stand twice in one object of a JSON text: a parser keeps one of the two values and drops the other.

Pure, and read by the service and the laboratory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

Place = tuple[str | int, ...]  # names and numbers of the way down, the name that stands twice last


class _Members(list[tuple[str, Any]]):
    """A JSON object as it was written, with what a dict would drop."""


def named_twice(text: str | bytes) -> Iterator[Place]:
    """The place of each, in order. Numbers are not read; the places are looked for only where there is one. Raises
    ValueError where the text is not JSON."""
    if _any_twice(text):
        yield from _places(json.loads(text, object_pairs_hook=_Members, parse_int=len, parse_float=len), ())


def _any_twice(text: str | bytes) -> bool:
    """Keeps nothing of the text: an object becomes None as soon as it ends."""
    twice = False

    def ended(members: list[tuple[str, Any]]) -> None:
        nonlocal twice
        twice = twice or len(dict(members)) < len(members)

    json.loads(text, object_pairs_hook=ended, parse_int=len, parse_float=len)
    return twice


def _places(data: Any, at: Place) -> Iterator[Place]:
    if isinstance(data, _Members):
        seen: set[str] = set()
        for name, part in data:
            if name in seen:
                yield (*at, name)
            seen.add(name)
            yield from _places(part, (*at, name))
    elif isinstance(data, list):
        for number, part in enumerate(data):
            yield from _places(part, (*at, number))
