"""What a run's page and its parts take from their addresses. Controls write most of it there (address.js), so that a
view can be shared; the scripts read some of it themselves."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from experiments.api.http.query import Step, split
from experiments.pages.http.address import Address

Matrices = Annotated[list[Literal["W_q", "W_k", "W_v", "W_o"]], BeforeValidator(split)]


class ChartAddress(Address):
    """The bar above charts."""

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


class ExploreAddress(Address):
    """What a checkpoint is asked, and the stored maps (`m…`); `site` is the gradient chain's, too."""

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


class RunAddress(ChartAddress, HeatAddress, ExploreAddress, PicturesAddress):
    tab: Literal["training", "attention", "flow", "probes", "config", "log", "events", "artifacts"] | None = None
    only: Literal["differing"] | None = None


class PanelsAddress(Address):
    part: Literal["more"] | None = None


class LogAddress(Address):
    after: Step | None = None
