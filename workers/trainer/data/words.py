"""One small fixed vocabulary for every prompt, English and Chinese."""

from __future__ import annotations

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
_IDS = {word: index for index, word in enumerate(VOCABULARY)}
_LONGEST = max(len(word) for word in VOCABULARY)


def encode(prompt: str) -> list[int]:
    """Token ids of a prompt, at most LENGTH. English words are split at spaces; Chinese takes the longest known
    word at each place, so `红色的车` and `红色 的 车` are the same."""
    ids = [token for chunk in prompt.lower().split() for token in _chunk(chunk)]
    return ids[:LENGTH] or [UNKNOWN]


def _chunk(chunk: str) -> list[int]:
    if chunk.isascii():
        return [_IDS.get(chunk, UNKNOWN)]
    ids = []
    while chunk:
        size = next((size for size in range(min(_LONGEST, len(chunk)), 0, -1) if chunk[:size] in _IDS), 0)
        ids.append(_IDS[chunk[:size]] if size else UNKNOWN)
        chunk = chunk[size or 1 :]
    return ids
