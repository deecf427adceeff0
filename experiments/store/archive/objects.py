"""Objects of the block storage: written whole, read whole or by byte ranges, several at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from django.core.files.base import ContentFile
from django.core.files.storage import InvalidStorageError, storages

AT_ONCE = 16
Span = tuple[str, int, int]  # key, first byte, end


class NoStorage(RuntimeError):
    """ATTN_BLOCKS_STORAGE is not set, but blocks are archived in it."""


def storage() -> Any:
    try:
        return storages["blocks"]
    except InvalidStorageError:
        raise NoStorage("ATTN_BLOCKS_STORAGE is not set here, but some blocks are archived in it") from None


def put(key: str, data: bytes) -> None:
    """Write an object; it is durable when this returns."""
    kept = storage().save(key, ContentFile(data))
    if kept != key:
        raise RuntimeError(f"the block storage stored object {key} under another name, {kept}")


def remove(key: str) -> None:
    storage().delete(key)


def ranges(spans: Sequence[Span]) -> list[bytes | Exception]:
    """The bytes of each span, or why they could not be read."""
    fetch = _fetcher(storage())

    def fetched(span: Span) -> bytes | Exception:
        try:
            return fetch(*span)
        except Exception as error:  # whatever the storage's client raises
            return error

    if len(spans) == 1:
        return [fetched(spans[0])]
    with ThreadPoolExecutor(min(AT_ONCE, max(len(spans), 1))) as pool:
        return list(pool.map(fetched, spans))


def _fetcher(store: Any) -> Callable[[str, int, int], bytes]:
    if not hasattr(store, "bucket_name"):
        return lambda key, first, end: _from_file(store, key, first, end)
    client = store.connection.meta.client  # shared by all threads: a client each would cost a session each

    def get(key: str, first: int, end: int) -> bytes:
        name = store._normalize_name(key)
        reply = client.get_object(Bucket=store.bucket_name, Key=name, Range=f"bytes={first}-{end - 1}")
        data: bytes = reply["Body"].read()
        return data

    return get


def _from_file(store: Any, key: str, first: int, end: int) -> bytes:
    with store.open(key, "rb") as source:
        source.seek(first)
        data: bytes = source.read(end - first)
        return data
