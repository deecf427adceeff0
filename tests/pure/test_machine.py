"""What a worker finds out about its machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from workers.supervisor.machine import machine


@pytest.fixture
def asked_anew() -> Iterator[None]:
    machine.visible_gpus.cache_clear()
    yield
    machine.visible_gpus.cache_clear()


@pytest.mark.usefixtures("asked_anew")
def test_gpus_are_named_so_that_nvidia_smi_and_cuda_mean_the_same_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA's first GPU is the fastest, that of nvidia-smi is the first on the bus."""
    found = [{"index": "0", "uuid": "GPU-3a", "name": "small"}, {"index": "1", "uuid": "GPU-7c", "name": "large"}]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(machine, "gpus", lambda: found)
    assert machine.visible_gpus() == ("GPU-3a", "GPU-7c")
