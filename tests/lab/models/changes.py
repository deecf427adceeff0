"""Oracle 2: what a change of a weight changes in the attention that the model itself computes.

Which head. New values in the entries called head h's W_q or W_k have to change the attention weights of head h, in the
order of the heads, and of no other; W_v's have to change the values of head h and no product of queries and keys.

Queries or keys. The entries are changed for one token alone. A query is compared with every key: its row of the scores
changes, one row and many columns. A key is compared with every query: one column and many rows. That holds under
rotation, norms, biases and masks, which all act on each query or key for itself, and it does not depend on which
token was taken. Summed over tokens, rows are fewer than columns for queries and more for keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tests.lab.models.seeing import Softmax, seeing, storage

Heads = Sequence[Tensor]  # flat places in the parameter that each head owns
FEW = 4  # queries and keys that a pooling of three by three makes of all tokens together
TOKENS = 6  # of these at most one is changed at a time
MASKED = 1e4
MULTIPLIES = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::convolution", "aten::_convolution",
              "aten::mv", "aten::addmv")  # fmt: skip


@dataclass(frozen=True)
class Claim:
    """What is said to be one matrix: of which parameter, and which places each head owns."""

    parameter: nn.Parameter
    heads: Heads

    def changed(self, heads: Iterator[int] | Sequence[int]) -> Tensor:
        """The parameter with other values at what these heads own."""
        places = torch.cat([self.heads[head] for head in heads])
        new = self.parameter.detach().clone(memory_format=torch.contiguous_format)
        noise = torch.randn(len(places), generator=torch.Generator().manual_seed(len(places)))
        size = max(float(self.parameter.detach().abs().mean()), 0.05)
        new.view(-1)[places] += (3 * size * noise).to(new.dtype)
        return new

    def same_as(self, other: Claim) -> bool:
        return self.parameter is other.parameter and torch.equal(torch.cat([*self.heads]), torch.cat([*other.heads]))


Claims = dict[str, Claim]


def wrong_by_changes(
    model: nn.Module, run: Callable[[], object], site: str, claims: Claims, *, heads_apart: bool = True
) -> str:
    """What is wrong with the claims about a site; empty where nothing is. Every attention of the site's first call is
    asked; a head may take part in some of them only, as in differential attention, and W_q in those of W_k. Without
    `heads_apart` only the matrices as wholes are (a norm across heads)."""
    before = of_site(model, run, site)
    if not before:
        return "no attention ran in it"
    asked: dict[str, set[int]] = {}
    for role in ("W_q", "W_k", "W_v"):
        claim, used = claims[role], set[int]()
        groups = [[head] for head in range(len(claim.heads))] if heads_apart else [list(range(len(claim.heads)))]
        marks = []
        for group in groups:
            with put(claim.parameter, claim.changed(group)):
                marks.append(of_site(model, run, site))
        for place, event in enumerate(before):
            after = [each[place] for each in marks if len(each) == len(before)]
            if len(after) < len(marks):
                return f"{role}: changing it changes how often attention runs"
            moved = _moved_by(role, event, after, are_keys=claims["W_k"].same_as(claims["W_v"]))
            if isinstance(moved, str):
                return f"{role}: {moved}"
            active = {head: each for head, each in enumerate(moved) if bool(each.any())}
            if active and heads_apart and not _are_apart(role, event, list(active.values())):
                return f"{role}: a head changes others than itself"
            used |= set(active)
            asked.setdefault(role, set()).update([place] if active else [])
        if idle := set(range(len(groups))) - used:
            return f"{role}: head {min(idle)} changes nothing"
    if asked["W_q"] != asked["W_k"]:
        return "W_q and W_k take part in different attentions"
    return _directions(model, run, site, claims, before, asked["W_q"])


def of_site(model: nn.Module, run: Callable[[], object], site: str, change: Any = None) -> list[Softmax]:
    """The attention inside the site's first call."""
    torch.manual_seed(0)
    with torch.no_grad(), seeing(model, change) as seen:
        run()
    return [each for each in seen.softmaxes if each.is_attention and (site, 0) in each.path]


@contextmanager
def put(parameter: nn.Parameter, values: Tensor) -> Iterator[None]:
    was = parameter.detach().clone()
    with torch.no_grad():
        parameter.copy_(values)
    try:
        yield
    finally:
        with torch.no_grad():
            parameter.copy_(was)


def differs(one: Tensor, other: Tensor) -> Tensor:
    """Where two tensors differ by more than rounding, which what is masked out by a large number does not set."""
    plain = one[one.abs() < MASKED]
    size = plain.abs().max() if len(plain) else one.new_ones(())
    return ((one - other).abs() > 2e-5 * size) & (one != other)


def _moved_by(role: str, before: Softmax, after: list[Softmax], *, are_keys: bool) -> list[Tensor] | str:
    """What each head's change moves: of the scores, or of what is mixed; else what is wrong. Values may be the keys."""
    moved = [differs(before.scores, each.scores) for each in after]  # one key's weight is 1 whatever its score is
    if role != "W_v":
        return moved
    # A mask may be made of values (Doge): what no value enters is the product of queries and keys.
    if not are_keys and any(bool(differs(before.product, each.product).any()) for each in after):
        return "changes the product of queries and keys"
    return [differs(before.value, each.value) for each in after]


def _are_apart(role: str, before: Softmax, moved: list[Tensor]) -> bool:
    return any(_in_order(moved, axis) for axis in range(moved[0].ndim) if role == "W_v" or axis != before.dim)


def _in_order(moved: list[Tensor], axis: int) -> bool:
    """Whether the heads lie along this axis in their order, alone or with samples: each changes its own places and all
    of these. Heads of queries that share one of keys lie together or take turns."""
    size, count = moved[0].shape[axis], len(moved)
    others = [each for each in range(moved[0].ndim) if each != axis]
    found = torch.stack([each.any(dim=others) if others else each for each in moved])  # [heads, size]
    if size % count:
        return False
    places = torch.arange(size)
    for inner in (each for each in range(1, size // count + 1) if size % (count * each) == 0):
        owner = places // inner % count
        wanted = owner == torch.arange(count)[:, None]
        if not bool((found & ~wanted).any()) and bool((found & wanted).any(1).all()) and _fills(found, wanted):
            return True
    return False


def _fills(found: Tensor, wanted: Tensor) -> bool:
    """Most of a head's places change: all, but for samples and windows that are masked."""
    return bool((found.sum() * 2 >= wanted.sum()).item())


def _directions(
    model: nn.Module, run: Callable[[], object], site: str, claims: Claims, before: list[Softmax], asked: set[int]
) -> str:
    """Of the attentions in these places: queries change rows, keys columns; nothing where both are one and the same
    matrix."""
    query, key = claims["W_q"], claims["W_k"]
    if query.same_as(key):
        return ""
    for role, claim in (("W_q", query), ("W_k", key)):
        rows, columns = rows_and_columns(model, run, site, claim, before)
        if rows == columns and any(_shape(event)[0] > 1 and _shape(event)[1] > 2 for event in before):
            # Attention between channels: a channel of queries is a row of the scores, one of keys a column.
            rows, columns = of_channels(model, run, site, claim, before)
        for place in sorted(asked):
            if wrong := _of_direction(role, before[place], rows[place], columns[place]):
                return f"{role}: {wrong}"
    return ""


def _of_direction(role: str, event: Softmax, rows: int, columns: int) -> str:
    queries, keys = _shape(event)
    if keys == 1 or (queries == 1 and keys == 2):  # up to a shift of all its scores nothing tells a query from a key
        return ""
    if not rows and not columns:  # but single scores: one token among keys that are all alike (padding)
        return ""
    if rows == columns and queries > 1 and keys > 2:
        return "rows and columns change alike"
    # Where one query asks, a key changes the one row and one column. Of two keys, up to a shift, a query changes one.
    asks = rows < columns or (keys == 2 and rows == columns)
    if asks == (role == "W_q") or _is_pooled(role, event, rows, columns):
        return ""
    return f"changes {'rows' if asks else 'columns'} of the scores"


def _is_pooled(role: str, event: Softmax, rows: int, columns: int) -> bool:
    """Whether a pooling hands each token on to its neighbours (MViT), so that shares tell what counts do not: a key is
    in a larger share of the rows than of the columns. Where four tokens are left, each is in all."""
    queries, keys = _shape(event)
    asks, answers = columns * queries > rows * keys, columns * queries < rows * keys
    return max(queries, keys) <= FEW or (queries > 1 and (asks if role == "W_q" else answers))


def rows_and_columns(
    model: nn.Module, run: Callable[[], object], site: str, claim: Claim, before: list[Softmax]
) -> tuple[list[int], list[int]]:
    """Summed over tokens that are changed alone, for each attention: rows and columns of the scores that change."""
    rows, columns = [0] * len(before), [0] * len(before)
    count = _Counting(claim)
    of_site(model, run, site, count)
    for call, tokens in enumerate(count.tokens):
        for token in _some(tokens):
            after = of_site(model, run, site, _ForOneToken(claim, call, token))
            _count(rows, columns, before, after)
    return rows, columns


def of_channels(
    model: nn.Module, run: Callable[[], object], site: str, claim: Claim, before: list[Softmax]
) -> tuple[list[int], list[int]]:
    """As `rows_and_columns`, with single channels changed for all tokens."""
    rows, columns = [0] * len(before), [0] * len(before)
    inputs = claim.parameter[0].numel()
    own = claim.heads[0] // inputs
    for channel in own.unique()[:TOKENS]:
        alone = Claim(claim.parameter, [claim.heads[0][own == channel]])
        with put(claim.parameter, alone.changed([0])):
            _count(rows, columns, before, of_site(model, run, site))
    return rows, columns


def _count(rows: list[int], columns: list[int], before: list[Softmax], after: list[Softmax]) -> None:
    for place, (one, other) in enumerate(zip(before, after, strict=False)):
        moved = _moved(one, other).movedim(_query_axis(one), -2)
        moved = moved.reshape(-1, *moved.shape[-2:])
        moved = moved[moved.flatten(1).sum(1).argmax()] if len(moved) else moved.any(0)
        if int(moved.sum()) > 1:  # a single score lies in one row and in one column
            rows[place] += int(moved.any(-1).sum())
            columns[place] += int(moved.any(-2).sum())


def _moved(before: Softmax, after: Softmax) -> Tensor:
    """Where scores differ, keys last. A shift of all scores of a query is no difference, since softmax takes none from
    it (some subtract the largest beforehand): of each row the median of the differences is taken off."""
    one, other = (each.scores.float().movedim(before.dim, -1) for each in (before, after))
    shown = (one > -MASKED) & (other > -MASKED)
    by = torch.where(shown, other - one, torch.nan)
    alone = (by - by.nanmedian(-1, keepdim=True).values).nan_to_num(0.0)
    found = differs(one, one + alone) & shown
    # Keys that are all alike (messages of XCLIP) leave nothing but the shift to a query.
    return found if bool(found.any()) else differs(one, one + by.nan_to_num(0.0)) & shown


def _shape(event: Softmax) -> tuple[int, int]:
    """How many queries and keys."""
    queries, keys = event.scores.movedim(event.dim, -1).movedim(_query_axis(event), -2).shape[-2:]
    return queries, keys


def _query_axis(event: Softmax) -> int:
    """Of the scores with the keys last: the axis that mixed values have instead of keys. It is the one before, but for
    layouts such as [batch, tokens, heads, keys]."""
    shape = event.scores.movedim(event.dim, -1).shape
    if event.mixed is not None and event.fed is not None and event.fed.ndim == 3:
        asked = event.fed.shape[1 if event.over[0] == -1 else 2]
        fitting = [axis for axis in range(len(shape) - 1) if shape[axis] == asked]
        if fitting and len(shape) - 2 not in fitting:
            return fitting[-1]
    return len(shape) - 2


def _some(tokens: int) -> list[int]:
    if tokens <= TOKENS:
        return list(range(tokens))
    return sorted({round(place * (tokens - 1) / (TOKENS - 1)) for place in range(TOKENS)})


class _Counting:
    """How many tokens each product with the weight has."""

    def __init__(self, claim: Claim) -> None:
        self.weight, self.tokens = storage(claim.parameter), list[int]()

    def __call__(self, func: Any, args: tuple[Any, ...], given: dict[str, Any], out: Tensor) -> Tensor:
        if func._schema.name in MULTIPLIES and len(self.tokens) < 2:
            place = _place(args, self.weight)
            if place is not None:
                self.tokens.append(out.numel() // out.shape[_channels(func, args, place, out)])
        return out


class _ForOneToken:
    """In one call of the product with the weight, one token meets the changed one."""

    def __init__(self, claim: Claim, call: int, token: int) -> None:
        self.weight, self.call, self.token = storage(claim.parameter), call, token
        self.base = claim.parameter.detach()
        self.changed = torch.empty_strided(self.base.size(), self.base.stride(), dtype=self.base.dtype)
        self.changed.copy_(claim.changed(range(len(claim.heads))))
        self.calls = -1

    def __call__(self, func: Any, args: tuple[Any, ...], given: dict[str, Any], out: Tensor) -> Tensor:
        if func._schema.name not in MULTIPLIES:
            return out
        place = _place(args, self.weight)
        if place is None:
            return out
        self.calls += 1
        if self.calls != self.call:
            return out
        view = args[place]
        offset = view.storage_offset() - self.base.storage_offset()
        other = self.changed.as_strided(view.size(), view.stride(), offset)
        anew = func(*args[:place], other, *args[place + 1 :], **given)
        channels = _channels(func, args, place, out)
        mixed = out.movedim(channels, -1).clone()
        rows = mixed.reshape(-1, mixed.shape[-1])
        rows[self.token] = anew.movedim(channels, -1).reshape(rows.shape)[self.token]
        new = rows.view(mixed.shape).movedim(-1, channels)
        return torch.empty_like(out).copy_(new)


def _place(args: tuple[Any, ...], weight: int) -> int | None:
    return next(
        (at for at, each in enumerate(args) if isinstance(each, Tensor) and each.ndim > 1 and storage(each) == weight),
        None,
    )


def _channels(func: Any, args: tuple[Any, ...], place: int, out: Tensor) -> int:
    """The axis of the result that the weight's outputs lie along."""
    name = func._schema.name
    if "conv" in name:
        return 1
    first = 1 if "add" in name else 0
    return out.ndim - 1 if place == first + 1 else out.ndim - 2
