"""Folders in COCO's format, checked before a run trains on them."""
