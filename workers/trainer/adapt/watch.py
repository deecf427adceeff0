"""Entropy, largest logit and map of attention in models of other libraries.

While a site runs, calls of `scaled_dot_product_attention` (with Q and K after rotation, norms and grouping) and of
`softmax` over the last dimension are intercepted. The map is computed in fp32 for some queries at a time, reduced on
the device and dropped. Fused kernels of other libraries cannot be intercepted.

Shapes: B batch, H heads (B·H in one axis where a library folds them), T queries, S keys, D columns of a head.
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

CHUNK = 2**26  # elements of a map that are in memory at once: 256 MiB in fp32
F_SOFTMAX = F.softmax


@dataclass(frozen=True)
class AttentionStats:
    """One run of a site, on the device. `entropy` is the mean of −Σ A ln A ÷ ln(allowed keys) over the `count` queries
    that have an allowed key, `logit_max` the largest allowed logit; both are NaN where no query has one. They cover all
    attention in the run, `weights` the last only: the map [B, H, T, S] in fp32, if requested."""

    entropy: Tensor
    logit_max: Tensor
    count: Tensor
    heads: int
    weights: Tensor | None = None


@contextmanager
def watched(
    model: nn.Module, *, maps: Collection[str] = (), as_is: bool = False
) -> Iterator[dict[str, AttentionStats]]:
    """Inside, every site's last run is recorded under its name; a site that does not run is missing. The whole map is
    kept for the sites in `maps` only, as it is large. The model is in evaluation mode inside, so that statistics depend
    on its weights alone, and random state is restored; with `as_is` it stays in its own mode."""
    stats: dict[str, AttentionStats] = {}
    with ExitStack() as stack:
        sites = attached(model)
        stack.enter_context(eager() if as_is else evaluating(model))
        if sites:
            reader = _Reader(stats, maps)
            for site in sites.values():
                _track(stack, site, reader)
            stack.enter_context(no_fast_path())
            stack.enter_context(reader)
        yield stats


def _track(stack: ExitStack, site: ForeignSite, reader: _Reader) -> None:
    """Keep the running site last in `reader.running`."""

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
    def __init__(self, stats: dict[str, AttentionStats], maps: Collection[str]) -> None:
        super().__init__()
        self.stats, self.maps = stats, maps
        self.running: list[str] = []
        self.begun: set[str] = set()  # sites whose current run has had no attention yet
        self.masks = Masks()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if func is F.multi_head_attention_forward:  # calls inside torch's own bypass the mode
            with self._patched_functional():
                return func(*args, **given)
        self._read(func, args, given)
        out = func(*args, **given)
        if self.running:
            with torch.no_grad():
                self.masks.record(func, args, given, out)
        return out

    def _read(self, func: Callable[..., Any], args: tuple[Any, ...], given: Mapping[str, Any]) -> None:
        if not self.running:
            return
        site = self.running[-1]
        if func is SDPA:
            self._add(site, of_call(*args, **given, keep=site in self.maps, masks=self.masks))
        elif func in (*SOFTMAX, *LOGS) and (stats := _of_softmax(args, given, site in self.maps, self.masks)):
            self._add(site, stats)

    def _add(self, site: str, stats: AttentionStats) -> None:
        """A module may call attention several times in one run, such as once per head."""
        again = site in self.stats and site not in self.begun
        self.begun.discard(site)
        self.stats[site] = _both(self.stats[site], stats) if again else stats

    @contextmanager
    def _patched_functional(self) -> Iterator[None]:
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
    """The statistics of a call of scaled_dot_product_attention; takes its arguments and the recorded `masks`."""
    q_BHTD, k_BHSD = query.float(), key.float()
    if k_BHSD.shape[-3] != q_BHTD.shape[-3]:  # grouped-query attention
        k_BHSD = k_BHSD.repeat_interleave(q_BHTD.shape[-3] // k_BHSD.shape[-3], -3)
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    queries, keys = q_BHTD.shape[-2], k_BHSD.shape[-2]
    if is_causal:
        attn_mask = torch.ones(queries, keys, dtype=torch.bool, device=query.device).tril()
    shape = torch.Size((*q_BHTD.shape[:-1], keys))
    bias = None if attn_mask is None else as_bias(attn_mask).expand(shape)
    blocked = None if bias is None else _blocked(bias, masks)
    step = max(1, CHUNK // max(1, math.prod(q_BHTD.shape[:-2]) * keys))
    parts = []
    for start in range(0, queries, step):
        rows = slice(start, start + step)
        logits = q_BHTD[..., rows, :] @ k_BHSD.transpose(-2, -1) * factor
        if bias is None or blocked is None:
            parts.append(reduced(logits, None, query.dtype, keep))
        else:
            parts.append(reduced(logits + bias[..., rows, :], blocked[..., rows, :], query.dtype, keep))
    return _together(parts, q_BHTD.shape[-3])


def _blocked(bias: Tensor, masks: Masks | None) -> Tensor:
    """What the mask of a call blocks: by its own two values, or by a mask recorded while it was computed."""
    recorded = masks.on(bias) if masks else None
    own = two_valued(bias)
    return own if recorded is None else own | recorded


def as_bias(mask: Tensor) -> Tensor:
    """What is added to the logits; a boolean mask is True where a query may attend to a key."""
    if mask.dtype == torch.bool:
        return torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, -math.inf)
    return mask.float()


@dataclass(frozen=True)
class Rows:
    """Some queries: the sum of the entropies of those that have an allowed key, their number, the largest allowed
    logit (−∞ where there is none), and the weights if they are kept."""

    entropy: Tensor
    count: Tensor
    largest: Tensor
    weights: Tensor | None


def reduced(logits: Tensor, blocked: Tensor | None, dtype: torch.dtype, keep: bool) -> Rows:
    """Reduce logits [..., T, S], masks added, that came in `dtype`; `blocked` is True where a recorded mask blocks."""
    allowed = allowed_keys(logits, blocked, dtype)
    masked, weights = masked_softmax(logits, allowed)
    entropy = normalized_entropy(weights, allowed.sum(-1))
    return Rows(entropy.sum(), allowed.any(-1).sum(), masked.max(), weights if keep else None)


def _both(first: AttentionStats, second: AttentionStats) -> AttentionStats:
    count = first.count + second.count
    sums = [torch.where(each.count > 0, each.entropy * each.count, 0.0) for each in (first, second)]
    largest = torch.fmax(first.logit_max, second.logit_max)
    return AttentionStats((sums[0] + sums[1]) / count, largest, count, second.heads, second.weights)


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
    """The statistics of a softmax over the last of three or more dimensions, which is the map itself."""
    logits: Tensor = args[0] if args else kwargs["input"]
    dim = args[1] if len(args) > 1 else kwargs.get("dim")
    if logits.ndim < 3 or dim not in (-1, logits.ndim - 1):
        return None
    return _together([reduced(logits.float(), masks.on(logits), logits.dtype, keep)], logits.shape[-3])
