"""Which architectures there are: asked of the libraries."""

from __future__ import annotations

from dataclasses import dataclass

from workers.trainer.tasks.hf.library import mend_torchvision, transformers


@dataclass(frozen=True, order=True)
class Architecture:
    library: str
    name: str

    def __str__(self) -> str:
        return f"{self.library} {self.name}"


def architectures() -> list[Architecture]:
    """Every model type that `AutoModel` of transformers builds, and every family of timm's registry."""
    transformers()
    mend_torchvision()
    import timm
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    theirs = [Architecture("transformers", name) for name in MODEL_MAPPING_NAMES]
    return sorted(theirs) + sorted(Architecture("timm", name) for name in timm.list_modules())
