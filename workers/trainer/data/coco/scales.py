"""Black and white in a folder's images of more than 8 bits.

Cameras store 10, 12 or 14 bits in 16, which would train nearly black. Most images of a folder decide, and in each all
but SPECKS of its pixels, so that neither a saturated pixel nor one image of another camera does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.protocol import Notice
from workers.trainer.data.errors import Problems
from workers.trainer.data.images import reader
from workers.trainer.data.notices import counted, notice

SPECKS = 0.005  # share of an image's pixels that do not count for its range
SHARES = {4095: 0.5, 16383: 0.75}  # 12 and 14 bits: the share of images within them above which a folder is refused
DARK_16 = max(SHARES)
DARK_FLOAT = 16.0  # floating-point values between 1 and this are neither 0 … 1 nor 0 … 255
DARK_FLOATS = 0.5  # share of images below it above which a folder is refused
KINDS = {
    "grey16": ("16-bit grey", " (mode I;16)"),
    "colour16": ("16-bit colour", ""),
    "float": ("floating point", " (mode F)"),
}


@dataclass(frozen=True)
class Span:
    """Values of one image: the lowest, the highest, and what all but SPECKS of its pixels stay at or below."""

    low: float
    high: float
    most: float


@dataclass
class Scales:
    """Reads the values of each deep image. `float_top` and `notices` are known after `decide`."""

    folder: str
    problems: Problems
    path: Callable[[int], str]  # the name of a file in problems, by image id
    float_top: float | None = None
    spans: dict[str, dict[int, Span]] = field(default_factory=dict)  # by a key of KINDS, then by image id

    def decide(self, files: Mapping[int, Path], heads: Mapping[int, reader.Head]) -> None:
        for number, head in heads.items():
            if head.depth:
                self._measure(number, files[number], head.depth)
        for depth, spans in self.spans.items():
            if depth == "float":
                self._float(spans)
            else:
                self._whole(depth, spans)

    def notices(self, names: Mapping[int, str]) -> list[Notice]:
        """The scale of each kind of image, with every image's highest value, the darkest images first."""
        notices: list[Notice] = []
        for depth, spans in self.spans.items():
            top = (self.float_top or 1.0) if depth == "float" else reader.TOP_16
            dark = [span for span in spans.values() if depth != "float" and span.most <= DARK_16]
            text = (
                f"{counted(len(spans), 'image')} of {KINDS[depth][0]}: 0 … {top:.0f} is read as 0 … 255; the highest "
                f"value is {'at most ' * (depth == 'colour16')}{max(span.high for span in spans.values()):g}"
            )
            if dark:
                text += f"; {len(dark)} of them have no value above {DARK_16}, ignoring {SPECKS:.1%} of their pixels"
            order = sorted(spans, key=lambda number: (spans[number].most, spans[number].high))
            lines = [
                f"{names[number]}: up to {spans[number].most:g}, highest {spans[number].high:g}" for number in order
            ]
            notices += notice("read_as", text, lines)
        return notices

    def _measure(self, number: int, file: Path, depth: str) -> None:
        try:
            span = _span(reader.values(file))
        except reader.ImageProblem as error:
            self.problems.add(f"{self.path(number)}: {error}")
            return
        if depth == "float" and not 0 <= span.low <= span.high <= 255:
            self.problems.add(
                f"{self.path(number)}: mode F with values from {span.low:.4g} to {span.high:.4g}: "
                "neither 0 … 1 nor 0 … 255; scale them to one of these ranges"
            )
        self.spans.setdefault(depth, {})[number] = span

    def _whole(self, depth: str, spans: Mapping[int, Span]) -> None:
        """16 bits are read as 0 … 65535, or refused."""
        for bound, share in SHARES.items():
            dark = [span for span in spans.values() if span.most <= bound]
            if len(dark) <= share * len(spans):
                continue
            self._refuse(
                depth, spans, dark, "their range is unknown; scale them to the full 16 bits, or save them with 8"
            )
            return

    def _float(self, spans: Mapping[int, Span]) -> None:
        top = max(span.high for span in spans.values())
        self.float_top = 1.0 if top <= 1 else 255.0
        dark = [span for span in spans.values() if span.most < DARK_FLOAT]
        if top > 1 and (top < DARK_FLOAT or len(dark) > DARK_FLOATS * len(spans)):
            self._refuse("float", spans, dark, "neither 0 … 1 nor 0 … 255; save all of them in one of these ranges")

    def _refuse(self, depth: str, spans: Mapping[int, Span], dark: list[Span], why: str) -> None:
        name, mode = KINDS[depth]
        most, high = max(span.most for span in dark), max(span.high for span in spans.values())
        of_all = " of 65535" if depth != "float" else ""
        specks = f", ignoring {SPECKS:.1%} of an image's pixels" if max(span.high for span in dark) > most else ""
        self.problems.add(
            f"{self.folder}: {len(dark)} of {len(spans)} images of {name}{mode} with no value above {most:g}{of_all}"
            f"{specks} (the highest value is {high:g}): {why}"
        )


def _span(values: NDArray[Any]) -> Span:
    flat = values.reshape(-1)
    last = max(0, flat.size - 1 - max(1, int(SPECKS * flat.size)))
    return Span(float(flat.min()), float(flat.max()), float(np.partition(flat, last)[last]))
