"""Adapters around a linear layer (peft): the matrix that the layer applies, and the gradient with respect to it.

An adapted layer keeps the original as `base_layer`. It is linear in its input, so one matrix W_eff describes it: W +
s·B·A of LoRA, the rescaled one of DoRA. Autograd computes ∂L/∂A and ∂L/∂B only; ∂L/∂W_eff = dYᵀ·X is computed in the
backward pass from the layer's input and the gradient at its output. This costs a product and a matrix of W's size for
each adapted layer, as training W would.

Shapes: N tokens, I columns in, O columns out; W is [O, I], or [I, O] in a Conv1D.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from workers.trainer.adapt.evaluating import evaluating

from .parts import Part

KEPT = "_attn_adapter"


def unwrapped(layer: Any) -> Any:
    """The layer that holds W: inside adapters, or the trained copy of `modules_to_save`."""
    while True:
        if _is_copied(layer):
            copies = layer.modules_to_save
            active = [name for name in _names(getattr(layer, "active_adapter", ())) if name in copies]
            layer = copies[active[0]] if active and not _off(layer) else layer.original_module
        elif isinstance(layer, nn.Module) and isinstance(getattr(layer, "base_layer", None), nn.Module):
            layer = layer.base_layer
        else:
            return layer


def _is_copied(layer: Any) -> bool:
    """peft's `modules_to_save`: a copy is trained in place of the original."""
    return isinstance(getattr(layer, "modules_to_save", None), nn.ModuleDict) and hasattr(layer, "original_module")


def doubles(modules: Mapping[str, nn.Module]) -> set[str]:
    """Names of the originals and copies inside `modules_to_save`: the wrapper counts in their place."""
    names: set[str] = set()
    for name, module in modules.items():
        if _is_copied(module):
            names |= {each for each in modules if f"{each}.".startswith(f"{name}.original_module.")}
            names |= {f"{name}.modules_to_save.{copied}" for copied in module.modules_to_save}  # type: ignore[union-attr]
    return names


class Adapter:
    """One adapted layer. `grad` is ∂L/∂W_eff, summed over backward passes as `.grad` is; None when the adapter's own
    gradients are."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer
        base = unwrapped(layer)
        self.weight: nn.Parameter = base.weight
        self.by_rows = not isinstance(getattr(base, "nf", None), int)  # see layouts.matrix
        self._sum: Tensor | None = None
        self._gradient: Tensor | None = None  # of the current pass
        self._pass, self._starts_sum = -1, True
        self._hooked: set[int] = set()
        layer.register_forward_hook(self._called)

    @property
    def grad(self) -> Tensor | None:
        return None if self._sum is None or not self._gradients() else self._sum

    @property
    def own(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The adapter's parameters as `lora_A`, or `lora_A/<adapter>` with several adapters."""
        inner = [(name.split("."), each) for name, each in self.layer.named_parameters() if "base_layer" not in name]
        adapters = {path[1] for path, _ in inner if len(path) > 1}
        for path, parameter in inner:
            yield "/".join(path[: 2 if len(adapters) > 1 else 1]), parameter

    @torch.no_grad()
    def effective(self) -> Tensor:
        """W_eff, in the layout of W."""
        layer, weight = self.layer, self.weight.detach()
        if getattr(layer, "merged", False) or _off(layer):
            return weight
        active = [name for name in _names(layer.active_adapters) if name in getattr(layer, "lora_A", ())]
        variants = getattr(layer, "lora_variant", None) or {}
        if hasattr(layer, "lora_A") and not any(name in variants for name in active):
            return sum((layer.get_delta_weight(name).to(weight) for name in active), weight)
        return self._applied()

    def _applied(self) -> Tensor:
        """W_eff of any adapter, from the layer's outputs: f(1) − f(0)."""
        weight = self.weight
        size = weight.shape[1 if self.by_rows else 0]
        one = torch.eye(size, device=weight.device, dtype=weight.dtype)
        with evaluating(self.layer), torch.autocast(weight.device.type, enabled=False):
            # `forward` runs no hooks of others, which would take this for a step of training.
            applied: Tensor = self.layer.forward(one) - self.layer.forward(torch.zeros_like(one))  # IO
        return applied.T if self.by_rows else applied

    def _gradients(self) -> list[Tensor]:
        return [each.grad for _, each in self.own if each.grad is not None]

    def _called(self, _layer: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        if not args or not isinstance(args[0], Tensor) or not isinstance(out, Tensor) or not out.requires_grad:
            return
        if torch._C._functorch.is_functorch_wrapped_tensor(out):  # a transform of torch.func, not training
            return
        for _, parameter in self.own:
            if parameter.requires_grad and id(parameter) not in self._hooked:
                self._hooked.add(id(parameter))
                parameter.register_post_accumulate_grad_hook(self._accumulated)
        out.register_hook(partial(self._add, args[0].detach()))

    @torch.no_grad()
    def _add(self, x: Tensor, d_y: Tensor) -> None:
        """Add the gradient of one call. Instruments never end a training: where it cannot be computed there is none."""
        current = torch._C._current_graph_task_id()
        if current != self._pass:
            self._pass, self._gradient = current, None
            self._starts_sum = not any(bool(gradient.any()) for gradient in self._gradients())  # dropped, or zeroed
        try:
            gradient = self._product(x, d_y.detach())
            self._gradient = gradient if self._gradient is None else self._gradient + gradient
        except (RuntimeError, IndexError, AttributeError):
            self._gradient = None

    def _product(self, x: Tensor, d_y: Tensor) -> Tensor:
        wide = torch.float64 if d_y.dtype == torch.float64 else torch.float32
        flat = [each.flatten(0, -2) if each.ndim > 1 else each[None] for each in (x, d_y)]
        x_NI, d_NO = (each.to(wide) for each in flat)
        with torch.autocast(d_y.device.type, enabled=False):
            return d_NO.T @ x_NI if self.by_rows else x_NI.T @ d_NO

    @torch.no_grad()
    def _accumulated(self, _parameter: Tensor) -> None:
        """A gradient of the adapter was accumulated. A pass that accumulates none, as in `torch.autograd.grad`, adds
        nothing here either."""
        if self._gradient is not None and self._pass == torch._C._current_graph_task_id():
            self._sum = self._gradient if self._sum is None or self._starts_sum else self._sum + self._gradient
            self._gradient = None


def _off(layer: Any) -> bool:
    return bool(getattr(layer, "disable_adapters", False))


def _names(active: Any) -> list[str]:
    return [active] if isinstance(active, str) else list(active)


class SharedByAdapters(ValueError):
    """Two adapters of one attention apply the same weight, so that W_q is ambiguous."""


def adapters(*scopes: nn.Module | None) -> dict[int, list[Adapter]]:
    """Every adapted linear layer of the modules, by the identity of its W, which layers may share. Where several
    modules have a W, the first decides: the attention, then its parent."""
    known: dict[int, list[Adapter]] = {}
    for scope in scopes:
        inside: dict[int, list[Adapter]] = {}
        for module in scope.modules() if scope is not None else ():
            base = getattr(module, "base_layer", None)
            weight = getattr(base, "weight", None)
            if isinstance(base, nn.Module) and isinstance(weight, nn.Parameter) and weight.ndim == 2:
                inside.setdefault(id(weight), []).append(_of(module, weight))
        known = inside | known
    return known


def _of(layer: nn.Module, weight: nn.Parameter) -> Adapter:
    """The layer's one Adapter, however often `attach` is called."""
    known: Adapter | None = layer.__dict__.get(KEPT)
    if known is None or known.weight is not weight:
        known = layer.__dict__[KEPT] = Adapter(layer)
    return known


def adapted(parts: dict[str, Part], known: dict[int, list[Adapter]]) -> tuple[dict[str, Part], dict[str, Part]]:
    """The parts, with effective matrices where the layer has an adapter; and the adapters' own matrices, as
    `W_q/lora_A`, or `W_qkv/lora_A` where one layer holds several. Raises SharedByAdapters."""
    effective, own = dict(parts), dict[str, Part]()
    for key in dict.fromkeys(id(part.parameter) for part in parts.values()):
        for adapter in known.get(key, []):
            names = [name for name, part in parts.items() if id(part.parameter) == key]
            effective |= {name: replace(parts[name], adapter=adapter) for name in names}
            if len(known[key]) > 1:
                raise SharedByAdapters(f"two adapters change its {names[0]}, each in its own way")
            layer = "W_" + "".join(name.removeprefix("W_") for name in names)
            own |= {f"{layer}/{name}": Part(each, 0, True, _flat) for name, each in adapter.own}
    return effective, own


def _flat(tensor: Tensor) -> Tensor:
    return tensor.flatten(1) if tensor.ndim > 1 else tensor[None]
