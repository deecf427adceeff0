"""Decodes a text file with or without a byte order mark."""

from __future__ import annotations

import codecs

# UTF-32 comes first: its little-endian mark begins with that of UTF-16.
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def decoded(raw: bytes) -> str:
    """UTF-8, or what the byte order mark says, without the mark. Raises ValueError, for users, for anything else."""
    encoding = next((name for mark, name in MARKS if raw.startswith(mark)), "utf-8")
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        name = "UTF-8" if encoding.startswith("utf-8") else f"{encoding.upper()}, as its byte order mark says"
        where = f"byte 0x{error.object[error.start]:02x} at position {error.start}"
        raise ValueError(f"not {name} ({where}); save it as UTF-8") from None
    if "\0" in text:
        raise ValueError("it has zero bytes, as UTF-16 without a byte order mark has; save it as UTF-8")
    return text
