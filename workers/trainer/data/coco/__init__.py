"""Folders in COCO's format, checked before a run trains on them."""

from .samples import CocoSplits, load

__all__ = ["CocoSplits", "load"]
