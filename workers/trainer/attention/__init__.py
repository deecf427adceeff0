"""Attention of our own: the module, its variants and sites, and what is measured inside."""

from .attention import STARTS, Attention, Projected, Tap, attention_weights, fused_attention, plain_attention

__all__ = ["STARTS", "Attention", "Projected", "Tap", "attention_weights", "fused_attention", "plain_attention"]
