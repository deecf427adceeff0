"""Words, cases and relations of the roles grammar, and the parser of typed sentences.

A clause is subject, modal, verb, object: 我 爱 吃 苹果. A sentence has one clause or two. Every token has a
case marker beside its word, which names its case and its clause, so that words may be shuffled.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

PAD, UNKNOWN = 0, 1
SUBJECT, MODAL, VERB, OBJECT = range(4)  # roles, in the order of speech
CLAUSES = 2
LENGTH = 4 * CLAUSES  # tokens of the longest sentence

PEOPLE = {"zh": ("我", "他", "妈妈", "爸爸", "老师", "孩子"), "en": ("I", "he", "mum", "dad", "teacher", "child")}
MODALS = {"zh": ("爱", "想", "要", "会", "敢"), "en": ("love", "wish", "want", "know", "dare")}
VERBS = {  # each with its objects; 看 and 找 also take people
    "zh": {
        "吃": ("苹果", "米饭", "面包"), "喝": ("水", "茶", "牛奶"),
        "买": ("书", "衣服", "苹果", "茶"),
        "看": ("书", "电影", *PEOPLE["zh"]), "找": ("衣服", "车", *PEOPLE["zh"]),
    },
    "en": {
        "eat": ("apples", "rice", "bread"), "drink": ("water", "tea", "milk"),
        "buy": ("books", "clothes", "apples", "tea"),
        "watch": ("books", "films", *PEOPLE["en"]), "find": ("clothes", "cars", *PEOPLE["en"]),
    },
}  # fmt: skip
LANGUAGES = ("zh", "en")

_ALL = chain.from_iterable(
    (*PEOPLE[tongue], *MODALS[tongue], *VERBS[tongue], *chain.from_iterable(VERBS[tongue].values()))
    for tongue in LANGUAGES
)
VOCABULARY = ("<pad>", "<unknown>", *dict.fromkeys(_ALL))
IDS = {word: index for index, word in enumerate(VOCABULARY)}
_BY_LOWER = {word.lower(): index for word, index in IDS.items()}
_LONGEST = max(len(word) for word in VOCABULARY if not word.isascii())
_MODALS = {IDS[word] for tongue in LANGUAGES for word in MODALS[tongue]}
_VERBS = {IDS[word] for tongue in LANGUAGES for word in VERBS[tongue]}

# Case markers: a noun's tells subject from object, a predicate's only its clause.
CASES = ("", "主甲", "谓甲", "宾甲", "主乙", "谓乙", "宾乙")
_CASE_OF_ROLE = (1, 2, 2, 3)
MARKERS = {marker: index for index, marker in enumerate(CASES) if marker} | {"主": 1, "谓": 2, "宾": 3}

# The notes' relations (section 2.1): 我→爱, 爱→我/吃, 吃→我/苹果, 苹果→吃. TARGET is the one that training supervises.
TARGET = {SUBJECT: MODAL, MODAL: VERB, VERB: SUBJECT, OBJECT: VERB}
GOLD = {SUBJECT: (MODAL,), MODAL: (SUBJECT, VERB), VERB: (SUBJECT, OBJECT), OBJECT: (VERB,)}


def case(role: int, clause: int) -> int:
    """Id of the marker of a role in a clause (0 or 1)."""
    return _CASE_OF_ROLE[role] + 3 * clause


@dataclass(frozen=True)
class Sentence:
    """A typed sentence as the model reads it."""

    labels: tuple[str, ...]  # the words as typed, for display
    words: tuple[int, ...]
    cases: tuple[int, ...]
    unknown: tuple[str, ...]  # not in the vocabulary

    @property
    def markers(self) -> tuple[str, ...]:
        return tuple(CASES[case] for case in self.cases)


def read(text: str) -> Sentence:
    """Tokens of a typed sentence: `我 爱 吃 苹果`, `我爱吃苹果` and `I love eat apples` are equal. A marker may follow
    its word after a slash (`苹果/宾 吃 我/主 爱`). Without any, order decides: a noun before its verb is a subject,
    one after it an object, and what follows an object opens the second clause.

    Raises ValueError for an empty text and for more than LENGTH tokens.
    """
    tokens = _tokens(text)
    if not tokens:
        raise ValueError("text: it is empty; type a sentence such as 我 爱 吃 苹果")
    if len(tokens) > LENGTH:
        raise ValueError(f"text: a sentence has at most {LENGTH} tokens, this one has {len(tokens)}")
    labels, given = zip(*tokens, strict=True)
    words = tuple(_BY_LOWER.get(label.lower(), UNKNOWN) for label in labels)
    unknown = tuple(label for label, word in zip(labels, words, strict=True) if word == UNKNOWN)
    return Sentence(labels, words, tuple(_cases(words, given)), unknown)


def _tokens(text: str) -> list[tuple[str, int]]:
    """Words without punctuation; each with its marker, 0 if none is typed."""
    chunks = text.replace("，", " ").replace(",", " ").split()
    pieces = [(label.rstrip("。.!！?？"), marker) for chunk in chunks for label, marker in _pieces(chunk)]
    return [(label, marker) for label, marker in pieces if label]


def _pieces(chunk: str) -> list[tuple[str, int]]:
    """A chunk between spaces, split into the longest known words; a marker belongs to the last one."""
    chunk, _, marker = chunk.partition("/")
    pieces = [chunk] if chunk.isascii() or chunk in IDS else _split(chunk)
    return [*((piece, 0) for piece in pieces[:-1]), (pieces[-1], MARKERS.get(marker, 0))]


def _split(chunk: str) -> list[str]:
    pieces: list[str] = []
    unknown = False  # the last piece is unknown and grows
    while chunk:
        size = next((size for size in range(min(_LONGEST, len(chunk)), 0, -1) if chunk[:size] in IDS), 0)
        if size == 0 and unknown:
            pieces[-1] += chunk[0]
        else:
            pieces.append(chunk[: size or 1])
        unknown, chunk = size == 0, chunk[size or 1 :]
    return pieces


def _cases(words: tuple[int, ...], given: tuple[int, ...]) -> list[int]:
    """Typed markers, and the rest by the order of speech; with typed markers there is one clause."""
    cases: list[int] = []
    clause, role = 0, SUBJECT  # role: the last one read
    for word, marker in zip(words, given, strict=True):
        here = MODAL if word in _MODALS else VERB if word in _VERBS else OBJECT if role >= VERB else SUBJECT
        if role == OBJECT and not any(given):  # the clause is complete
            clause, here = min(clause + 1, CLAUSES - 1), SUBJECT if here == OBJECT else here
        role = here
        cases.append(marker or case(here, clause))
    return cases
