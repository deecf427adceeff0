"""The sizes of every model of the laboratory."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .attention import Kind, Transformer


class SegmenterModel(Transformer):
    """sam3-lite: image and text encoders, fusion encoder, query decoder, box, mask and score heads."""

    patch: Literal[4, 8] = Field(4, description="side of an image patch, in pixels")
    text_layers: int = Field(1, ge=1, le=12, description="layers of the text encoder")
    encoder_layers: int = Field(2, ge=1, le=24, description="layers of image self- and text cross-attention")
    decoder_layers: int = Field(2, ge=1, le=24, description="layers of query self- and image cross-attention")
    queries: int = Field(10, ge=1, le=300, description="object queries")
    text_to_image: bool = Field(False, description="encoder layers also have attention of text queries to image keys")

    @property
    def kinds(self) -> tuple[Kind, ...]:
        return ("self", "text", "image", *(("text_to_image",) if self.text_to_image else ()))


class ClassifierModel(Transformer):
    """A small vision transformer with a class token."""

    patch: Literal[1, 2, 4] = Field(2, description="side of an image patch, in pixels")
    layers: int = Field(2, ge=1, le=24, description="encoder layers")


class TokenModel(Transformer):
    """A small transformer over tokens: pointer, roles and text."""

    heads: int = Field(1, ge=1, le=64, description="attention heads per site")
    layers: int = Field(1, ge=1, le=24, description="encoder layers")
    residual: bool = Field(True, description="add each block's input to its output")
