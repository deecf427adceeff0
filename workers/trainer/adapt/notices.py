"""What `attach` skipped, could not check or found frozen, as notices of a run."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from workers.protocol import MAX_ITEMS, Notice

from .attachment import Attached, attachment


def attention_notices(model: nn.Module) -> list[Notice]:
    """Attention without series and the reasons; sites recognised by names alone; frozen matrices."""
    result = attachment(model)
    return [] if result is None else [*_skipped(result), *_unchecked(result), *_frozen(result)]


def _skipped(result: Attached) -> list[Notice]:
    text = (
        f"{len(result.skipped)} candidates for attention (modules, further attentions in a module, or a W_o) have no "
        f"series of their own; {len(result.sites)} attention sites are recorded. The list gives the reasons."
    )
    return _notices("unseen_attention", text, result.skipped)


def _unchecked(result: Attached) -> list[Notice]:
    count = len(result.unchecked)
    text = (
        f"W_q, W_k and W_v of {count} module{'' if count == 1 else 's'} could not be checked: they are recognised by "
        "the names of their layers alone. Pass `attach` a call of the model on a real batch."
    )
    return _notices("unchecked_attention", text, result.unchecked)


def _frozen(result: Attached) -> list[Notice]:
    frozen = result.frozen
    count = sum(map(len, frozen.values()))
    text = (
        f"{count} {'matrix' if count == 1 else 'matrices'} of attention {'is' if count == 1 else 'are'} frozen: there "
        "is no gradient, so the norms are 0, whether or not a loss depends on them."
    )
    return _notices("frozen_attention", text, {site: ", ".join(matrices) for site, matrices in frozen.items()})


def _notices(kind: str, text: str, items: Mapping[str, str]) -> list[Notice]:
    lines = [f"{name}: {value}" for name, value in list(items.items())[:MAX_ITEMS]]
    return [Notice(kind=kind, text=text, items=lines)] if items else []
