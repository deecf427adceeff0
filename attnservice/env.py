"""Three typed readers of environment variables; an invalid value stops the process with its name."""

from __future__ import annotations

import os
from pathlib import Path

_TRUE, _FALSE = {"1", "true", "yes", "on"}, {"0", "false", "no", "off", ""}


class BadSetting(SystemExit):
    """An environment variable has an invalid value."""


def flag(name: str, default: bool) -> bool:
    """A boolean: 1/true/yes/on or 0/false/no/off."""
    text = os.environ.get(name)
    if text is None:
        return default
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise BadSetting(f"{name}={text!r}: write 1 or 0")


def whole(name: str, default: int, *, least: int = 0) -> int:
    """A whole number of at least `least`."""
    text = os.environ.get(name)
    if text is None:
        return default
    try:
        number = int(text)
    except ValueError:
        raise BadSetting(f"{name}={text!r}: write a whole number") from None
    if number < least:
        raise BadSetting(f"{name}={number}: must be at least {least}")
    return number


def text(name: str, default: str = "") -> str:
    """A string, or the content of the file that `<name>_FILE` names: how containers receive secrets."""
    path = os.environ.get(f"{name}_FILE")
    if path:
        try:
            return Path(path).read_text().strip()
        except OSError as error:
            raise BadSetting(f"{name}_FILE={path!r}: {error.strerror}") from None
    return os.environ.get(name, default)
