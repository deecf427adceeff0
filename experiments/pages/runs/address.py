"""Query parameters of a run's page and its parts. Controls write most of them to the address (address.js), so that a
view can be shared; the scripts read some themselves."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from experiments.api.http.query import Step, split
from experiments.pages.http.address import Address

Matrices = Annotated[list[Literal["W_q", "W_k", "W_v", "W_o"]], BeforeValidator(split)]


class ChartAddress(Address):
    """The controls above charts."""

    smooth: float | None = Field(None, ge=0, lt=1)
    axis: Literal["step", "time"] | None = None
    y: Literal["auto", "linear", "log"] | None = None


class HeatAddress(Address):
    """The panel of W_q, W_k and W_v."""

    m: Matrices | None = None
    what: Literal["grad_norm", "update_ratio", "weight_norm"] | None = None
    order: Literal["site", "matrix"] | None = None
    scale: Literal["shared", "row"] | None = None
    open: str | None = None
    row: str | None = None


class InspectAddress(Address):
    """The inspection of a checkpoint, and the stored maps (`m…`); the gradient chain uses `site` too. `asker` is the
    query position, `answerer` the key position."""

    text: str | None = None
    sample: int | None = Field(None, ge=0)
    step: Step | None = None
    site: str | None = None
    head: str | None = None
    asker: int | None = Field(None, ge=0)
    answerer: int | None = Field(None, ge=0)
    view: str | None = None
    shown: str | None = None
    edits: str | None = None
    other: str | None = None
    msite: str | None = None
    mhead: str | None = None
    msample: int | None = Field(None, ge=0)
    mstep: Step | None = None


class PicturesAddress(Address):
    at: int | None = Field(None, ge=0, le=10**6)


class RunAddress(ChartAddress, HeatAddress, InspectAddress, PicturesAddress):
    tab: Literal["training", "attention", "flow", "probes", "config", "log", "events", "artifacts"] | None = None
    only: Literal["differing"] | None = None


class PanelsAddress(Address):
    part: Literal["more"] | None = None


class LogAddress(Address):
    after: Step | None = None
