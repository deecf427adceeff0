"""One tiny model of an architecture, and a call of it that runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tests.lab.models.batches import callers
from tests.lab.models.listing import Architecture
from tests.lab.models.shrinking import configs, line
from workers.trainer.tasks.hf.library import mend_torchvision, transformers

LARGEST = 30_000_000  # parameters
Run = Callable[[], object]


class NotBuilt(Exception):
    """Why no model that runs could be made."""


@dataclass(frozen=True)
class Built:
    model: nn.Module
    run: Run


def build(what: Architecture) -> Built:
    """A model in evaluation mode with no zeros left in its weights. Raises NotBuilt with the reasons."""
    transformers()
    mend_torchvision()
    torch.manual_seed(0)
    return _of_timm(what.name) if what.library == "timm" else _of_transformers(what.name)


def _of_transformers(name: str) -> Built:
    from transformers import CONFIG_MAPPING, AutoModel

    reasons: list[str] = []
    try:
        kind = CONFIG_MAPPING[name]
        kind()
    except Exception as error:
        raise NotBuilt(f"no default configuration: {line(error)}") from None
    for how, config in configs(kind):
        if config is None:
            reasons.append(how)
            continue
        try:
            config._attn_implementation = "eager"
            return _made(lambda config=config: AutoModel.from_config(config), callers)
        except Exception as error:
            reasons.append(f"{how}: {line(error)}")
    raise NotBuilt(reasons[0] if len(set(reasons)) == 1 else "; ".join(dict.fromkeys(reasons)))


def _made(make: Callable[[], nn.Module], calls: Callable[[nn.Module], Any]) -> Built:
    with torch.device("meta"):
        try:
            size = sum(each.numel() for each in make().parameters())
        except Exception:
            size = 0  # some cannot be built without values
    if size > LARGEST:
        raise NotBuilt(f"{size / 1e6:.0f} million parameters")
    torch.manual_seed(0)
    model = make().float().eval()
    stir(model)
    return Built(model, working(model, calls(model)))


def working(model: nn.Module, calls: Any) -> Run:
    """The first call that does not fail."""
    reasons = []
    for call in calls:
        try:
            with torch.no_grad():
                call()
        except Exception as error:
            reasons.append(line(error))
            continue
        return call  # type: ignore[no-any-return]
    raise NotBuilt("no batch fits: " + (reasons[0] if reasons else "it says nothing of what it takes"))


@torch.no_grad()
def stir(model: nn.Module) -> None:
    """Weights that start at zero would hide what depends on them."""
    for each in model.parameters():
        if each.is_floating_point():
            each.nan_to_num_().add_(0.05 * torch.randn_like(each))


SMALL: dict[str, Any] = {"embed_dim": 32, "depth": 2, "num_heads": 4}
STAGED: dict[str, Any] = {}


def _of_timm(name: str) -> Built:
    import timm

    members = list(timm.list_models(module=name))
    if not members:
        raise NotBuilt("the family has no model")
    reasons: list[str] = []
    for each, size in ((each, size) for each in _lightest(members) for size in (64, 128, 224, None)):
        for given in ({"img_size": size, **SMALL}, {**SMALL}, {"img_size": size, "depth": 2}, {"img_size": size}, {}):
            try:
                return _made(
                    lambda each=each, given=given: timm.create_model(each, pretrained=False, num_classes=5, **given),
                    lambda model, size=size: _images(model, size),
                )
            except Exception as error:
                reasons.append(f"{each}: {line(error)}")
    raise NotBuilt(reasons[-1])


def _lightest(members: list[str]) -> list[str]:
    """Those that say that they are small first; at most three."""
    signs = ("test", "pico", "atto", "femto", "nano", "xxt", "xxs", "tiny", "_xs", "_t", "_s", "small", "b0", "18", "")
    return sorted(members, key=lambda name: (next(at for at, sign in enumerate(signs) if sign in name), len(name)))[:3]


def _images(model: Any, size: int | None) -> Any:
    told = getattr(model, "pretrained_cfg", {}).get("input_size") or (3, 224, 224)
    for side in dict.fromkeys((size or told[-1], told[-1])):
        x = torch.randn(2, 3, side, side)
        yield lambda x=x: model(x)
