"""What every site compares and mixes while a question is answered, and edits made on the way.

Batches of one.
Shapes: H heads, T query positions, S key positions, D columns of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from experiments.spec import Edit
from workers.trainer.attention import QKV, attention_weights
from workers.trainer.attention.hooks import edited, edited_heads
from workers.trainer.attention.sites import sites


@dataclass(frozen=True)
class SiteView:
    """One call of one site."""

    q: Tensor  # HTD
    k: Tensor  # HSD
    v: Tensor  # HSD
    weights: Tensor  # HTS, the attention map
    head: Tensor  # HTD, the mixed output before W_o
    scale: float


Views = Mapping[str, SiteView]


@contextmanager
def watched(model: nn.Module, edits: Sequence[Edit] = (), source: Views | None = None) -> Iterator[dict[str, SiteView]]:
    """Record every site inside, after `edits`; patches take their vectors from `source`.

    Raises ValueError, for users, if an edit names a site, position or head that does not exist."""
    views: dict[str, SiteView] = {}
    known_sites = sites(model)
    _refuse_unknown(edits, known_sites)
    with ExitStack() as hooks:
        for name, site in known_sites.items():
            own = [edit for edit in edits if edit.site in (None, name)]
            change = partial(_changed, name, own, (source or {}).get(name))
            hooks.enter_context(edited([site], partial(_changed_qkv, change)))
            hooks.enter_context(edited_heads(site, partial(change, "head")))
            hooks.callback(site.core.register_forward_hook(partial(_view, views, name)).remove)
        yield views


def _refuse_unknown(edits: Sequence[Edit], known_sites: Iterable[str]) -> None:
    for edit in edits:
        if edit.site is not None and edit.site not in known_sites:
            raise ValueError(f"there is no site '{edit.site}'; choose one of: {', '.join(known_sites)}")


def _changed_qkv(change: Callable[[str, Tensor], Tensor], qkv: QKV) -> QKV:
    return QKV(*(change(what, x_1HTD) for what, x_1HTD in zip("qkv", qkv, strict=True)))


def _view(views: dict[str, SiteView], name: str, _core: nn.Module, args: tuple[Any, ...], head_1HTD: Tensor) -> None:
    """Record what a site compared and passed on, after all edits."""
    _, q, k, v, mask, scale = args
    weights = attention_weights(q.float(), k.float(), mask, scale)
    views[name] = SiteView(q[0], k[0], v[0], weights[0], head_1HTD[0], scale)


def _changed(name: str, edits: Sequence[Edit], source: SiteView | None, what: str, x_1HTD: Tensor) -> Tensor:
    for edit in edits:
        if edit.what == what and _applies(name, edit, x_1HTD):
            x_1HTD = _edited(edit, source, x_1HTD)
    return x_1HTD


def _applies(name: str, edit: Edit, x_1HTD: Tensor) -> bool:
    """An edit without a site applies to sites that have its positions and its head; a named site must have them."""
    heads, length = x_1HTD.shape[1:3]
    fits = max(edit.places, default=0) < length and (edit.head is None or edit.head < heads)
    if not fits and edit.site is not None:
        raise ValueError(
            f"{name} has {heads} heads and {length} positions, numbered from 0: {_words(edit)} is out of range"
        )
    return fits


def _words(edit: Edit) -> str:
    return f"{edit.kind} of {edit.what} at positions {list(edit.places)}, head {edit.head}"


def _edited(edit: Edit, source: SiteView | None, x_1HTD: Tensor) -> Tensor:
    out = x_1HTD.clone()
    heads = slice(None) if edit.head is None else slice(edit.head, edit.head + 1)
    positions = list(edit.places) or list(range(x_1HTD.shape[2]))
    if edit.kind == "swap":
        out[:, heads, positions] = x_1HTD[:, heads, positions[::-1]]
    elif edit.kind == "ablate":
        out[:, heads, positions] = 0.0
    else:
        assert source is not None, "a patch needs a source"
        out[:, heads, positions] = _taken(edit, getattr(source, edit.what), positions)[heads]
    return out


def _taken(edit: Edit, x_HTD: Tensor, positions: list[int]) -> Tensor:
    wanted = list(edit.sources) or positions
    if max(wanted) >= x_HTD.shape[1]:
        raise ValueError(f"other: a patch takes position {max(wanted)}, and it has {x_HTD.shape[1]}, numbered from 0")
    return torch.stack([x_HTD[:, position] for position in wanted], 1)
