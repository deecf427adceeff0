"""Our attention: the module, its variants and sites, and what is measured inside."""

from .attention import INITIALIZERS, QKV, Attention, Tap, attention_weights, fused_attention, plain_attention

__all__ = ["INITIALIZERS", "QKV", "Attention", "Tap", "attention_weights", "fused_attention", "plain_attention"]
