"""Characters of a text: any UTF-8 file (or one with a byte order mark) below the data root, or generated sentences.

The text is split in three: training, then the first half (validation) and the second half (test) of the held-out share.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from experiments.spec import RolesData, TextData
from workers.trainer.data import digest
from workers.trainer.data.decoding import decoded
from workers.trainer.data.draws import Split, below, draws
from workers.trainer.data.errors import DataError
from workers.trainer.data.roots import below_root, data_root
from workers.trainer.data.tokens import roles
from workers.trainer.data.tokens.grammar import VOCABULARY
from workers.trainer.data.tokens.lookups import Ints

LARGEST = 64 * 2**20  # bytes of a file
SENTENCES = 4000  # of the generated text
OTHER = 0  # id of every character outside the most frequent ones
_ORDERED = RolesData(dataset="roles", order="fixed")


@dataclass(frozen=True)
class Text:
    """Ids of the characters by split, and the characters by id (the first stands for all others)."""

    parts: dict[Split, Ints]
    characters: tuple[str, ...]


def load(data: TextData) -> Text:
    """Raises DataError that names the file if it is outside the root, missing, not UTF-8 or too short."""
    text = generated() if data.path is None else _read(data.path)
    name = "the generated text" if data.path is None else data.path
    ids, characters = _encoded(text, data.characters)
    held = int(len(ids) * data.val_share)
    ends = [len(ids) - held, len(ids) - held + held // 2]
    train, val, test = np.split(ids, ends)
    parts: dict[Split, Ints] = {"train": train, "val": val, "test": test}
    for split, part in parts.items():
        if len(part) <= data.context:
            raise DataError(
                f"{name} is too short: its {split} part has {len(part)} characters, but a context of {data.context} "
                f"needs {data.context + 1}; use a longer text or a smaller data.context"
            )
    return Text(parts, characters)


def windows(part: Ints, split: Split, indices: Ints, context: int) -> Ints:
    """[N, context + 1] ids: a random stretch of the part for each (split, index)."""
    starts = below(draws(split, indices, 1)[:, 0], len(part) - context)
    ids: Ints = part[starts[:, None] + np.arange(context + 1)]
    return ids


def stretches(part: Ints, count: int, context: int) -> Ints:
    """[N ≤ count, context + 1] ids: non-overlapping stretches, spread over the whole part."""
    starts = np.arange(0, len(part) - context, context)
    chosen = starts[np.unique(np.linspace(0, len(starts) - 1, min(count, len(starts))).astype(np.int64))]
    ids: Ints = part[chosen[:, None] + np.arange(context + 1)]
    return ids


@lru_cache(maxsize=1)
def generated() -> str:
    """Sentences of the roles grammar in the order of speech; the same text always."""
    drawn = roles.batch(_ORDERED, "train", np.arange(SENTENCES))
    return "\n".join(
        _sentence(words[present]) for words, present in zip(drawn.fields[..., roles.WORD], drawn.present, strict=True)
    )


def _sentence(words: Ints) -> str:
    known = [VOCABULARY[word] for word in words if not VOCABULARY[word].startswith("<")]
    return " ".join(known) + "." if all(word.isascii() for word in known) else "".join(known) + "。"


def _read(path: str) -> str:
    file = below_root(data_root(path), path)
    if not file.is_file():
        raise DataError(f"{path}: there is no such file below the data root", "spec")
    try:
        if file.stat().st_size > LARGEST:
            raise DataError(f"{path}: the file is larger than {LARGEST // 2**20} MiB; use a smaller one")
        content = file.read_bytes()
        digest.read(path, content)
        return decoded(content).replace("\r\n", "\n")
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None


def _encoded(text: str, characters: int) -> tuple[Ints, tuple[str, ...]]:
    """Ids and characters, the most frequent first; equally frequent ones in the order of Unicode."""
    counts = Counter(text)
    kept = sorted(counts, key=lambda character: (-counts[character], character))[: characters - 1]
    ids = {character: index for index, character in enumerate(kept, 1)}
    return np.array([ids.get(character, OTHER) for character in text], np.int64), ("�", *kept)
