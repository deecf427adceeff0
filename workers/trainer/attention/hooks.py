"""The one way to look inside our attention and to change what it does: torch's hooks, on a site and on its `core`.

`workers.trainer.adapt.watch` hooks the modules of other libraries the same way. A hook costs nothing where there is
none, and ends with its context. Edits are made in the order of their contexts; a tap sees what was compared after all
of them.
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
    """Catch the last call of every site that runs inside, by the site's name."""
    with tapped(sites(model)) as calls:
        yield calls


@contextmanager
def tapped(watched_sites: Mapping[str, Attention]) -> Iterator[dict[str, Tap]]:
    """The same for some sites."""
    calls: dict[str, Tap] = {}
    with ExitStack() as hooks:
        for name, site in watched_sites.items():
            _tap(hooks, name, site, calls)
        yield calls


@contextmanager
def edited(edited_sites: Iterable[Attention], edit: EditQKV) -> Iterator[None]:
    """Inside, these sites compare and mix what `edit` makes of their Q, K and V."""

    def replace(_core: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        attend, q, k, v, *rest = args
        return attend, *edit(QKV(q, k, v)), *rest

    with ExitStack() as hooks:
        for site in edited_sites:
            hooks.callback(site.core.register_forward_pre_hook(replace).remove)
        yield


@contextmanager
def edited_heads(site: Attention, edit: EditHeads) -> Iterator[None]:
    """Inside, what the heads hand on (BHTE, before W_o) is what `edit` makes of it."""
    hook = site.core.register_forward_hook(lambda _core, _args, out: edit(out))
    try:
        yield
    finally:
        hook.remove()


def _tap(hooks: ExitStack, name: str, site: Attention, calls: dict[str, Tap]) -> None:
    compared: list[tuple[Any, ...]] = []

    def compare(_core: nn.Module, args: tuple[Any, ...], heads: Tensor) -> None:
        compared[:] = [(*args[1:], heads)]

    def finish(_site: nn.Module, args: tuple[Any, ...], named: dict[str, Any], out: Tensor) -> None:
        x, y = _inputs(*args, **named)
        q, k, v, mask, scale, heads = compared.pop()
        calls[name] = Tap(x, y, q, k, v, mask, scale, site.merge(heads), out)

    hooks.callback(site.core.register_forward_hook(compare).remove)
    hooks.callback(site.register_forward_hook(finish, with_kwargs=True).remove)


def _inputs(x_BTM: Tensor, y_BSM: Tensor | None = None, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The queries' and the keys' side of a call, named as `Attention.forward` names them."""
    return x_BTM, x_BTM if y_BSM is None else y_BSM
