"""The entry points of installed packages, as the worker publishes them. No package is imported."""

from __future__ import annotations

from importlib.metadata import entry_points

from experiments.spec.sections.plugins import GROUPS, is_plugin


def names() -> list[str]:
    """`<group>:<name>` of every entry point that a spec can name."""
    names = {f"{group}:{point.name}" for group in GROUPS for point in entry_points(group=f"attnservice.{group}")}
    return sorted(name for name in names if is_plugin(name.partition(":")[2]))
