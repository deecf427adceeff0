"""What several tests of data need."""

from __future__ import annotations

from pathlib import Path

import pytest

from workers.trainer.data.roots import ROOT


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root of the test's own."""
    folder = tmp_path / "root"
    folder.mkdir()
    monkeypatch.setenv(ROOT, str(folder))
    return folder
