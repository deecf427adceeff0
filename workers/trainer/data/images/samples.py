"""Prompted samples, batches of them, and data sets that make each sample from (split, index) alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workers.protocol import Notice
from workers.trainer.data.images.lexicon import LENGTH, OURS, PAD, Lexicon

CACHE_BYTES = 256 * 2**20
Labels = NDArray[np.uint8] | NDArray[np.uint16]
NARROWEST = 4  # least number of targets in a batch, so that batches of scenes have one shape
NONE = -1  # the label of padding among targets


@dataclass(frozen=True)
class Sample:
    """One image with a prompt. `labels` numbers the visible thing at each pixel (0: none); `hits` are those that the
    prompt names. `other` is the same prompt for another visible thing, such as the class in another colour, or empty.
    Only scenes have parts, kinds and colours. `packed` has masks that may overlap, which `labels` cannot hold."""

    image: NDArray[np.uint8]  # H, W, 3
    labels: Labels  # H, W
    hits: tuple[int, ...]
    prompt: str
    other: str = ""
    parts: NDArray[np.uint8] | None = None  # H, W: an index into shapes.PARTS
    kinds: Mapping[int, int] = field(default_factory=dict)  # by label: an index into lexicon.THINGS
    colours: Mapping[int, int] = field(default_factory=dict)  # by label: an index into lexicon.COLOURS
    category: int = 0  # what the prompt names, in data with categories
    lexicon: Lexicon = OURS  # which encodes prompts
    packed: NDArray[np.uint8] | None = None  # hits, bytes: bits of H, W

    @property
    def masks(self) -> NDArray[np.bool_]:
        """hits, H, W."""
        if self.packed is None:
            return self.labels == np.array(self.hits, self.labels.dtype)[:, None, None]
        bits = np.unpackbits(self.packed[: len(self.hits)], axis=1, count=self.labels.size)
        return bits.astype(np.bool_).reshape(-1, *self.labels.shape)


@dataclass(frozen=True)
class Batch:
    """Tensors of B samples; targets are padded to G, the most that one of them has and at least NARROWEST;
    `valid` is False at padding."""

    images: Tensor  # B, 3, H, W
    tokens: Tensor  # B, S
    token_mask: Tensor  # B, S bool: False at padding
    masks: Tensor  # B, G, H, W bool
    boxes: Tensor  # B, G, 4: centre x, centre y, width, height in [0, 1]
    valid: Tensor  # B, G bool

    @property
    def inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.images, self.tokens, self.token_mask

    @property
    def present(self) -> Tensor:
        return self.valid.any(1)

    def to(self, device: torch.device) -> Batch:
        return Batch(*(value.to(device, non_blocking=True) for value in vars(self).values()))


class Samples:
    """`size` samples of a split, made by index on first use and cached while they fit into CACHE_BYTES. `count`, if
    given, tells how many things a prompt names without making the sample."""

    def __init__(self, make: Callable[[int], Sample], size: int, count: Callable[[int], int] | None = None) -> None:
        self.make, self.size, self.count = make, size, count
        self._kept: dict[int, tuple[Sample, NDArray[np.float32]]] = {}
        self._targets: dict[int, int] = {}
        self._room = CACHE_BYTES

    def __getitem__(self, index: int) -> Sample:
        return self._get(index)[0]

    def first(self, count: int) -> list[Sample]:
        return [self[index] for index in range(min(count, self.size))]

    def batch(self, indices: Iterable[int]) -> Batch:
        samples, boxes = zip(*(self._get(int(index)) for index in indices), strict=True)
        return collate(samples, boxes)

    def targets(self, index: int) -> int:
        """How many things the prompt names. Without `count`, costs making the sample on first use."""
        if self.count:
            return self.count(index)
        if index not in self._targets:
            self._get(index)
        return self._targets[index]

    def all_targets(self) -> list[int]:
        """`targets` of every sample."""
        return [self.targets(index) for index in range(self.size)]

    def _get(self, index: int) -> tuple[Sample, NDArray[np.float32]]:
        if (kept := self._kept.get(index)) is not None:
            return kept
        sample = self.make(index)
        self._targets[index] = len(sample.hits)
        made = sample, boxes_of(sample.masks)
        arrays = (sample.image, sample.labels, sample.parts, sample.packed)
        self._room -= sum(array.nbytes for array in arrays if array is not None)
        if self._room > 0:
            self._kept[index] = made
        return made


@dataclass(frozen=True)
class Splits:
    """`compositional` prompts for things that training never showed in that colour; None if nothing is held out."""

    train: Samples
    val: Samples
    test: Samples
    compositional: Samples | None = None
    lexicon: Lexicon = OURS
    notices: tuple[Notice, ...] = ()


def drawn(make: Callable[[np.random.Generator], Sample], split: int) -> Callable[[int], Sample]:
    """A maker by index: its random numbers depend on (split, index) alone."""
    return lambda index: make(np.random.default_rng([split, index]))


def boxes_of(masks: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The box of the visible pixels of each mask [N, H, W]: centre and size, in [0, 1]."""
    boxes = np.zeros((len(masks), 4), np.float32)
    for box, mask in zip(boxes, masks, strict=True):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
        box[:] = (left + right) / 2, (top + bottom) / 2, right - left, bottom - top
    return boxes / masks.shape[-1]


def collate(samples: Sequence[Sample], boxes: Sequence[NDArray[np.float32]], prompts: Sequence[str] = ()) -> Batch:
    """A batch of samples of one size and the boxes of their hits; `prompts`, if given, replace their own."""
    count, side = len(samples), samples[0].labels.shape[0]
    tokens = np.full((count, LENGTH), PAD, np.int64)
    most = max(NARROWEST, *(len(sample.hits) for sample in samples))
    hits = np.full((count, most), NONE, np.int32)
    padded = np.full((count, most, 4), 0.5, np.float32)
    used_prompts = prompts or [sample.prompt for sample in samples]
    for row, (sample, box, prompt) in enumerate(zip(samples, boxes, used_prompts, strict=True)):
        ids = sample.lexicon.encode(prompt)
        tokens[row, : len(ids)] = ids
        hits[row, : len(sample.hits)] = sample.hits
        padded[row, : len(box)] = box
    images = torch.from_numpy(np.stack([sample.image for sample in samples])).permute(0, 3, 1, 2)
    labels = torch.from_numpy(np.stack([sample.labels for sample in samples]).astype(np.int32))
    wanted = torch.from_numpy(hits)
    valid = wanted != NONE
    masks = labels.view(count, 1, side, side) == wanted[:, :, None, None]
    for row, sample in enumerate(samples):
        if sample.packed is not None:
            masks[row, : len(sample.hits)] = torch.from_numpy(sample.masks)
    token_mask = torch.from_numpy(tokens) != PAD
    return Batch(images.float() / 128 - 1, torch.from_numpy(tokens), token_mask, masks, torch.from_numpy(padded), valid)
