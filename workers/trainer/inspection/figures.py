"""Tensors as JSON that stays small: four decimal places, nothing that is not finite."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from workers.trainer.inspection.views import SiteView, Views

MOST = 60_000  # numbers that an answer may have


def figures(values: Tensor, digits: int = 4) -> Any:
    """Nested lists, rounded; null where a number is not finite."""
    rounded = np.round(values.detach().double().cpu().numpy(), digits) + 0.0  # no minus zero
    return np.ma.masked_invalid(rounded).tolist()


def described(views: Views, axes: dict[str, tuple[str, str]], focus: str | None) -> list[dict[str, Any]]:
    """Every site with its sizes and kinds of positions; maps and vectors while they fit, those of `focus` first."""
    rows = {name: _site(name, view, axes[name]) for name, view in views.items()}
    order = sorted(views, key=lambda name: (name != focus, views[name].weights.numel()))
    room = MOST
    for name in order:
        room -= _fill(rows[name], {"weights": views[name].weights}, room)
    for name in order:
        view = views[name]
        room -= _fill(rows[name], {"q": view.q, "k": view.k, "v": view.v, "mixed": view.head}, room)
    return list(rows.values())


def _site(name: str, view: SiteView, axes: tuple[str, str]) -> dict[str, Any]:
    heads, queries, keys = view.weights.shape
    sizes = {"heads": heads, "askers": queries, "answerers": keys, "d_k": view.q.shape[-1], "d_v": view.v.shape[-1]}
    return {"name": name, "asks": axes[0], "answers": axes[1], **sizes, "scale": view.scale}


def _fill(row: dict[str, Any], parts: dict[str, Tensor], room: int) -> int:
    """Add all of the parts, or none if they have more than `room` numbers; returns how many were added."""
    size = sum(part.numel() for part in parts.values())
    if size > room:
        return 0
    row |= {name: figures(part) for name, part in parts.items()}
    return size


def focused(view: SiteView, query: int | None, key: int | None) -> dict[str, Any]:
    """One row, one column and their products alone, for maps that are too large to send."""
    parts: dict[str, Any] = {}
    if query is not None:
        _check_position("asker", query, view.weights.shape[1])
        parts["looks"] = figures(view.weights[:, query])  # HS
    if key is not None:
        _check_position("answerer", key, view.weights.shape[2])
        parts["looked_at"] = figures(view.weights[:, :, key])  # HT
    if query is not None and key is not None:
        parts["product"] = figures(view.q[:, query] * view.k[:, key] * view.scale)  # HD
    return parts


def _check_position(field: str, position: int, count: int) -> None:
    if position >= count:
        raise ValueError(f"{field}: there is no position {position}, the site has {count}; they are numbered from 0")


def picture(pixels: NDArray[np.uint8]) -> str:
    """[H, W], [H, W, 3] or [H, W, 4] as base64 PNG."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=False)
    return base64.b64encode(file.getvalue()).decode()
