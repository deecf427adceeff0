"""Attention's projections, scores and initializers, and the sizes of a transformer."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from .attention_names import MATRICES, VARIANT_TABLE, Matrix, absent
from .base import Section, as_set, is_stored
from .plugins import VariantName

Init = Literal["normal", "xavier", "orthogonal", "zeros"]
Scale = Literal["sqrt_dk", "none"]
# What a site's keys come from: the queries' own sequence, a text, an image, or an image whose queries are a text.
Kind = Literal["self", "text", "image", "text_to_image"]


class OfKind(Section):
    """Settings in which the sites of one kind differ from the others."""

    variant: VariantName | None = Field(None, description="variant of these sites; empty: as the others")


class ByKind(Section):
    """Settings by kind of site, that is by where its keys come from."""

    self: OfKind = OfKind()
    text: OfKind = OfKind()
    image: OfKind = OfKind()
    text_to_image: OfKind = OfKind()


class Attention(Section):
    """Projections, scores and initializers of every attention site of the model."""

    variant: VariantName = Field("full", description="which projections exist; 'full' is the textbook form")
    init: Init = Field("normal", description="initializer of W_q, W_k, W_v and W_o")
    init_std: float = Field(0.02, gt=0, le=1, description="standard deviation of the initializer 'normal'")
    scale: Scale = Field("sqrt_dk", description="what QKᵀ is divided by")
    frozen: tuple[Matrix, ...] = Field((), description="matrices that keep their initial values")
    qk_norm: bool = Field(False, description="normalize Q and K per head before their product")
    d_k: int | None = Field(None, ge=1, le=1024, description="columns of a head in W_q and W_k; null: d_model / heads")
    d_v: int | None = Field(None, ge=1, le=1024, description="columns of a head in W_v; null: d_model / heads")
    by_kind: ByKind = ByKind()

    @field_validator("frozen")
    @classmethod
    def _is_a_set(cls, frozen: tuple[Matrix, ...], info: ValidationInfo) -> tuple[Matrix, ...]:
        return as_set(frozen, info, MATRICES)

    def of(self, kind: Kind) -> Attention:
        """The settings of a site of this kind."""
        own: OfKind = getattr(self.by_kind, kind)
        return self if own.variant is None else self.model_copy(update={"variant": own.variant})

    @property
    def variants(self) -> set[str]:
        """Every variant that some kind of site may have."""
        return {self.variant, *(own.variant for own in dict(self.by_kind).values() if own.variant)}


class Transformer(Section):
    """Sizes that all transformers of the laboratory share."""

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of attention site that the model has."""
        return ("self",)

    heads: int = Field(4, ge=1, le=64, description="attention heads per site")
    d_model: int = Field(64, ge=8, le=4096, validate_default=True, description="width of a token; a multiple of heads")
    ffn: int = Field(128, ge=8, le=16384, description="hidden width of the feed-forward layers")
    attention: Attention = Attention()

    @model_validator(mode="after")
    def _has_what_it_freezes(self, info: ValidationInfo) -> Self:
        """A variant cannot freeze a matrix that it does not have; stored specs may name one."""
        for kind in () if is_stored(info) else self.kinds:
            variant = self.attention.of(kind).variant
            if lacking := sorted(absent(variant) & set(self.attention.frozen)):
                message = (
                    "names {matrix}, which attention of the variant {variant} (sites of kind {kind}) does not have"
                )
                context = {"field": "attention.frozen", "matrix": lacking[0], "variant": variant, "kind": kind}
                raise PydanticCustomError("nothing_to_freeze", message, context)
        return self

    @field_validator("d_model")
    @classmethod
    def _divides_by_heads(cls, d_model: int, info: ValidationInfo) -> int:
        """Checks the default width too; stored specs may have been accepted without that check."""
        heads = info.data.get("heads")
        if heads and d_model % heads and not is_stored(info):
            raise PydanticCustomError(
                "not_divisible",
                "d_model ({d_model}) must be divisible by heads ({heads}): each head gets d_model / heads columns",
                {"d_model": d_model, "heads": heads},
            )
        return d_model

    @field_validator("attention")
    @classmethod
    def _identities_fit(cls, attention: Attention, info: Any) -> Attention:
        """Where an identity replaces a projection, each head gets d_model / heads columns of the input."""
        heads, d_model = info.data.get("heads"), info.data.get("d_model")
        for variant in sorted(attention.variants & VARIANT_TABLE.keys()):
            field = VARIANT_TABLE[variant].identity_width
            width = getattr(attention, field) if field else None
            if heads and d_model and width not in (None, d_model // heads):
                raise PydanticCustomError(
                    "identity_does_not_fit",
                    "variant {variant} has an identity in place of a projection: "
                    "{field} must be d_model / heads = {fits} or null",
                    {"variant": variant, "field": field, "fits": d_model // heads},
                )
        return attention
