"""Which sealed blocks cover a window of rows at a level: arithmetic only, no database.

Block b of level l covers the level-1 blocks [b·16^(l-1), (b+1)·16^(l-1)); it exists once all of them are complete. So
a window is covered by a few blocks of the wanted level and at most fifteen of each finer one at either end.
"""

from __future__ import annotations

from dataclasses import dataclass

from .buckets import FAN

BLOCK = 4096  # rows of a level-1 block
PER_BLOCK = BLOCK // FAN  # buckets of a complete block, at every level
MAX_LEVEL = 7


@dataclass(frozen=True)
class Piece:
    """One block to read, in order of rows. `level` 0 means the exact rows [first, last) of level-1 block `number`."""

    level: int
    number: int
    first: int = 0
    last: int = BLOCK


def points_per_bucket(level: int) -> int:
    """How many recorded points a bucket of the level stands for."""
    return int(FAN**level)


def level_for(rows: int, buckets: int) -> int:
    """The coarsest level that still gives at least `buckets` buckets of `rows` rows; 0 is exact."""
    level = 0
    while level < MAX_LEVEL and rows // FAN ** (level + 1) >= buckets:
        level += 1
    return level


def cover(first: int, last: int, sealed: int, level: int) -> list[Piece]:
    """Pieces for rows [first, last) of `sealed` rows at `level`, in order."""
    last = min(last, sealed)
    pieces = []
    at = first
    while at < last:
        piece, at = _next(at, last, sealed, level)
        pieces.append(piece)
    return pieces


def thinned_cover(first: int, last: int, sealed: int, level: int, floor: int) -> list[Piece]:
    """Pieces around rows [first, last) after thinning has dropped all blocks finer than `floor` that a complete coarser
    one covers. The first and the last piece are as fine as possible; the caller clips what is outside of the window."""
    last = min(last, sealed)
    if first >= last:
        return []
    (low, after), (before, high) = _home(first, sealed, floor), _home(last - 1, sealed, floor)
    edges = cover(low, after, sealed, floor), cover(before, high, sealed, floor)
    return edges[0] if low == before else [*edges[0], *cover(after, before, sealed, level), *edges[1]]


def _home(row: int, sealed: int, floor: int) -> tuple[int, int]:
    """The rows of the coarsest complete block, at most of level `floor`, that holds a row."""
    for level in range(floor, 1, -1):
        span = BLOCK * FAN ** (level - 1)
        if (row // span + 1) * span <= sealed:
            return row // span * span, (row // span + 1) * span
    return row // BLOCK * BLOCK, min((row // BLOCK + 1) * BLOCK, sealed)


def finest(floor: int, sealed: int) -> int:
    """The level that a history thinned to `floor` is sure to have: coarser ones may have no complete block."""
    while floor > 1 and BLOCK * FAN ** (floor - 1) > sealed:
        floor -= 1
    return floor if sealed else 0


def covered(level: int, sealed: int) -> int:
    """How many blocks of `level`, from the first on, a complete block of the next level covers."""
    return int(sealed // (BLOCK * FAN**level) * FAN)


def _next(at: int, last: int, sealed: int, level: int) -> tuple[Piece, int]:
    number, inside = divmod(at, BLOCK)
    end = min((number + 1) * BLOCK, sealed)
    if inside or last < end or level == 0:
        until = min(end, last)
        return Piece(0, number, inside, until - number * BLOCK), until
    best = 1
    while best < level and _whole(number, best + 1, last):
        best += 1
    span = FAN ** (best - 1)
    return Piece(best, number // span), min((number + span) * BLOCK, sealed)


def _whole(number: int, level: int, last: int) -> bool:
    """Does a block of that level begin at level-1 block `number` and end within the window?"""
    span: int = FAN ** (level - 1)
    return number % span == 0 and (number + span) * BLOCK <= last
