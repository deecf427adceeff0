"""Formats of numbers, durations and spec values on pages."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from django import template
from django.utils import timezone
from django.utils.html import conditional_escape
from django.utils.safestring import SafeString, mark_safe

from experiments.pages.http import yaml_text
from experiments.spec import flatten

register = template.Library()


@register.filter
def figure(value: object) -> str:
    """A measured number with four significant digits; a dash where there is none."""
    if value is None or value == "":
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3e}" if value and not 1e-3 <= abs(value) < 1e5 else f"{value:.4g}"


@register.filter
def matrices(text: str) -> SafeString:
    """W_q as a W with a subscript; everything else escaped."""
    return mark_safe(re.sub(r"\bW_([qkvo])(?![A-Za-z0-9_])", r"W<sub>\1</sub>", conditional_escape(text)))


@register.filter
def typed(value: object) -> str:
    """A leaf of a spec as text of a form; parsing it gives the same value."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@register.filter
def listed(value: object) -> str:
    """A list as text of a form, without brackets; other values stay as they were typed."""
    return yaml_text.values_text(value) if isinstance(value, list | tuple) else str(value or "")


@register.filter
def leaf(value: object) -> str:
    """A leaf of a spec for reading, or a part of a spec as its leaves; no form parses it (see `typed`)."""
    if isinstance(value, Mapping) and value:
        return ", ".join(f"{path} = {leaf(part)}" for path, part in flatten(value))
    return typed(value)


@register.filter
def ending(path: str, room: int = 20) -> str:
    """The last segments of a dotted path that fit, whole; at least one."""
    parts = path.split(".")
    shown = [parts.pop()]
    while parts and len(".".join([parts[-1], *shown])) <= room:
        shown.insert(0, parts.pop())
    return ".".join(shown)


@register.filter
def get(mapping: Mapping[str, Any] | None, key: object) -> Any:
    """`mapping[key]` or None, for keys that are no names in a template."""
    return (mapping or {}).get(str(key))


@register.filter
def duration(span: timedelta | float | None) -> str:
    """A length of time in at most two units."""
    if span is None:
        return "–"
    seconds = span.total_seconds() if isinstance(span, timedelta) else float(span)
    if seconds < 10:
        return f"{max(seconds, 0):.1f} s"
    return _units(int(seconds))


def _units(seconds: int) -> str:
    minutes, hours = seconds // 60, seconds // 3600
    if minutes == 0:
        return f"{seconds} s"
    if hours == 0:
        return f"{minutes} min {seconds % 60:02d} s"
    if hours < 48:
        return f"{hours} h {minutes % 60:02d} min"
    return f"{hours // 24} d {hours % 24} h"


@register.filter
def ago(moment: datetime | None) -> str:
    """The time since a moment, in one unit."""
    if moment is None:
        return "–"
    recent = (timezone.now() - moment).total_seconds() < 5
    return "just now" if recent else f"{since(moment)} ago"


@register.filter
def since(moment: datetime | None) -> str:
    """The length of the time since a moment, in one unit."""
    if moment is None:
        return "–"
    seconds = max(int((timezone.now() - moment).total_seconds()), 0)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


@register.filter
def percent(done: int, of: int) -> int:
    """Whole percent, never 100 before the end."""
    return 100 * done // of if of else 0


@register.filter
def minutes(value: float) -> str:
    """The training time of a preset, rounded."""
    if value < 1:
        return f"{max(1, round(value * 60))} s"
    return f"{value:.0f} min"
