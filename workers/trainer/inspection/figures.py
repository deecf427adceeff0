"""Tensors as JSON that stays small: four significant places, nothing that is not finite."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from workers.trainer.inspection.views import Seen, Views

MOST = 60_000  # numbers that one part of an answer may have


def figures(values: Tensor, digits: int = 4) -> Any:
    """Nested lists, rounded; null where a number is not finite."""
    rounded = np.round(values.detach().double().cpu().numpy(), digits) + 0.0  # no minus zero
    return np.ma.masked_invalid(rounded).tolist()


def described(seen: Views, axes: dict[str, tuple[str, str]], focus: str | None) -> list[dict[str, Any]]:
    """Every site with its sizes and what asks and answers there; maps and vectors while they fit, `focus` first."""
    rows = {name: _site(name, one, axes[name]) for name, one in seen.items()}
    order = sorted(seen, key=lambda name: (name != focus, seen[name].weights.numel()))
    room = MOST
    for name in order:
        room -= _fill(rows[name], {"weights": seen[name].weights}, room)
    for name in order:
        one = seen[name]
        room -= _fill(rows[name], {"q": one.q, "k": one.k, "v": one.v, "mixed": one.head}, room)
    return list(rows.values())


def _site(name: str, one: Seen, axes: tuple[str, str]) -> dict[str, Any]:
    heads, askers, answerers = one.weights.shape
    sizes = {"heads": heads, "askers": askers, "answerers": answerers, "d_k": one.q.shape[-1], "d_v": one.v.shape[-1]}
    return {"name": name, "asks": axes[0], "answers": axes[1], **sizes, "scale": one.scale}


def _fill(row: dict[str, Any], parts: dict[str, Tensor], room: int) -> int:
    """Add all of the parts, or none where they have more than `room` numbers; returns how many were added."""
    size = sum(each.numel() for each in parts.values())
    if size > room:
        return 0
    row |= {name: figures(each) for name, each in parts.items()}
    return size


def line(one: Seen, asker: int | None, answerer: int | None) -> dict[str, Any]:
    """One place alone, for maps too large to send: where it looks, who looks at it, and its products."""
    found: dict[str, Any] = {}
    if asker is not None:
        _refuse_beyond("asker", asker, one.weights.shape[1])
        found["looks"] = figures(one.weights[:, asker])  # HS
    if answerer is not None:
        _refuse_beyond("answerer", answerer, one.weights.shape[2])
        found["looked_at"] = figures(one.weights[:, :, answerer])  # HT
    if asker is not None and answerer is not None:
        found["product"] = figures(one.q[:, asker] * one.k[:, answerer] * one.scale)  # HD
    return found


def _refuse_beyond(name: str, place: int, count: int) -> None:
    if place >= count:
        raise ValueError(f"{name}: there is no place {place}, the site has {count}")


def picture(pixels: NDArray[np.uint8]) -> str:
    """[H, W], [H, W, 3] or [H, W, 4] as base64 PNG."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=False)
    return base64.b64encode(file.getvalue()).decode()
