"""How attention projects, compares and starts, and the sizes around it."""

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
    """What the sites of one kind do otherwise than the rest."""

    variant: VariantName | None = Field(
        None, description="which projections sites of this kind have; empty: as the rest"
    )


class ByKind(Section):
    """Settings for one kind of site: what its keys come from."""

    self: OfKind = OfKind()
    text: OfKind = OfKind()
    image: OfKind = OfKind()
    text_to_image: OfKind = OfKind()


class Attention(Section):
    """How every attention site of the model projects, compares and starts."""

    variant: VariantName = Field("full", description="which projections exist; 'full' is the textbook form")
    init: Init = Field("normal", description="how W_q, W_k, W_v and W_o start")
    init_std: float = Field(0.02, gt=0, le=1, description="standard deviation of the normal start")
    scale: Scale = Field("sqrt_dk", description="what QKᵀ is divided by")
    frozen: tuple[Matrix, ...] = Field((), description="matrices that keep their starting values")
    qk_norm: bool = Field(False, description="normalise Q and K per head before comparing them")
    d_k: int | None = Field(
        None, ge=1, le=1024, description="columns of a head in W_q and W_k; d_model / heads if null"
    )
    d_v: int | None = Field(None, ge=1, le=1024, description="columns of a head in W_v; d_model / heads if null")
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
    """Sizes that every transformer of the laboratory shares."""

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
        """A matrix that is not there cannot keep its values. A spec that was stored may say so all the same."""
        for kind in () if is_stored(info) else self.kinds:
            variant = self.attention.of(kind).variant
            if lacking := sorted(absent(variant) & set(self.attention.frozen)):
                message = (
                    "names {matrix}, which attention of the variant {variant} (sites of kind {kind}) does not have"
                )
                told = {"field": "attention.frozen", "matrix": lacking[0], "variant": variant, "kind": kind}
                raise PydanticCustomError("nothing_to_freeze", message, told)
        return self

    @field_validator("d_model")
    @classmethod
    def _divides_by_heads(cls, d_model: int, info: ValidationInfo) -> int:
        """The default's width, too; a spec that was stored may have been accepted with that one unchecked."""
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
        """Q = X hands a token's columns on as they are: each head gets d_model / heads of them, and no others."""
        heads, d_model = info.data.get("heads"), info.data.get("d_model")
        for variant in sorted(attention.variants & VARIANT_TABLE.keys()):
            field = VARIANT_TABLE[variant].identity_width
            width = getattr(attention, field) if field else None
            if heads and d_model and width not in (None, d_model // heads):
                raise PydanticCustomError(
                    "identity_does_not_fit",
                    "variant {variant} has an identity for a projection: "
                    "{field} must be d_model / heads = {fits} or null",
                    {"variant": variant, "field": field, "fits": d_model // heads},
                )
        return attention
