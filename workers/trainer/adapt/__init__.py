"""Any model under our instruments: `attach(model)` finds its attention and names it (docs/any-model.md)."""

from .attachment import Attached, ForeignSite, attach, attached
from .notices import attention_notices

__all__ = ["Attached", "ForeignSite", "attach", "attached", "attention_notices"]
