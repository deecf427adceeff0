"""The metric store: frames in, series out. The only module that knows how points are kept."""

from .choice import Chosen, choose
from .heatmap import Grid, grid
from .latest import last_values
from .read import Series, SeriesInfo, catalogue, read
from .seal import seal_next
from .write import Incoming, append, restore, snapshot, truncate

__all__ = [
    "Chosen",
    "Grid",
    "Incoming",
    "Series",
    "SeriesInfo",
    "append",
    "catalogue",
    "choose",
    "grid",
    "last_values",
    "read",
    "restore",
    "seal_next",
    "snapshot",
    "truncate",
]
