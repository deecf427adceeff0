"""Oracle 1: with all tokens equal, what attention gives depends on V alone.

Weights that sum to 1 over equal values give that value, whatever the weights are: the gradients of W_q and W_k vanish
and W_v's does not. With tokens that differ none vanishes, which shows that the test could have failed. It does not
apply where weights do not sum to 1, or what they mix is scaled (sinks), where values differ although tokens do not
(positions in them, padding), and where W_q has another use (the kernel of ConvBERT's convolution).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tests.lab.models.changes import Claims, of_site
from tests.lab.models.seeing import seeing, tensors

VANISHED = 1e-3  # of the gradient's norm with tokens that differ, relative to W_v's


class Applies(Exception):
    """Why the oracle does not apply."""


def wrong_by_equal_tokens(model: nn.Module, run: Callable[[], object], site: str, claims: Claims) -> str:
    """What is wrong with the claims about a site; empty where nothing is. Raises Applies."""
    module = model.get_submodule(site) if site else model
    widths = {size for claim in claims.values() for size in claim.parameter.shape[:2]}
    with equal(module, widths) as changed:
        seen = of_site(model, run, site)
        if not changed:
            raise Applies("the site takes no tokens of its own")
        _applies(seen)
        _has_no_other_use(module, run, site, model)
        alike = _gradients(model, run, module, claims)
    unlike = _gradients(model, run, module, claims)
    if not alike["W_v"]:
        return "W_v: no gradient with equal tokens"
    for role in ("W_q", "W_k"):
        if claims[role].same_as(claims["W_v"]):
            raise Applies(f"{role} is W_v, too")
        if not unlike[role]:
            raise Applies(f"{role} has no gradient with tokens that differ either")
        if alike[role] / alike["W_v"] > VANISHED * min(1.0, unlike[role] / unlike["W_v"]) + 1e-6:
            return f"{role}: its gradient does not vanish with equal tokens ({alike[role] / alike['W_v']:.1e} of W_v's)"
    return ""


def _applies(seen: list[Any]) -> None:
    for event in seen:
        weights, values = event.fed, event.value
        sums = weights.sum(event.over[0])
        if not torch.allclose(sums, torch.ones_like(sums), atol=1e-4):
            raise Applies("weights do not sum to 1")
        spread = (values - values.select(event.over[1], 0).unsqueeze(event.over[1])).abs().max()
        if spread > 1e-4 * values.abs().max():
            raise Applies("values differ where tokens do not")


def _has_no_other_use(module: nn.Module, run: Callable[[], object], site: str, model: nn.Module) -> None:
    if any(name.endswith("sinks") for name, _ in module.named_parameters()):
        raise Applies("a sink scales what is mixed")
    with torch.no_grad(), seeing(model, None) as seen:
        run()
    if any(not each.is_attention and (site, 0) in each.path for each in seen.softmaxes):
        raise Applies("another softmax runs in it")


@contextmanager
def equal(module: nn.Module, widths: set[int]) -> Iterator[list[int]]:
    """Every tensor of tokens that the module takes becomes its first token, repeated."""
    changed: list[int] = []

    def alike(item: Any) -> Any:
        if not isinstance(item, Tensor) or not item.is_floating_point() or item.ndim < 2:
            return item
        axes = [axis for axis in range(item.ndim) if item.shape[axis] in widths]
        if not axes:
            return item
        channels = axes[-1]
        changed.append(1)
        one = item.movedim(channels, -1).reshape(-1, item.shape[channels])[0]
        return one.expand(*item.movedim(channels, -1).shape).movedim(-1, channels).contiguous()

    def enter(_module: nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> Any:
        return tuple(alike(each) for each in args), {name: alike(each) for name, each in given.items()}

    hook = module.register_forward_pre_hook(enter, with_kwargs=True)
    try:
        yield changed
    finally:
        hook.remove()


class _Reached(Exception):
    """The site has run: nothing after it is needed."""


def _gradients(model: nn.Module, run: Callable[[], object], module: nn.Module, claims: Claims) -> dict[str, float]:
    """Norms of the gradients of a fixed weighted sum of what the site's first call gives."""
    found: list[Tensor] = []

    def leave(_module: nn.Module, _args: Any, out: Any) -> None:
        found.append(_first(out))
        raise _Reached

    hook = module.register_forward_hook(leave)
    was = {each: each.requires_grad for each in model.parameters() if each.is_floating_point()}
    try:
        for each in was:
            each.requires_grad_(True)
        with torch.enable_grad():
            try:
                run()
            except _Reached:
                pass
            out = found[0]
            noise = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
            weights = [claim.parameter for claim in claims.values()]
            got = torch.autograd.grad((out * noise).sum(), weights, allow_unused=True)
    finally:
        hook.remove()
        for each, flag in was.items():
            each.requires_grad_(flag)
    return {role: _norm(claim.heads, one) for (role, claim), one in zip(claims.items(), got, strict=True)}


def _norm(heads: Any, gradient: Tensor | None) -> float:
    if gradient is None:
        return 0.0
    return float(gradient.reshape(-1)[torch.cat([*heads])].norm())


def _first(out: Any) -> Tensor:
    """The first tensor of what a module gives, which may lie in pairs of pairs."""
    items = out.values() if isinstance(out, dict) else [out]
    return next(each for each in tensors(items) if each.is_floating_point())
