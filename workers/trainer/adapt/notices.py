"""What `attach` left out, could not check or found frozen, as notices for whoever reads a run's numbers."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from workers.protocol import MAX_ITEMS, Notice

from .attachment import Attached, attachment


def attention_notices(model: nn.Module) -> list[Notice]:
    """Attention that has no series, with the reason for each module; sites that only their names speak for; and
    matrices that are frozen."""
    found = attachment(model)
    return [] if found is None else [*_left_out(found), *_unchecked(found), *_frozen(found)]


def _left_out(found: Attached) -> list[Notice]:
    if not found.skipped:
        return []
    text = (
        f"{len(found.skipped)} of what is like attention (modules, further attentions in a module, or a W_o) have no "
        f"series of their own; {len(found.sites)} attention sites are recorded. The list says why."
    )
    return [Notice(kind="unseen_attention", text=text, items=_items(found.skipped))]


def _unchecked(found: Attached) -> list[Notice]:
    if not found.unchecked:
        return []
    text = (
        f"What is called W_q, W_k and W_v in {_modules(found.unchecked)} could not be checked: only the names of its "
        "layers speak for it. Pass `attach` a call of the model on a real batch."
    )
    return [Notice(kind="unchecked_attention", text=text, items=_items(found.unchecked))]


def _frozen(found: Attached) -> list[Notice]:
    if not (frozen := found.frozen):
        return []
    count = sum(map(len, frozen.values()))
    text = (
        f"{count} {'matrix' if count == 1 else 'matrices'} of attention {'is' if count == 1 else 'are'} frozen: no "
        "gradient is kept, so that the norms read 0, whether or not a loss depends on them."
    )
    return [Notice(kind="frozen_attention", text=text, items=_items({k: ", ".join(v) for k, v in frozen.items()}))]


def _modules(reasons: Mapping[str, str]) -> str:
    return f"{len(reasons)} module{'' if len(reasons) == 1 else 's'}"


def _items(reasons: Mapping[str, str]) -> list[str]:
    return [f"{name}: {why}" for name, why in list(reasons.items())[:MAX_ITEMS]]
