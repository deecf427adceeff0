"""What the attention of a model that is not ours does, seen from outside.

While a site runs, calls of `scaled_dot_product_attention` (Q and K as they are compared: after rotation, norms and
grouping) and of `softmax` over its last dimension are read on their way. The map is made in fp32 a stretch of
askers at a time, reduced on the device and dropped. Fused kernels of other libraries show nothing.

Shapes: B batch, H heads (B·H in one where a library folds them), T askers, S answerers, D columns of a head.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from workers.trainer.adapt.evaluating import eager, evaluating
from workers.trainer.adapt.probing.tracing import LOGS, SDPA, SOFTMAX, no_fast_path

from .attachment import ForeignSite, attached
from .maps import masked_softmax, normalized_entropy
from .masks import Masks, allowed_keys, two_valued

LARGEST = 2**26  # elements of a map that are looked at together: 256 MiB in fp32
F_SOFTMAX = F.softmax


@dataclass(frozen=True)
class AttentionStats:
    """One run of a site, on the device. `entropy` is the mean of −Σ A ln A ÷ ln(allowed keys) over the queries, `count`
    of them, that have an allowed key, `logit_max` the largest logit that is allowed; both are NaN where no query has
    one. They are of all attention in the run, `weights` of the last: the map [B, H, T, S] in fp32, if asked for."""

    entropy: Tensor
    logit_max: Tensor
    count: Tensor
    heads: int
    weights: Tensor | None = None


@contextmanager
def watched(
    model: nn.Module, *, maps: Collection[str] = (), as_is: bool = False
) -> Iterator[dict[str, AttentionStats]]:
    """Inside, every site's last call is kept under its name; a site that does not run is missing. Of the sites in
    `maps` the whole map is kept: ask for few. The model is in evaluation mode inside, so that what is seen depends on
    its weights alone, and random state comes out as it went in; with `as_is` it stays in its own mode."""
    seen: dict[str, AttentionStats] = {}
    with ExitStack() as stack:
        sites = attached(model)
        stack.enter_context(eager() if as_is else evaluating(model))
        if sites:
            reader = _Reader(seen, maps)
            for site in sites.values():
                _follow(stack, site, reader)
            stack.enter_context(no_fast_path())
            stack.enter_context(reader)
        yield seen


def _follow(stack: ExitStack, site: ForeignSite, reader: _Reader) -> None:
    """Keep the name of the site that runs at the end of `running`."""

    def enter(_module: nn.Module, _args: Any) -> None:
        reader.running.append(site.name)
        reader.begun.add(site.name)
        reader.masks.clear()

    def leave(_module: nn.Module, _args: Any, _out: Any) -> None:
        reader.running.pop()
        reader.masks.clear()

    stack.callback(site.module.register_forward_pre_hook(enter).remove)
    stack.callback(site.module.register_forward_hook(leave, always_call=True).remove)


class _Reader(TorchFunctionMode):
    def __init__(self, seen: dict[str, AttentionStats], maps: Collection[str]) -> None:
        super().__init__()
        self.seen, self.maps = seen, maps
        self.running: list[str] = []
        self.begun: set[str] = set()  # sites in whose present run no attention was seen yet
        self.masks = Masks()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if func is F.multi_head_attention_forward:  # torch's own: inside it, calls pass no mode
            with self._in_place_of_torchs():
                return func(*args, **given)
        self._read(func, args, given)
        out = func(*args, **given)
        if self.running:
            with torch.no_grad():
                self.masks.note(func, args, given, out)
        return out

    def _read(self, func: Callable[..., Any], args: tuple[Any, ...], given: Mapping[str, Any]) -> None:
        if not self.running:
            return
        site = self.running[-1]
        if func is SDPA:
            self._add(site, of_call(*args, **given, keep=site in self.maps, masks=self.masks))
        elif func in (*SOFTMAX, *LOGS) and (found := _of_softmax(args, given, site in self.maps, self.masks)):
            self._add(site, found)

    def _add(self, site: str, found: AttentionStats) -> None:
        """A module may call attention several times in one run: for each head, say, or for stretches of queries."""
        again = site in self.seen and site not in self.begun
        self.begun.discard(site)
        self.seen[site] = _both(self.seen[site], found) if again else found

    @contextmanager
    def _in_place_of_torchs(self) -> Iterator[None]:
        names: dict[str, Callable[..., Any]] = {"scaled_dot_product_attention": SDPA, "softmax": F_SOFTMAX}
        for name, func in names.items():
            setattr(F, name, partial(self._reading, func))
        try:
            yield
        finally:
            for name, func in names.items():
                setattr(F, name, func)

    def _reading(self, func: Callable[..., Any], *args: Any, **given: Any) -> Any:
        self._read(func, args, given)
        return func(*args, **given)


@torch.no_grad()
def of_call(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
    keep: bool = False,
    masks: Masks | None = None,
) -> AttentionStats:
    """What a call of scaled_dot_product_attention compares; takes what it takes. `masks` were noted on the way."""
    q_BHTD, k_BHSD = query.float(), key.float()
    if k_BHSD.shape[-3] != q_BHTD.shape[-3]:  # grouped: several heads of queries share one of keys
        k_BHSD = k_BHSD.repeat_interleave(q_BHTD.shape[-3] // k_BHSD.shape[-3], -3)
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    askers, answerers = q_BHTD.shape[-2], k_BHSD.shape[-2]
    if is_causal:
        attn_mask = torch.ones(askers, answerers, dtype=torch.bool, device=query.device).tril()
    shape = torch.Size((*q_BHTD.shape[:-1], answerers))
    bias = None if attn_mask is None else as_bias(attn_mask).expand(shape)
    blocked = None if bias is None else _blocked(bias, masks)
    step = max(1, LARGEST // max(1, math.prod(q_BHTD.shape[:-2]) * answerers))
    parts = []
    for start in range(0, askers, step):
        rows = slice(start, start + step)
        logits = q_BHTD[..., rows, :] @ k_BHSD.transpose(-2, -1) * factor
        if bias is None or blocked is None:
            parts.append(reduced(logits, None, query.dtype, keep))
        else:
            parts.append(reduced(logits + bias[..., rows, :], blocked[..., rows, :], query.dtype, keep))
    return _together(parts, q_BHTD.shape[-3])


def _blocked(bias: Tensor, masks: Masks | None) -> Tensor:
    """What the mask of a call blocks: its own two values, and what was masked while it was made."""
    noted = masks.on(bias) if masks else None
    own = two_valued(bias)
    return own if noted is None else own | noted


def as_bias(mask: Tensor) -> Tensor:
    """What is added to the logits: a boolean mask is true where asking is allowed."""
    if mask.dtype == torch.bool:
        return torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, -math.inf)
    return mask.float()


@dataclass(frozen=True)
class Rows:
    """A stretch of queries: the sum of the entropies of those that have an allowed key, how many these are, the
    largest allowed logit (−∞ where there is none), and the weights where they are kept."""

    entropy: Tensor
    count: Tensor
    largest: Tensor
    weights: Tensor | None


def reduced(logits: Tensor, blocked: Tensor | None, dtype: torch.dtype, keep: bool) -> Rows:
    """Of logits [..., T, S], masks added, that came in `dtype`; `blocked` is true where a known mask lies."""
    allowed = allowed_keys(logits, blocked, dtype)
    some = allowed.any(-1)
    shown, weights = masked_softmax(logits, allowed)
    entropy = normalized_entropy(weights, allowed.sum(-1))
    return Rows(entropy.sum(), some.sum(), shown.max(), weights if keep else None)


def _both(one: AttentionStats, other: AttentionStats) -> AttentionStats:
    count = one.count + other.count
    sums = [torch.where(each.count > 0, each.entropy * each.count, 0.0) for each in (one, other)]
    largest = torch.fmax(one.logit_max, other.logit_max)
    return AttentionStats((sums[0] + sums[1]) / count, largest, count, other.heads, other.weights)


def _together(parts: list[Rows], heads: int) -> AttentionStats:
    count = torch.stack([part.count for part in parts]).sum()
    entropy = torch.stack([part.entropy for part in parts]).sum() / count  # NaN where nothing is allowed
    largest = torch.stack([part.largest for part in parts]).max()
    maps = [part.weights for part in parts if part.weights is not None]
    return AttentionStats(
        entropy, largest.where(count > 0, math.nan), count, heads, torch.cat(maps, -2) if maps else None
    )


@torch.no_grad()
def _of_softmax(args: tuple[Any, ...], kwargs: Mapping[str, Any], keep: bool, masks: Masks) -> AttentionStats | None:
    """A softmax over the last of three or more dimensions is the map itself."""
    logits: Tensor = args[0] if args else kwargs["input"]
    dim = args[1] if len(args) > 1 else kwargs.get("dim")
    if logits.ndim < 3 or dim not in (-1, logits.ndim - 1):
        return None
    return _together([reduced(logits.float(), masks.on(logits), logits.dtype, keep)], logits.shape[-3])
