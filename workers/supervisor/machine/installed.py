"""The names that packages installed here register, as the worker publishes them. Nothing of theirs is imported."""

from __future__ import annotations

from importlib.metadata import entry_points

from experiments.spec.sections.plugins import GROUPS, is_plugin


def names() -> list[str]:
    """`<group>:<name>` of every entry point that a spec can name."""
    found = {f"{group}:{point.name}" for group in GROUPS for point in entry_points(group=f"attnservice.{group}")}
    return sorted(name for name in found if is_plugin(name.partition(":")[2]))
