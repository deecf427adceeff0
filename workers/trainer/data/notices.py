"""What a reader of a run's numbers must know of its data."""

from __future__ import annotations

from collections.abc import Sequence

from workers.protocol import MAX_ITEMS, Notice


def notice(kind: str, text: str, items: Sequence[str]) -> list[Notice]:
    """One notice, or none where there is nothing to name."""
    return [Notice(kind=kind, text=text, items=list(items[:MAX_ITEMS]))] if items else []
