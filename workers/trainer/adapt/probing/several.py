"""All the attention of one module: what its calls read of the same weights together, and which are of other weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import torch
from torch import Tensor, nn

from .measuring import Measured, Owned, Rows, measured
from .products import Operand
from .tracing import Event, Fed

ROLES = ("W_q", "W_k", "W_v")
Weights = Mapping[str, nn.Parameter]
Reading = dict[str, Owned]
Reach = dict[int, Tensor]  # by the identity of a weight: which of its entries an operand depends on

MIXED = "every head depends on whole matrices: a norm across heads, or a latent that heads share"
MIXES = "its heads are mixed with each other between the scores and the values, so that no weight is one head's"
UNFOLLOWED = "computes attention that cannot be taken apart: its values, or over what its softmax goes"


@dataclass
class Call:
    """One attention, the entries that its queries, keys and values depend on, and how each role is laid out, or why
    that cannot be told."""

    event: Event
    reach: list[Reach]
    reading: Reading | str = ""

    @property
    def weights(self) -> dict[str, nn.Parameter]:
        return {} if isinstance(self.reading, str) else {role: each.weight for role, each in self.reading.items()}


@dataclass
class Together:
    """What a module's calls of the site's weights read, `readings` in the order of preference; `others` are calls over
    other weights."""

    calls: list[Call]
    readings: list[Reading]
    others: list[Call] = field(default_factory=list)


def distinct_calls(events: Sequence[Event], weights: Weights, fed: Sequence[Fed]) -> list[Call] | str:
    """The calls that read what no other reads, each measured; else why they cannot be taken apart."""
    if any(event.heads_mixed for event in events):
        return MIXES
    if any(None in (event.query, event.key, event.value) for event in events):
        return UNFOLLOWED
    found: list[Call] = []
    for event in events:
        call = Call(event, [_reached(each, weights) for each in (event.query, event.key, event.value)])
        if not any(_same_reach(call.reach, other.reach) for other in found):
            found.append(call)
    for call in found:
        call.reading = _read(weights, call.event, fed)
    return [call for call in found if not any(_reads_less(call, other) for other in found)]


def together(calls: list[Call], claimed: Mapping[str, nn.Parameter] | None, weights: Weights) -> Together | str:
    """The calls over the claimed weights as one. Without a claim all calls have to be over the same weights."""
    mine = _of_claim(calls, claimed) if claimed else calls
    if unread := next((call.reading for call in mine if isinstance(call.reading, str)), None):
        return unread
    first = mine[0].weights
    if any(call.weights[role] is not first[role] for call in mine for role in ROLES):
        return f"computes {len(calls)} attentions over different weights ({', '.join(_named(calls, weights))})"
    readings = _united([call.reading for call in mine if not isinstance(call.reading, str)])
    if not readings:
        return f"its {len(mine)} calls of attention read parts of the same weights that do not add up to heads"
    return Together(mine, readings, [call for call in calls if not any(call is each for each in mine)])


def _of_claim(calls: list[Call], claimed: Mapping[str, nn.Parameter]) -> list[Call]:
    """The calls that read the claimed weights in the claimed roles; else in any; else all."""
    same = [call for call in calls if call.weights and all(call.weights[role] is claimed[role] for role in ROLES)]
    ids = {id(each) for each in claimed.values()}
    return same or [call for call in calls if {id(each) for each in call.weights.values()} == ids] or calls


def others_of(found: Together, weights: Weights) -> list[str] | None:
    """For each call over other weights the names of these; None where one reads the site's own weights otherwise."""
    own = {id(each.weight) for each in found.readings[0].values()}
    further = {name: each for name, each in weights.items() if id(each) not in own}
    names = [
        ", ".join(_named([call], further) or _named([replace(call, reading="")], further)) for call in found.others
    ]
    return None if "" in names else list(dict.fromkeys(names))


def _named(calls: list[Call], weights: Weights) -> list[str]:
    """The weights that these calls read; all that they depend on where the reading failed."""
    read = {id(each) for call in calls for each in call.weights.values()}
    read |= {key for call in calls if not call.weights for reach in call.reach for key in reach}
    return [name.removesuffix(".weight") for name, each in weights.items() if id(each) in read]


def _united(readings: list[Reading]) -> list[Reading]:
    """The parts that several calls read, as one: heads after each other, or, where calls share what it is compared with
    or weighed by (differential attention), the parts of a head together. Several answers where both fit."""
    found: list[Reading] = [{}]
    for role in ROLES:
        other = "W_q" if role == "W_v" else "W_v"
        shared = {(each[other].dim, each[other].heads) for each in readings}
        parts = list({(each[role].dim, each[role].heads): each[role] for each in readings}.values())
        ways = [_after_each_other(parts)]
        if len(shared) == 1:
            same_count = len(readings[0][other].heads) == len(parts[0].heads)
            ways.insert(0 if same_count else 1, _by_head(parts))
        found = [{**one, role: each} for one in found for each in ways if each is not None]
    return found


def _after_each_other(parts: list[Owned]) -> Owned | None:
    heads = tuple(dict.fromkeys(head for part in parts for head in part.heads))
    return _laid_out(parts, heads)


def _by_head(parts: list[Owned]) -> Owned | None:
    if len({len(part.heads) for part in parts}) > 1:
        return None
    merged = (
        tuple(sorted({row for rows in each for row in rows})) for each in zip(*(p.heads for p in parts), strict=True)
    )
    return _laid_out(parts, tuple(merged))


def _laid_out(parts: list[Owned], heads: tuple[Rows, ...]) -> Owned | None:
    if len({part.dim for part in parts}) > 1 or not are_apart(heads):
        return None
    return Owned(parts[0].weight, parts[0].dim, heads)


def are_apart(heads: Sequence[Rows]) -> bool:
    """Whether heads own equally many entries, and none that another owns."""
    same = len({len(rows) for rows in heads}) == 1
    return same and not any(set(one) & set(other) for one, other in combinations(heads, 2))


def _read(weights: Weights, event: Event, fed: Sequence[Fed]) -> Reading | str:
    """What each role is laid out like; else why it cannot be told."""
    reading = {}
    for role, operand in zip(ROLES, (event.query, event.key, event.value), strict=True):
        assert operand is not None
        told = measured(operand, weights, fed)
        if not told.owned and told.mixed:
            return MIXED
        if len(told.owned) != 1:
            return _why(role, told)
        reading[role] = told.owned[0]
    return _with_added(reading, weights, event, fed)


def _with_added(reading: Reading, weights: Weights, event: Event, fed: Sequence[Fed]) -> Reading | str:
    """Scores may be a sum of products: of further parts of the same weights, which belong to the same heads, or of
    something else, such as positions."""
    for sides in event.added:
        for role, operand in zip(ROLES, sides, strict=False):
            parts = [each for each in measured(operand, weights, fed).owned if each.weight is reading[role].weight]
            known = {
                row
                for each in reading.values()
                if each.weight is reading[role].weight
                for rows in each.heads
                for row in rows
            }
            for part in parts:
                if {row for rows in part.heads for row in rows} <= known:
                    continue
                if (merged := _by_head([reading[role], part])) is None:
                    return "its scores are a sum of products over parts of the same weight that do not add up to heads"
                reading[role] = merged
    return reading


def _why(role: str, told: Measured) -> str:
    what = {"W_q": "queries", "W_k": "keys", "W_v": "values"}[role]
    if not told.owned:
        return f"its {what} come from no weight of this module"
    return f"its {what} come from {len(told.owned)} weights side by side"


def _reached(operand: Operand | None, weights: Weights) -> Reach:
    if operand is None or not operand.tensor.requires_grad:
        return {}
    noise = torch.randn_like(operand.tensor)
    found: tuple[Tensor | None, ...] = torch.autograd.grad(
        operand.tensor, list(weights.values()), noise, retain_graph=True, allow_unused=True
    )
    dense = (None if each is None else each.to_dense() if each.is_sparse else each for each in found)
    return {id(weight): each != 0 for weight, each in zip(weights.values(), dense, strict=True) if each is not None}


def _same_reach(one: list[Reach], other: list[Reach]) -> bool:
    return all(
        first.keys() == second.keys() and all(torch.equal(mask, second[key]) for key, mask in first.items())
        for first, second in zip(one, other, strict=True)
    )


def _reads_less(call: Call, other: Call) -> bool:
    """Whether a call reads some of what another reads, and no more."""
    if isinstance(call.reading, str) or isinstance(other.reading, str) or call is other:
        return False
    pairs = [(call.reading[role], other.reading[role]) for role in ROLES]
    if any(one.weight is not more.weight or one.dim != more.dim for one, more in pairs):
        return False
    less, more_entries = (
        [{row for rows in each.heads for row in rows} for each in side] for side in zip(*pairs, strict=True)
    )
    return less != more_entries and all(one <= more for one, more in zip(less, more_entries, strict=True))
