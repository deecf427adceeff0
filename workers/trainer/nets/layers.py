"""Blocks of our models: pre-norm self-attention, feed-forward, sine positions."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.spec import Transformer
from workers.trainer.attention.variants import build_attention


class FeedForward(nn.Module):
    """Norm, widen, GELU, narrow; the caller adds the residual."""

    def __init__(self, d_model: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(d_model)
        self.widen = nn.Linear(d_model, hidden)
        self.narrow = nn.Linear(hidden, d_model)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.narrow(F.gelu(self.widen(self.norm(x))))
        return out


class EncoderLayer(nn.Module):
    """Pre-norm self-attention, then feed-forward."""

    def __init__(self, spec: Transformer) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(spec.d_model)
        self.self_attention = build_attention(spec.d_model, spec.heads, spec.attention, "self")
        self.ffn = FeedForward(spec.d_model, spec.ffn)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = x + self.self_attention(self.norm(x), mask=mask)
        return x + self.ffn(x)


class MLP(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, hidden)
        self.second = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(F.gelu(self.first(x)))
        return out


def sine(values: Tensor, width: int) -> Tensor:
    """Coordinates in [0, 1] as `width` sines and cosines of rising frequency: [...] → [..., width]."""
    frequencies = 2.0 ** torch.arange(width // 2, device=values.device)
    octaves = frequencies.clamp(max=2.0**8) * math.pi
    angles = values.unsqueeze(-1) * octaves
    return torch.cat([angles.sin(), angles.cos()], -1)


def grid_positions(side: int, width: int) -> Tensor:
    """Fixed position encodings of the side × side patches, row by row: [side², width]."""
    ticks = (torch.arange(side) + 0.5) / side
    y, x = torch.meshgrid(ticks, ticks, indexing="ij")
    return torch.cat([_smooth(y.flatten(), width // 2), _smooth(x.flatten(), width - width // 2)], -1)


def _smooth(values: Tensor, width: int) -> Tensor:
    """Sines whose wave lengths fall geometrically from the whole image to two patches of sixteen."""
    half = (width + 1) // 2
    frequencies = math.pi * 8.0 ** torch.linspace(0, 1, half)
    angles = values.unsqueeze(-1) * frequencies
    return torch.cat([angles.sin(), angles.cos()], -1)[:, :width]
