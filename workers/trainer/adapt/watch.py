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

from .found import ForeignSite, attached

LARGEST = 2**26  # elements of a map that are looked at together: 256 MiB in fp32
SDPA, F_SOFTMAX = F.scaled_dot_product_attention, F.softmax
SOFTMAX = (F_SOFTMAX, torch.softmax, Tensor.softmax)


@dataclass(frozen=True)
class Seen:
    """One call of a site, on the device. `entropy` is the mean over askers of −Σ A ln A ÷ ln(allowed keys),
    `logit_max` the largest logit that is allowed, `weights` the map [B, H, T, S] in fp32 where it was asked for."""

    entropy: Tensor
    logit_max: Tensor
    heads: int
    weights: Tensor | None = None


@contextmanager
def watched(model: nn.Module, *, maps: Collection[str] = ()) -> Iterator[dict[str, Seen]]:
    """Inside, every site's last call is kept under its name; a site that does not run is missing. Of the sites in
    `maps` the whole map is kept: ask for few."""
    seen: dict[str, Seen] = {}
    running: list[str] = []
    with ExitStack() as stack:
        sites = attached(model)
        for site in sites.values():
            _follow(stack, site, running)
        if sites:
            stack.enter_context(_no_fast_path())
            stack.enter_context(_Reader(running, seen, maps))
        yield seen


def _follow(stack: ExitStack, site: ForeignSite, running: list[str]) -> None:
    """Keep the name of the site that runs at the end of `running`."""

    def enter(_module: nn.Module, _args: Any) -> None:
        running.append(site.name)

    def leave(_module: nn.Module, _args: Any, _out: Any) -> None:
        running.pop()

    stack.callback(site.module.register_forward_pre_hook(enter).remove)
    stack.callback(site.module.register_forward_hook(leave, always_call=True).remove)


@contextmanager
def _no_fast_path() -> Iterator[None]:
    """torch's own attention takes, in inference, a kernel that shows nothing."""
    was = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(was)


class _Reader(TorchFunctionMode):
    def __init__(self, running: list[str], seen: dict[str, Seen], maps: Collection[str]) -> None:
        super().__init__()
        self.running, self.seen, self.maps = running, seen, maps

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if func is F.multi_head_attention_forward:  # torch's own: inside it, calls pass no mode
            with self._in_place_of_torchs():
                return func(*args, **given)
        self._read(func, args, given)
        return func(*args, **given)

    def _read(self, func: Callable[..., Any], args: tuple[Any, ...], given: Mapping[str, Any]) -> None:
        if not self.running:
            return
        site = self.running[-1]
        if func is SDPA:
            self.seen[site] = of_call(*args, **given, keep=site in self.maps)
        elif func in SOFTMAX and (found := _of_softmax(args, given, site in self.maps)):
            self.seen[site] = found

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
) -> Seen:
    """What a call of scaled_dot_product_attention compares; takes what it takes."""
    q_BHTD, k_BHSD = query.float(), key.float()
    if k_BHSD.shape[-3] != q_BHTD.shape[-3]:  # grouped: several heads of queries share one of keys
        k_BHSD = k_BHSD.repeat_interleave(q_BHTD.shape[-3] // k_BHSD.shape[-3], -3)
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    askers, answerers = q_BHTD.shape[-2], k_BHSD.shape[-2]
    bias = None if attn_mask is None else as_bias(attn_mask).expand(*q_BHTD.shape[:-1], answerers)
    if is_causal:
        bias = as_bias(torch.ones(askers, answerers, dtype=torch.bool, device=query.device).tril())
        bias = bias.expand(*q_BHTD.shape[:-1], answerers)
    step = max(1, LARGEST // max(1, math.prod(q_BHTD.shape[:-2]) * answerers))
    parts = []
    for start in range(0, askers, step):
        logits = q_BHTD[..., start : start + step, :] @ k_BHSD.transpose(-2, -1) * factor
        entropy, largest, weights = reduced(logits if bias is None else logits + bias[..., start : start + step, :])
        parts.append((entropy, largest, weights if keep else weights[..., :0]))
    entropies, maxima, maps = zip(*parts, strict=True)
    whole = torch.cat(maps, -2) if keep else None
    return Seen(torch.cat(entropies, -1).mean(), torch.stack(maxima).max(), q_BHTD.shape[-3], whole)


def as_bias(mask: Tensor) -> Tensor:
    """What is added to the logits: a boolean mask is true where asking is allowed."""
    if mask.dtype == torch.bool:
        return torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, -math.inf)
    return mask.float()


def reduced(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of logits [..., T, S]: the entropy of each asker's weights, 0 to 1, the largest logit, and the weights. What is
    masked has −inf or, in libraries that add the smallest number, about that."""
    allowed = logits > torch.finfo(torch.float16).min * 16
    weights = logits.masked_fill(~allowed, -math.inf).softmax(-1)
    weights = weights.masked_fill(~allowed.any(-1, keepdim=True), 0.0)
    entropy = torch.special.entr(weights).sum(-1) / allowed.sum(-1).clamp(min=2).log()
    return entropy, logits.masked_fill(~allowed, -math.inf).max(), weights


@torch.no_grad()
def _of_softmax(args: tuple[Any, ...], kwargs: Mapping[str, Any], keep: bool) -> Seen | None:
    """A softmax over the last of three or more dimensions is the map itself."""
    logits: Tensor = args[0] if args else kwargs["input"]
    dim = args[1] if len(args) > 1 else kwargs.get("dim")
    if logits.ndim < 3 or dim not in (-1, logits.ndim - 1):
        return None
    entropy, largest, weights = reduced(logits.float())
    return Seen(entropy.mean(), largest, logits.shape[-3], weights if keep else None)
