"""A missed bound of a benchmark is told always, and is an error only where that is asked for."""

from __future__ import annotations

import pytest

from benchmarks.stage import bounds


@pytest.fixture(autouse=True)
def _nothing_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "missed", [])


@pytest.mark.parametrize(("flags", "kept", "ends"), [([], False, 0), (["--strict"], True, 0), (["--strict"], False, 1)])
def test_only_a_missed_bound_under_strict_ends_with_an_error(
    flags: list[str], kept: bool, ends: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["bench", "sqlite", *flags])
    assert bounds.asked(["all"]) == ["sqlite"]
    assert bounds.mark("reading", kept) == ("" if kept else "  MISSED")
    if not ends:
        bounds.settle()
        return
    with pytest.raises(SystemExit) as left:
        bounds.settle()
    assert left.value.code == ends
