"""Notices about a run's data."""

from __future__ import annotations

from collections.abc import Sequence

from workers.protocol import MAX_ITEMS, Notice


def notice(kind: str, text: str, items: Sequence[str]) -> list[Notice]:
    """One notice, or none if there are no items."""
    return [Notice(kind=kind, text=text, items=list(items[:MAX_ITEMS]))] if items else []


def counted(count: int, noun: str) -> str:
    """A number and a noun that takes an s."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
