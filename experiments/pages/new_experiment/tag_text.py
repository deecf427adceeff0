"""Tags as one line of text: separated by commas, in double quotes where a tag holds a comma or outer blanks."""

from __future__ import annotations

import re

_TAG = re.compile(r'\s*(?:"(?P<quoted>(?:[^"]|"")*)"\s*(?=,|\Z)|(?P<plain>[^,]*))(?:,|\Z)')


def dump(tags: list[str]) -> str:
    """The text that `load` parses into these tags."""
    return ", ".join(tag if _is_plain(tag) else '"' + tag.replace('"', '""') + '"' for tag in tags)


def load(text: str) -> list[str]:
    """The tags in the text. A quote that is not closed before a comma is part of its tag."""
    tags = []
    for match in _TAG.finditer(text):
        quoted = match["quoted"]
        tags.append(match["plain"].strip() if quoted is None else quoted.replace('""', '"'))
    return [tag for tag in tags if tag]


def _is_plain(tag: str) -> bool:
    return tag == tag.strip() and "," not in tag and not tag.startswith('"')
