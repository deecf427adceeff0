"""From values on the device to series: the recorder and what it measures, and `recording` for loops of one's own."""

from .own_loop.hf_trainer import recording_trainer
from .own_loop.record import recording

__all__ = ["recording", "recording_trainer"]
