"""The data sets that a spec can name."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from .base import BelowRoot, Section, as_set

# The things of scenes, each in each colour.
Thing = Literal[
    "red car", "blue car", "yellow car", "green car", "white car",
    "red tree", "blue tree", "yellow tree", "green tree", "white tree",
    "red house", "blue house", "yellow house", "green house", "white house",
]  # fmt: skip
_COLOURS = 5


class ScenesData(Section):
    """Synthetic street scenes with exact masks; prompts in English and Chinese."""

    dataset: Literal["scenes"]
    canvas: Literal[32, 64, 128] = Field(64, description="side of an image, in pixels")
    train_size: int = Field(4096, ge=8, le=1_000_000, description="distinct training scenes")
    val_size: int = Field(256, ge=8, le=10_000, description="scenes in the validation split")
    test_size: int = Field(512, ge=8, le=10_000, description="scenes in the test split")
    absent: float = Field(0.2, ge=0, le=0.9, description="share of prompts that match nothing")
    language: Literal["both", "en", "zh"] = Field("both", description="language of the prompts")
    distractors: float = Field(0.0, ge=0, le=1, description="share of scenes with two colours of the prompted class")
    held_out: tuple[Thing, ...] = Field((), description="things in no training scene, only in the compositional split")

    @field_validator("held_out")
    @classmethod
    def _leaves_two_colours(cls, held_out: tuple[Thing, ...], info: ValidationInfo) -> tuple[Thing, ...]:
        for kind in ("car", "tree", "house"):
            if _COLOURS - len({thing for thing in held_out if thing.endswith(kind)}) < 2:
                raise PydanticCustomError("too_many_held_out", f"leave at least two colours of {kind} for training")
        return as_set(held_out, info, get_args(Thing))


class DigitScenesData(Section):
    """Real handwritten digits of scikit-learn on a canvas; prompts such as "seven" or "七"."""

    dataset: Literal["digit-scenes"]
    canvas: Literal[32, 64] = Field(32, description="side of an image, in pixels")
    train_size: int = Field(4096, ge=8, le=1_000_000, description="distinct training scenes")
    val_size: int = Field(256, ge=8, le=10_000, description="scenes in the validation split")
    test_size: int = Field(256, ge=8, le=10_000, description="scenes in the test split")
    absent: float = Field(0.2, ge=0, le=0.9, description="share of prompts that match nothing")
    language: Literal["both", "en", "zh"] = Field("both", description="language of the prompts")


class DigitsData(Section):
    """The 1,797 handwritten 8×8 digits of scikit-learn."""

    dataset: Literal["digits"]
    val_share: float = Field(0.2, gt=0, lt=0.9, description="share of the images in the validation split")


class PointerData(Section):
    """Each token has a name, a payload and the name of another token, whose payload is to be predicted."""

    dataset: Literal["pointer"]
    tokens: int = Field(12, ge=3, le=64, description="tokens in a sequence")
    payloads: int = Field(16, ge=2, le=256, description="different payloads, which are the classes")
    val_size: int = Field(512, ge=8, le=10_000, description="sequences in the validation split")
    test_size: int = Field(2048, ge=8, le=20_000, description="sequences in the test split")


class RolesData(Section):
    """Sentences such as 我 爱 吃 苹果 in which every token predicts its governor."""

    dataset: Literal["roles"]
    order: Literal["shuffled", "fixed"] = Field("shuffled", description="shuffled: only case markers show the roles")
    val_size: int = Field(512, ge=8, le=10_000, description="sentences in the validation split")
    test_size: int = Field(2048, ge=8, le=20_000, description="sentences in the test split")


class TextData(Section):
    """Characters of any UTF-8 file below the data root; without a path, generated text."""

    dataset: Literal["text"]
    path: BelowRoot | None = Field(None, description="file below the data root")
    context: int = Field(64, ge=8, le=4096, description="context length in characters")
    characters: int = Field(1024, ge=16, le=65536, description="size of the vocabulary, most frequent first")
    val_share: float = Field(0.1, gt=0, lt=0.9, description="share for validation and test, at the text's end")


class CocoData(Section):
    """A folder in COCO's format below the operator's data root; category names become prompts."""

    dataset: Literal["coco"]
    path: BelowRoot = Field(description="folder below the data root, or the annotations file in it")
    canvas: Literal[32, 64, 128, 256] = Field(64, description="side to which images are resized, in pixels")
    val_share: float = Field(0.2, gt=0, lt=0.9, description="share of the images in the validation split")
    absent: float = Field(0.2, ge=0, le=0.9, description="share of prompts that match nothing")
