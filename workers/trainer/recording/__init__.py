"""From values on the device to series: the recorder, what it measures, and `recording` for your own loops."""

from .own_loop.hf_trainer import recording_trainer
from .own_loop.record import recording

__all__ = ["recording", "recording_trainer"]
