"""The reader of questions for each task."""

from __future__ import annotations

from workers.trainer.inspection.model_input import Reader
from workers.trainer.inspection.scenes import read_scene
from workers.trainer.inspection.tokens import read_language, read_pointer, read_roles

READERS: dict[str, Reader] = {
    "roles": read_roles,
    "pointer": read_pointer,
    "language": read_language,
    "segment": read_scene,
}
