"""Instruments for any model: `attach(model)` finds and names its attention (docs/any-model.md)."""

from .attachment import Attached, ForeignSite, attach, attached
from .notices import attention_notices

__all__ = ["Attached", "ForeignSite", "attach", "attached", "attention_notices"]
