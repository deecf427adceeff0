"""Whether the matrices that are recorded are still the model's."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from workers.trainer.adapt.parts import Part


class Replaced:
    """Libraries may replace parameters and layers during training: pruning, merging an adapter, wrapping, quantising.
    The old parameters get no more gradients. Remembers the path to each matrix's parameter and looks it up again."""

    def __init__(self, model: nn.Module, parts: Mapping[str, Part]) -> None:
        self.model = model
        paths: dict[int, list[list[str]]] = {}
        for name, parameter in model.named_parameters(remove_duplicate=False):
            paths.setdefault(id(parameter), []).append(name.split("."))
        self._parts = {name: (part.parameter, paths.get(id(part.parameter), [])) for name, part in parts.items()}

    def now(self) -> tuple[str, ...]:
        """Names of the matrices whose parameter has left all of its paths."""
        return tuple(
            name
            for name, (parameter, paths) in self._parts.items()
            if not any(self._at(path) is parameter for path in paths)
        )

    def _at(self, path: list[str]) -> nn.Parameter | None:
        module: nn.Module | None = self.model
        for name in path[:-1]:
            module = None if module is None else module._modules.get(name)
        return None if module is None else module._parameters.get(path[-1])
