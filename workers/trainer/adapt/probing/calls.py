"""All attention calls of one module: those over the site's weights combined, and those over other weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

import torch
from torch import Tensor, nn

from .measuring import Indices, Measured, Owned, are_apart, derivatives, measured, merged
from .products import Operand
from .tracing import Event, Projection

ROLES = ("W_q", "W_k", "W_v")
Weights = Mapping[str, nn.Parameter]
Layout = dict[str, Owned]
Reach = dict[int, Tensor]  # by the identity of a weight: which of its entries an operand depends on

MIXED = "every head depends on whole matrices: a norm across heads, or a latent that heads share"
MIXES = "its heads are mixed with each other between the scores and the values, so that no weight is one head's"
UNFOLLOWED = "computes attention whose operands cannot be identified: its values, or the axis of its softmax"


@dataclass(eq=False)
class Call:
    """One call of attention, the entries that its queries, keys and values depend on, and the layout of each role, or
    why it cannot be measured."""

    event: Event
    reach: list[Reach]
    layout: Layout | str = ""

    @property
    def weights(self) -> dict[str, nn.Parameter]:
        return {} if isinstance(self.layout, str) else {role: each.weight for role, each in self.layout.items()}

    @property
    def weight_ids(self) -> list[int]:
        return [id(weight) for weight in self.weights.values()]


@dataclass
class Combined:
    """A module's calls over the site's weights, with possible `layouts`, the preferred one first; `others` are calls
    over other weights."""

    calls: list[Call]
    layouts: list[Layout]
    others: list[Call] = field(default_factory=list)


def distinct_calls(events: Sequence[Event], weights: Weights, projections: Sequence[Projection]) -> list[Call] | str:
    """The calls over distinct entries, each measured; otherwise why they cannot be measured."""
    if any(event.heads_mixed for event in events):
        return MIXES
    if any(None in event.operands for event in events):
        return UNFOLLOWED
    calls: list[Call] = []
    for event in events:
        call = Call(event, [_reached(operand, weights) for operand in event.operands])
        if not any(_same_reach(call.reach, other.reach) for other in calls):
            calls.append(call)
    for call in calls:
        call.layout = _layout(weights, call.event, projections)
    return _without_subsets(calls)


def _without_subsets(calls: list[Call]) -> list[Call]:
    return [call for call in calls if not any(_reads_less(call, other) for other in calls)]


def combined(calls: list[Call], claimed: Mapping[str, nn.Parameter] | None, weights: Weights) -> Combined | str:
    """The calls over the claimed weights as one. Without a claim all calls must be over the same weights."""
    own = _of_claim(calls, claimed) if claimed else calls
    layouts = []
    for call in own:
        if isinstance(call.layout, str):
            return call.layout
        layouts.append(call.layout)
    if any(call.weight_ids != own[0].weight_ids for call in own):
        return f"computes {len(calls)} attentions over different weights ({', '.join(_named(calls, weights))})"
    if not (options := _combined_layouts(layouts)):
        return f"its {len(own)} calls of attention read parts of the same weights that do not add up to heads"
    return Combined(own, options, [call for call in calls if call not in own])


def _of_claim(calls: list[Call], claimed: Mapping[str, nn.Parameter]) -> list[Call]:
    """The calls over the claimed weights in the claimed roles; else in any roles; else all calls."""
    same = [call for call in calls if call.weights and all(call.weights[role] is claimed[role] for role in ROLES)]
    ids = {id(each) for each in claimed.values()}
    return same or [call for call in calls if set(call.weight_ids) == ids] or calls


def others_of(combined: Combined, weights: Weights) -> list[str] | None:
    """For each call over other weights their names; None where one uses the site's weights in another way."""
    own = {id(owned.weight) for owned in combined.layouts[0].values()}
    further = {name: weight for name, weight in weights.items() if id(weight) not in own}
    names = [
        ", ".join(_named([call], further) or _named([replace(call, layout="")], further)) for call in combined.others
    ]
    return None if "" in names else list(dict.fromkeys(names))


def _named(calls: list[Call], weights: Weights) -> list[str]:
    """The weights that these calls read; all that they depend on where the layout is unknown."""
    read = {id(each) for call in calls for each in call.weights.values()}
    read |= {key for call in calls if not call.weights for reach in call.reach for key in reach}
    return [name.removesuffix(".weight") for name, weight in weights.items() if id(weight) in read]


def _combined_layouts(layouts: list[Layout]) -> list[Layout]:
    """The layouts of several calls as one: their heads after each other, or, where calls share the other operand
    (differential attention), merged head by head. Several where both fit."""
    combinations: list[Layout] = [{}]
    for role in ROLES:
        options = _options(role, layouts)
        combinations = [{**layout, role: owned} for layout in combinations for owned in options]
    return combinations


def _options(role: str, layouts: list[Layout]) -> list[Owned]:
    other = "W_q" if role == "W_v" else "W_v"
    shared = {(layout[other].dim, layout[other].heads) for layout in layouts}
    parts = list({(layout[role].dim, layout[role].heads): layout[role] for layout in layouts}.values())
    options = [_with_heads(parts, tuple(dict.fromkeys(chain.from_iterable(part.heads for part in parts))))]
    if len(shared) == 1:
        same_count = len(layouts[0][other].heads) == len(parts[0].heads)
        options.insert(0 if same_count else 1, _by_head(parts))
    return [option for option in options if option is not None]


def _by_head(parts: list[Owned]) -> Owned | None:
    if len({len(part.heads) for part in parts}) > 1:
        return None
    return _with_heads(parts, tuple(map(merged, zip(*(part.heads for part in parts), strict=True))))


def _with_heads(parts: list[Owned], heads: tuple[Indices, ...]) -> Owned | None:
    if len({part.dim for part in parts}) > 1 or not are_apart(heads):
        return None
    return replace(parts[0], heads=heads)


def _layout(weights: Weights, event: Event, projections: Sequence[Projection]) -> Layout | str:
    """The layout of each role; otherwise why it cannot be measured."""
    layout = {}
    for role, operand in zip(ROLES, event.operands, strict=True):
        assert operand is not None
        dependence = measured(operand, weights, projections)
        if not dependence.owned and dependence.mixed:
            return MIXED
        if len(dependence.owned) != 1:
            return _why(role, dependence)
        layout[role] = dependence.owned[0]
    return _with_added(layout, weights, event, projections)


def _with_added(layout: Layout, weights: Weights, event: Event, projections: Sequence[Projection]) -> Layout | str:
    """Scores may be a sum of products: of further parts of the same weights, which belong to the same heads, or of
    something else, such as positions."""
    for sides in event.added:
        for role, operand in zip(ROLES, sides, strict=False):
            weight = layout[role].weight
            parts = [each for each in measured(operand, weights, projections).owned if each.weight is weight]
            known = set[int]().union(*(owned.entries for owned in layout.values() if owned.weight is weight))
            for part in parts:
                if part.entries <= known:
                    continue
                if (whole := _by_head([layout[role], part])) is None:
                    return "its scores are a sum of products over parts of the same weight that do not add up to heads"
                layout[role] = whole
    return layout


def _why(role: str, dependence: Measured) -> str:
    operands = {"W_q": "queries", "W_k": "keys", "W_v": "values"}[role]
    if not dependence.owned:
        return f"its {operands} come from no weight of this module"
    return f"its {operands} come from {len(dependence.owned)} weights side by side"


def _reached(operand: Operand | None, weights: Weights) -> Reach:
    if operand is None or not operand.tensor.requires_grad:
        return {}
    gradients = derivatives(operand, (), list(weights.values()))
    pairs = zip(weights.values(), gradients, strict=True)
    return {id(weight): gradient != 0 for weight, gradient in pairs if gradient is not None}


def _same_reach(first: list[Reach], second: list[Reach]) -> bool:
    return all(
        one.keys() == other.keys() and all(torch.equal(mask, other[key]) for key, mask in one.items())
        for one, other in zip(first, second, strict=True)
    )


def _reads_less(call: Call, other: Call) -> bool:
    """Whether the entries of a call are a proper subset of another's."""
    if isinstance(call.layout, str) or isinstance(other.layout, str) or call is other:
        return False
    pairs = [(call.layout[role], other.layout[role]) for role in ROLES]
    return all(_is_part(*pair) for pair in pairs) and any(own.entries != more.entries for own, more in pairs)


def _is_part(own: Owned, more: Owned) -> bool:
    return own.weight is more.weight and own.dim == more.dim and own.entries <= more.entries
