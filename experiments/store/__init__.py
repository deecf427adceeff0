"""The metric store: frames in, series out. The only module that knows how points are kept."""

from .catalogue import SeriesInfo, catalogue
from .choice import Chosen, Thinned, choose
from .crossing import first_below
from .digest import digest
from .heatmap import Grid, grid
from .latest import last_values
from .objects import remove as remove_object
from .parcels import Unreadable
from .parcels import forget as forget_parcels
from .read import Series, read
from .seal import seal_next
from .shipping import ship_next, take_back
from .thin import drop_some, thin
from .turns import MUCH, wait_for_turn
from .write import Incoming, append, restore, snapshot, truncate

__all__ = [
    "MUCH",
    "Chosen",
    "Grid",
    "Incoming",
    "Series",
    "SeriesInfo",
    "Thinned",
    "Unreadable",
    "append",
    "catalogue",
    "choose",
    "digest",
    "drop_some",
    "first_below",
    "forget_parcels",
    "grid",
    "last_values",
    "read",
    "remove_object",
    "restore",
    "seal_next",
    "ship_next",
    "snapshot",
    "take_back",
    "thin",
    "truncate",
    "wait_for_turn",
]
