"""One architecture judged: for each attention that ran, right by the oracles, told, or silent."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn

from tests.lab.models.alone import alone
from tests.lab.models.building import NotBuilt, build
from tests.lab.models.changes import Claim, Claims, wrong_by_changes
from tests.lab.models.equal_tokens import Applies, wrong_by_equal_tokens
from tests.lab.models.listing import Architecture
from tests.lab.models.seeing import Recorder, Softmax, seeing
from workers.trainer.adapt import Attached, attach

ROLES = ("W_q", "W_k", "W_v")


@dataclass
class Verdict:
    """`attentions` counts the modules in which attention ran. `wrong` says of sites what an oracle refutes, `silent`
    names attention that is neither a site nor reported; `unapplied` says where oracle 1 does not apply."""

    library: str
    name: str
    not_built: str = ""
    attentions: int = 0
    sites: int = 0
    right: int = 0
    by_equal_tokens: int = 0
    unapplied: dict[str, str] = field(default_factory=dict)
    told: dict[str, str] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)
    silent: list[str] = field(default_factory=list)
    norm_across_heads: int = 0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def judged(what: Architecture) -> Verdict:
    try:
        built = build(what)
    except NotBuilt as error:
        return Verdict(what.library, what.name, not_built=str(error))
    found = Verdict(what.library, what.name)
    judge(found, built.model, built.run)
    return found


def judge(found: Verdict, model: nn.Module, run: Callable[[], object]) -> None:
    torch.manual_seed(0)
    with torch.no_grad(), seeing(model) as seen:
        run()
    attention = [each for each in seen.softmaxes if each.is_attention]
    found.attentions = len({each.modules[-1] for each in attention})
    try:
        known = attach(model, run)
    except ValueError as error:
        known = Attached(model, {}, _told_by(error))
    sites = {("" if name == "attention" and "attention" not in dict(model.named_modules()) else name): site
             for name, site in known.sites.items()}  # fmt: skip
    found.told |= known.unchecked
    found.sites = len(set(sites) - set(known.unchecked))
    told = {"" if name == "(the model)" else name: why for name, why in {**known.skipped, **known.unchecked}.items()}
    _cover(found, attention, set(sites) - set(known.unchecked), told)
    _cover_named(found, model, seen, set(sites), told)
    for name, site in sites.items():
        if name not in known.unchecked:
            _ask(found, model, run, name, claims_of(site))


def _told_by(error: ValueError) -> dict[str, str]:
    """What `attach` says where it finds no site at all: every module stands in the error."""
    reasons = str(error).split("; ")[1:]
    return dict(each.split(": ", 1) for each in reasons if ": " in each)


def _cover(found: Verdict, attention: list[Softmax], sites: set[str], told: dict[str, str]) -> None:
    """Attention that is inside no site has to be told."""
    for event in attention:
        if sites & set(event.modules):
            continue
        inside = next((name for name in reversed(event.modules) if name in told), None)
        if inside is None:
            if event.modules[-1] not in found.silent:
                found.silent.append(event.modules[-1])
        else:
            found.told[inside or "(the model)"] = told[inside]


def _cover_named(found: Verdict, model: nn.Module, seen: Recorder, sites: set[str], told: dict[str, str]) -> None:
    """A module that its library calls attention and in which none was seen has to be told."""
    within = {name for each in seen.softmaxes if each.is_attention for name in each.modules} | sites
    for name, module in model.named_modules():
        named = re.search(r"att(entio)?n", type(module).__name__, re.IGNORECASE)
        if (
            not named
            or name in within
            or name not in seen.calls
            or not any(each.ndim > 1 for each in module.parameters())
        ):
            continue
        if any(_inside(name, site) for site in sites):
            continue
        by = next((each for each in told if _inside(name, each) or _inside(each, name)), None)
        if by is None:
            found.silent.append(name)
        else:
            found.told[by] = told[by]


def _inside(name: str, other: str) -> bool:
    return not other or f"{name}.".startswith(f"{other}.")


def claims_of(site: Any) -> Claims:
    """Which places of which parameter are said to be each head's."""
    claims = {}
    for role in ROLES:
        part = site.parts[role]
        places = torch.arange(part.parameter.numel()).view(part.parameter.shape)
        picked = part.pick(places)
        heads = [part.head(picked, head).flatten() for head in range(part.heads)]
        claims[role] = Claim(part.parameter, heads)
    return claims


def _ask(found: Verdict, model: nn.Module, run: Callable[[], object], name: str, claims: Claims) -> None:
    module = model.get_submodule(name) if name else model
    model, run, inside = alone(model, run, name)
    across = _norm_across_heads(module, claims)
    if wrong := wrong_by_changes(model, run, inside, claims, heads_apart=not across):
        found.wrong[name] = f"oracle 2: {wrong}"
        return
    try:
        if wrong := wrong_by_equal_tokens(model, run, inside, claims):
            found.wrong[name] = f"oracle 1: {wrong}"
            return
        found.by_equal_tokens += 1
    except Applies as error:
        found.unapplied[name] = str(error)
    found.right += 1
    found.norm_across_heads += across


def _norm_across_heads(module: nn.Module, claims: Claims) -> bool:
    """Declared, not guessed: a norm of its own as wide as all the heads of queries or keys together."""
    widths = [
        sum(len(each) for each in claims[role].heads) // (claims[role].parameter.shape[-1] or 1)
        for role in ("W_q", "W_k")
    ]
    heads = len(claims["W_q"].heads)
    if heads < 2:
        return False
    for child, each in module.named_children():
        weight = getattr(each, "weight", None)
        wide = weight is not None and weight.ndim == 1 and weight.numel() in widths
        if wide and "norm" in child.lower() and any(letter in child.lower() for letter in ("q", "k")):
            return True
    return False
