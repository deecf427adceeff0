"""The metric store: frames in, series out. The only module that knows how points are kept."""

from .catalogue import SeriesInfo, catalogue
from .choice import Chosen, Thinned, choose
from .heatmap import Grid, grid
from .latest import last_values
from .read import Series, read
from .seal import seal_next
from .thin import drop_some, thin
from .write import Incoming, append, restore, snapshot, truncate

__all__ = [
    "Chosen",
    "Grid",
    "Incoming",
    "Series",
    "SeriesInfo",
    "Thinned",
    "append",
    "catalogue",
    "choose",
    "drop_some",
    "grid",
    "last_values",
    "read",
    "restore",
    "seal_next",
    "snapshot",
    "thin",
    "truncate",
]
