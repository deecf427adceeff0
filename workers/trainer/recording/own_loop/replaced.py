"""Whether the matrices that a recording reads are still those of the model."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from workers.trainer.adapt.parts import Part


class Replaced:
    """Libraries replace parameters and layers of a model while it trains: pruning, merging an adapter, wrapping,
    quantising. What was read until then gets no gradient any more. Remembers the way from the model to each matrix's
    parameter, and follows it again: a look-up for each step of it."""

    def __init__(self, model: nn.Module, parts: Mapping[str, Part]) -> None:
        self.model = model
        ways: dict[int, list[list[str]]] = {}
        for name, parameter in model.named_parameters(remove_duplicate=False):
            ways.setdefault(id(parameter), []).append(name.split("."))
        self._parts = {name: (part.parameter, ways.get(id(part.parameter), [])) for name, part in parts.items()}

    def now(self) -> tuple[str, ...]:
        """Names of the matrices whose parameter is nowhere where it was."""
        return tuple(
            name
            for name, (parameter, ways) in self._parts.items()
            if not any(self._at(way) is parameter for way in ways)
        )

    def _at(self, way: list[str]) -> nn.Parameter | None:
        module: nn.Module | None = self.model
        for name in way[:-1]:
            module = None if module is None else module._modules.get(name)
        return None if module is None else module._parameters.get(way[-1])
