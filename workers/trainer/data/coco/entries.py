"""The entries of an annotations file in COCO's format (https://cocodataset.org/#format-data, object detection)."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator

LONGEST = 2**14  # pixels of an image's side


class Entry(BaseModel):
    """Fields that this reader does not use are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class ImageEntry(Entry):
    id: int
    file_name: str = Field(min_length=1)
    width: int = Field(ge=1, le=LONGEST)
    height: int = Field(ge=1, le=LONGEST)


class Rle(Entry):
    """Lengths of alternating runs of 0 and 1, column by column; as text in COCO's packing."""

    size: tuple[int, int]  # height, width
    counts: list[int] | str


def _form(segmentation: Any) -> str:
    return "polygons" if isinstance(segmentation, list) else "run lengths"


Polygons = list[list[float]]  # x, y, x, y, …, in pixels
Segmentation = Annotated[
    Annotated[Polygons, Tag("polygons")] | Annotated[Rle, Tag("run lengths")], Discriminator(_form)
]


class Annotation(Entry):
    """`segmentation` is empty if a tool exported only a box."""

    id: int
    image_id: int
    category_id: int
    segmentation: Segmentation = []
    bbox: tuple[float, float, float, float] | None = None  # left, top, width, height
    area: float | None = None  # in pixels; compared with the mask, otherwise unused
    iscrowd: bool = False

    @field_validator("iscrowd", mode="before")
    @classmethod
    def _null_is_no_crowd(cls, iscrowd: Any) -> Any:
        return False if iscrowd is None else iscrowd

    @field_validator("bbox", mode="before")
    @classmethod
    def _without_empty_box(cls, bbox: Any) -> Any:
        """Some tools write [] or [null, null, null, null] for no box."""
        return None if isinstance(bbox, list) and all(side is None for side in bbox) else bbox

    @field_validator("segmentation", mode="before")
    @classmethod
    def _without_empty_polygons(cls, segmentation: Any) -> Any:
        if segmentation is None:
            return []
        if not isinstance(segmentation, list):
            return segmentation
        return [polygon for polygon in segmentation if polygon not in ([], None)]

    @property
    def masked(self) -> bool:
        return self.segmentation != []


class Category(Entry):
    id: int
    name: str = Field(min_length=1)
    supercategory: str | None = None


class Listing(Entry):
    images: list[ImageEntry]
    annotations: list[Annotation]
    categories: list[Category]
