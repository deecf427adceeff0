"""The metric store: writes frames, reads series. No other package knows how points are stored."""

from experiments.store.archive.blocks import Unreadable
from experiments.store.archive.blocks import forget as forget_archived
from experiments.store.archive.move import archive_next, take_back
from experiments.store.archive.objects import remove as remove_object
from experiments.store.blocks.cover import points_per_bucket
from experiments.store.readers.catalogue import SeriesInfo, catalogue
from experiments.store.readers.crossing import first_below
from experiments.store.readers.digest import digest
from experiments.store.readers.heatmap import Grid, grid
from experiments.store.readers.latest import last_values
from experiments.store.readers.series import Series, read
from experiments.store.writers.frames import Incoming, append, restore, snapshot, truncate
from experiments.store.writers.seal import seal_next
from experiments.store.writers.thin import drop_some, thin
from experiments.store.writers.throttle import LARGE_WRITE, throttle_write

from .choice import Chosen, Thinned, choose

__all__ = [
    "LARGE_WRITE", "Chosen", "Grid", "Incoming", "Series", "SeriesInfo", "Thinned", "Unreadable", "append",
    "archive_next", "catalogue", "choose", "digest", "drop_some", "first_below", "forget_archived", "grid",
    "last_values", "points_per_bucket", "read", "remove_object", "restore", "seal_next", "snapshot", "take_back",
    "thin", "throttle_write", "truncate",
]  # fmt: skip
