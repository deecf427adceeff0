"""Read and change what our attention computes, by torch's hooks on a site and its `core`.

`workers.trainer.adapt.watch` hooks the modules of other libraries the same way. A hook is removed when its context
ends. Edits apply in the order of their contexts; a tap records the result of all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from workers.trainer.attention.attention import QKV, Attention, Tap
from workers.trainer.attention.sites import sites

EditQKV = Callable[[QKV], QKV]
EditHeads = Callable[[Tensor], Tensor]


@contextmanager
def taps(model: nn.Module) -> Iterator[dict[str, Tap]]:
    """Record the last call of every site that runs inside, by the site's name."""
    with tapped(sites(model)) as calls:
        yield calls


@contextmanager
def tapped(watched_sites: Mapping[str, Attention]) -> Iterator[dict[str, Tap]]:
    """`taps` of the given sites."""
    calls: dict[str, Tap] = {}
    with ExitStack() as hooks:
        for name, site in watched_sites.items():
            _tap(hooks, name, site, calls)
        yield calls


@contextmanager
def edited(edited_sites: Iterable[Attention], edit: EditQKV) -> Iterator[None]:
    """Inside, `edit` replaces Q, K and V of these sites."""

    def replace(_core: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        attend, q, k, v, *rest = args
        return attend, *edit(QKV(q, k, v)), *rest

    with ExitStack() as hooks:
        for site in edited_sites:
            hooks.callback(site.core.register_forward_pre_hook(replace).remove)
        yield


@contextmanager
def edited_heads(site: Attention, edit: EditHeads) -> Iterator[None]:
    """Inside, `edit` replaces the heads' outputs (BHTE, before W_o)."""
    hook = site.core.register_forward_hook(lambda _core, _args, out: edit(out))
    try:
        yield
    finally:
        hook.remove()


def _tap(hooks: ExitStack, name: str, site: Attention, calls: dict[str, Tap]) -> None:
    core_calls: list[tuple[Any, ...]] = []

    def after_core(_core: nn.Module, args: tuple[Any, ...], heads: Tensor) -> None:
        core_calls[:] = [(*args[1:], heads)]

    def after_site(_site: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
        x, y = _inputs(*args, **kwargs)
        q, k, v, mask, scale, heads = core_calls.pop()
        calls[name] = Tap(x, y, q, k, v, mask, scale, site.merge(heads), out)

    hooks.callback(site.core.register_forward_hook(after_core).remove)
    hooks.callback(site.register_forward_hook(after_site, with_kwargs=True).remove)


def _inputs(x_BTM: Tensor, y_BSM: Tensor | None = None, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Where queries and keys come from in a call, with the parameter names of `Attention.forward`."""
    return x_BTM, x_BTM if y_BSM is None else y_BSM
