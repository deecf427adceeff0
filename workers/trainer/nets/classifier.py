"""A small vision transformer with a class token."""

from __future__ import annotations

from torch import Tensor, nn

from experiments.spec import ClassifierModel
from workers.trainer.nets.layers import EncoderLayer


class Classifier(nn.Module):
    """Patches and a class token through pre-norm encoder layers; the class token is read out."""

    def __init__(self, spec: ClassifierModel, *, side: int, channels: int, classes: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(channels, spec.d_model, spec.patch, spec.patch)
        self.tokens = nn.Embedding(1 + (side // spec.patch) ** 2, spec.d_model)  # row 0: the class token
        self.encoder = nn.ModuleList(EncoderLayer(spec) for _ in range(spec.layers))
        self.norm = nn.LayerNorm(spec.d_model)
        self.head = nn.Linear(spec.d_model, classes)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        patches = self.patches(images_BCHW).flatten(2).transpose(1, 2)
        x = nn.functional.pad(patches, (0, 0, 1, 0)) + self.tokens.weight  # B, 1 + patches, M
        for layer in self.encoder:
            x = layer(x)
        logits: Tensor = self.head(self.norm(x[:, 0]))
        return logits
