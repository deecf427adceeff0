"""sam3-lite: find what the prompt names. Patch and text encoders, a fusion encoder, a query decoder, four heads.

Shapes: B images, N patches row by row, S prompt tokens, Q queries, L decoder layers, M = d_model, C mask channels.
Boxes are (centre x, centre y, width, height) in [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.spec import SegmenterModel
from workers.trainer.attention.variants import build_attention
from workers.trainer.nets.layers import MLP, EncoderLayer, FeedForward, grid_positions, sine

MASK_CHANNELS = 32
BOX_WIDTH = 16  # sines per box coordinate


@dataclass(frozen=True)
class Predictions:
    """The outputs of the heads. Scores, presence and masks are logits; masks are computed on demand."""

    scores: Tensor  # L, B, Q
    boxes: Tensor  # L, B, Q, 4
    presence: Tensor  # L, B
    mask_queries: Tensor  # B, Q, C: of the last layer
    pixels: Tensor  # B, C, h, w: half the image's side

    def masks(self, rows: Tensor, queries: Tensor) -> Tensor:
        """Mask logits [n, H, W] of n (image, query) pairs, at the image's full size."""
        return doubled(torch.einsum("nc,nchw->nhw", self.mask_queries[rows, queries], self.pixels[rows]))

    def all_masks(self) -> Tensor:
        """Mask logits of every query: B, Q, H, W."""
        return doubled(torch.einsum("bqc,bchw->bqhw", self.mask_queries, self.pixels))


class ImageEncoder(nn.Module):
    """Patch embedding in two strides, then convolutions over neighbouring patches, since shapes are larger than a
    patch. The finer stride also serves the masks."""

    def __init__(self, d_model: int, patch: int) -> None:
        super().__init__()
        self.fine = nn.Conv2d(3, MASK_CHANNELS, 3, stride=2, padding=1)
        self.fine_norm = nn.GroupNorm(1, MASK_CHANNELS)
        self.patches = nn.Conv2d(MASK_CHANNELS, d_model, patch // 2, patch // 2)
        self.around = nn.ModuleList(Neighbours(d_model) for _ in range(2))
        self.norm = nn.LayerNorm(d_model)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        fine = F.gelu(self.fine_norm(self.fine(images)))  # B, C, h, w
        patches = self.patches(fine)
        for layer in self.around:
            patches = patches + layer(patches)
        return self.norm(patches.flatten(2).transpose(1, 2)), fine  # B, N, M


class Neighbours(nn.Module):
    """Mixes each patch with the eight around it."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, d_model)
        self.mix = nn.Conv2d(d_model, d_model, 3, padding=1)

    def forward(self, patches: Tensor) -> Tensor:
        out: Tensor = self.mix(F.gelu(self.norm(patches)))
        return out


class FusionLayer(nn.Module):
    """Pre-norm: attention of the image to itself, to the text and, with `text_to_image`, of the text to the image."""

    def __init__(self, spec: SegmenterModel) -> None:
        super().__init__()
        self.spec = spec
        self.self_norm = nn.LayerNorm(spec.d_model)
        self.self_attention = build_attention(spec.d_model, spec.heads, spec.attention, "self")
        self.text_norm = nn.LayerNorm(spec.d_model)
        self.text_attention = build_attention(spec.d_model, spec.heads, spec.attention, "text")
        self.ffn = FeedForward(spec.d_model, spec.ffn)
        if spec.text_to_image:
            self.word_norm, self.seen_norm = nn.LayerNorm(spec.d_model), nn.LayerNorm(spec.d_model)
            self.text_to_image_attention = build_attention(spec.d_model, spec.heads, spec.attention, "text_to_image")

    def forward(self, x: Tensor, text: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
        """The image and the words after the layer."""
        x = x + self.self_attention(self.self_norm(x))
        x = x + self.text_attention(self.text_norm(x), text, allowed)
        x = x + self.ffn(x)
        return x, self.attend_to_image(text, x)

    def attend_to_image(self, text: Tensor, image: Tensor) -> Tensor:
        """The words with what they attend to; the decoder's queries attend to them, and scores compare with them."""
        if not self.spec.text_to_image:
            return text
        return text + self.text_to_image_attention(self.word_norm(text), self.seen_norm(image))


class DecoderLayer(nn.Module):
    """Pre-norm: attention of the queries to each other, to the text and to the image."""

    def __init__(self, spec: SegmenterModel) -> None:
        super().__init__()
        self.self_norm = nn.LayerNorm(spec.d_model)
        self.self_attention = build_attention(spec.d_model, spec.heads, spec.attention, "self")
        self.text_norm = nn.LayerNorm(spec.d_model)
        self.text_attention = build_attention(spec.d_model, spec.heads, spec.attention, "text")
        self.image_norm = nn.LayerNorm(spec.d_model)
        self.image_attention = build_attention(spec.d_model, spec.heads, spec.attention, "image")
        self.ffn = FeedForward(spec.d_model, spec.ffn)

    def forward(self, x: Tensor, where: Tensor, text: Tensor, allowed: Tensor, image: Tensor) -> Tensor:
        """`where` encodes the prompt and each query's box; `image` includes the patches' positions."""
        x = x + self.self_attention(self.self_norm(x) + where)
        x = x + self.text_attention(self.text_norm(x) + where, text, allowed)
        x = x + self.image_attention(self.image_norm(x) + where, image)
        return x + self.ffn(x)


class Segmenter(nn.Module):
    """The whole model."""

    position: Tensor

    def __init__(self, spec: SegmenterModel, *, side: int, words: int, prompt_length: int) -> None:
        super().__init__()
        self.grid = side // spec.patch
        self.image = ImageEncoder(spec.d_model, spec.patch)
        self.register_buffer("position", grid_positions(self.grid, spec.d_model), persistent=False)
        self.words = nn.Embedding(words, spec.d_model)
        self.places = nn.Embedding(prompt_length, spec.d_model)
        self.text = nn.ModuleList(EncoderLayer(spec) for _ in range(spec.text_layers))
        self.text_norm = nn.LayerNorm(spec.d_model)
        self.encoder = nn.ModuleList(FusionLayer(spec) for _ in range(spec.encoder_layers))
        self.image_norm = nn.LayerNorm(spec.d_model)
        self.queries = nn.Embedding(1 + spec.queries, spec.d_model)  # row 0: the presence token
        self.where = MLP(4 * BOX_WIDTH, spec.d_model, spec.d_model)
        self.decoder = nn.ModuleList(DecoderLayer(spec) for _ in range(spec.decoder_layers))
        self.heads = Heads(spec, spec.patch // 2)

    def forward(self, images: Tensor, tokens: Tensor, token_mask: Tensor) -> Predictions:
        allowed = token_mask[:, None, None, :]  # broadcasts to BHTS
        text = self.words(tokens) + self.places.weight
        for layer in self.text:
            text = layer(text, allowed)
        text = self.text_norm(text)
        patches, fine = self.image(images)
        image = patches + self.position
        for layer in self.encoder:
            image, text = layer(image, text, allowed)
        image = self.image_norm(image)
        return self._decode(image, text, token_mask, fine)

    def _decode(self, image: Tensor, text: Tensor, token_mask: Tensor, fine: Tensor) -> Predictions:
        count, allowed = len(image), token_mask[:, None, None, :]
        prompt = (text * token_mask.unsqueeze(-1)).sum(1) / token_mask.sum(1, keepdim=True)  # B, M
        x = self.queries.weight.expand(count, -1, -1)
        placed = image + self.position
        boxes = torch.full_like(x[:, 1:, :4], 0.5)
        layers = []
        for layer in self.decoder:
            where = prompt.unsqueeze(1) + self._place(boxes)
            x = layer(x, where, text, allowed, placed)
            boxes = self.heads.boxes(x, boxes.detach())
            layers.append((self.heads.scores(x, prompt), boxes, self.heads.presence(x)))
        scores, all_boxes, presence = (torch.stack(values) for values in zip(*layers, strict=True))
        pixels = self.heads.pixels(image, fine, self.grid)
        return Predictions(scores, all_boxes, presence, self.heads.mask_queries(x), pixels)

    def _place(self, boxes: Tensor) -> Tensor:
        """The encoding of each query's box, detached from the box: B, 1 + Q, M. Zero for the presence token."""
        return F.pad(self.where(sine(boxes.detach(), BOX_WIDTH).flatten(-2)), (0, 0, 1, 0))


class Heads(nn.Module):
    """Score, box, presence and mask, read from decoder states x [B, 1 + Q, M]; shared by the layers."""

    def __init__(self, spec: SegmenterModel, upscale: int) -> None:
        super().__init__()
        self.upscale = upscale
        self.norm = nn.LayerNorm(spec.d_model)
        self.score = nn.Linear(spec.d_model, spec.d_model)
        self.score_bias = nn.Linear(spec.d_model, 1)
        self.box = MLP(spec.d_model, spec.d_model, 4)
        self.present = MLP(spec.d_model, spec.d_model, 1)
        self.mask = MLP(spec.d_model, spec.d_model, MASK_CHANNELS)
        self.pixel = nn.Linear(spec.d_model, MASK_CHANNELS * upscale**2)
        self.mix = nn.Conv2d(2 * MASK_CHANNELS, MASK_CHANNELS, 1)

    def scores(self, x: Tensor, prompt: Tensor) -> Tensor:
        """Whether the query matches the prompt: a scaled dot product. B, Q."""
        states = self.norm(x[:, 1:])
        match = (self.score(states) @ prompt.unsqueeze(-1)).squeeze(-1) / x.shape[-1] ** 0.5
        return match + self.score_bias(states).squeeze(-1)

    def boxes(self, x: Tensor, before: Tensor) -> Tensor:
        """Each layer corrects the boxes of the one before. B, Q, 4."""
        correction = self.box(self.norm(x[:, 1:]))
        return (correction + torch.logit(before, eps=1e-4)).sigmoid()

    def presence(self, x: Tensor) -> Tensor:
        return self.present(self.norm(x[:, 0])).squeeze(-1)

    def mask_queries(self, x: Tensor) -> Tensor:
        return self.mask(self.norm(x[:, 1:]))

    def pixels(self, image: Tensor, fine: Tensor, grid: int) -> Tensor:
        """Patches spread back over their pixels, beside the fine features. B, C, h, w."""
        spread = self.pixel(image).transpose(1, 2).unflatten(-1, (grid, grid))
        return self.mix(torch.cat([F.gelu(F.pixel_shuffle(spread, self.upscale)), fine], 1))


def doubled(coarse: Tensor) -> Tensor:
    widen = doubling(coarse.shape[-1], coarse.device)
    return widen @ coarse @ widen.T


def doubling(side: int, device: torch.device) -> Tensor:
    """Bilinear interpolation to twice the side as a matrix [2·side, side]: unlike F.interpolate's, its backward
    pass is deterministic on every device."""
    positions = ((torch.arange(2 * side, device=device) + 0.5) / 2 - 0.5).clamp(0, side - 1)
    distance = (positions.unsqueeze(1) - torch.arange(side, device=device)).abs()
    return (1 - distance).clamp(min=0)
