"""How long a training step takes on its device."""

from __future__ import annotations

import time

import torch


class Stopwatch:
    """Runs from its creation to `stop`. On a GPU, which is still busy when calls return, two events in its stream
    measure the time, and `milliseconds` waits for them."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._events = [self._mark()] if device.type == "cuda" else []
        self._began = self._ended = time.perf_counter()

    def stop(self) -> None:
        self._ended = time.perf_counter()
        if self._events:
            self._events.append(self._mark())

    def milliseconds(self) -> float:
        if not self._events:
            return 1000 * (self._ended - self._began)
        began, ended = self._events
        ended.synchronize()
        return float(began.elapsed_time(ended))

    def _mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event
