"""The vocabulary of prompts: a small fixed one in English and Chinese; a COCO folder has its own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

PAD, UNKNOWN = 0, 1
LENGTH = 6  # tokens a prompt may have

COLOURS = (("red", "红色"), ("blue", "蓝色"), ("yellow", "黄色"), ("green", "绿色"), ("white", "白色"))
THINGS = (("car", "车"), ("tree", "树"), ("house", "房子"))
STUFF = (("sky", "天空"), ("road", "路"))
DIGITS = (
    ("zero", "零"), ("one", "一"), ("two", "二"), ("three", "三"), ("four", "四"),
    ("five", "五"), ("six", "六"), ("seven", "七"), ("eight", "八"), ("nine", "九"),
)  # fmt: skip
OF = "的"

VOCABULARY = ("<pad>", "<unknown>", OF, *(word for pair in (*COLOURS, *THINGS, *STUFF, *DIGITS) for word in pair))


@dataclass(frozen=True)
class Lexicon:
    """The words that a model knows; a word's index is its token id."""

    vocabulary: tuple[str, ...]

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {word: index for index, word in enumerate(self.vocabulary)}

    @cached_property
    def _longest(self) -> int:
        return max(len(word) for word in self.vocabulary)

    def encode(self, prompt: str) -> list[int]:
        """Token ids of a prompt, at most LENGTH. English words are split at spaces; Chinese takes the longest known
        word at each position, so `红色的车` and `红色 的 车` are the same."""
        ids = [token for chunk in prompt.lower().split() for token in self._chunk(chunk)]
        return ids[:LENGTH] or [UNKNOWN]

    def _chunk(self, chunk: str) -> list[int]:
        if chunk.isascii():
            return [self._ids.get(chunk, UNKNOWN)]
        ids = []
        while chunk:
            longest = min(self._longest, len(chunk))
            size = next((size for size in range(longest, 0, -1) if chunk[:size] in self._ids), 0)
            ids.append(self._ids[chunk[:size]] if size else UNKNOWN)
            chunk = chunk[size or 1 :]
        return ids


OURS = Lexicon(VOCABULARY)
encode = OURS.encode
