"""Prompted segmentation."""
