"""Models of the library transformers as a spec names them: from a configuration, or from a folder of the operator.

Nothing is downloaded and no code of a model's folder is run. Fields that the data determine (number of words, size of
images) are set if the configuration leaves them out, and refused if it contradicts.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from experiments.spec import FieldError, HfModel, HfSpec, SpecError
from workers.trainer.adapt import attach
from workers.trainer.data import digest
from workers.trainer.data.errors import DataError
from workers.trainer.data.roots import below_root
from workers.trainer.tasks.hf.config import check_used
from workers.trainer.tasks.hf.library import LibraryMissing, transformers

SEEN = 2  # samples of the batch on which layouts are measured
ROOT = "ATTN_MODELS_ROOT"  # environment variable: the folder below which specs may name weights
FAILURES = (ValueError, TypeError, RuntimeError, AttributeError, KeyError, IndexError)  # of the library on odd sizes
READ = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")


def build(spec: HfSpec, kind: str, sizes: Mapping[str, Any]) -> nn.Module:
    """The model as this seed initializes it, not attached yet. `kind` is a class of transformers with a head, `sizes`
    are fields of the configuration that the data determine. Raises SpecError that names the field."""
    try:
        library = transformers()
    except LibraryMissing as error:
        raise wrong(("task",), str(error)) from None
    torch.manual_seed(zlib.crc32(f"{spec.seed}/hf".encode()))
    model = _loaded(library, spec.model, kind, sizes) if spec.model.path else _fresh(library, spec.model, kind, sizes)
    _freeze(model, spec.model)
    return model


def attach_on(model: nn.Module, run: Callable[[], object]) -> None:
    """Attach to a model, with layouts measured on a batch of the run's data. Raises SpecError if it has no attention
    that can be read, or cannot process the batch."""
    try:
        attach(model, run)
    except FAILURES as error:
        raise wrong(("model",), _line(error)) from None


def wrong(path: tuple[str, ...], message: str) -> SpecError:
    return SpecError([FieldError(path, message)])


def _fresh(library: Any, spec: HfModel, kind: str, sizes: Mapping[str, Any]) -> nn.Module:
    given: dict[str, Any] = dict(spec.config or {})
    name = str(given.pop("model_type"))
    for field, value in sizes.items():
        if given.setdefault(field, value) != value and field != "vocab_size":
            raise wrong(("model", "config", field), f"must be {value!r} on this data; correct it or leave it out")
    try:
        config = library.AutoConfig.for_model(name, **given)
    except (KeyError, ValueError) as error:
        unknown = f"transformers {library.__version__} knows no model '{name}'"
        message = unknown if name not in library.CONFIG_MAPPING else _line(error)
        raise wrong(("model", "config", "model_type"), message) from None
    except Exception as error:  # its checks of fields raise any error
        raise wrong(("model", "config"), _line(error)) from None
    check_used(config, spec.config or {})
    try:
        return _of(library, kind, config)
    except (*FAILURES, ZeroDivisionError) as error:
        raise wrong(("model", "config"), f"{name} cannot be built as {kind}: {_line(error)}") from None


def _of(library: Any, kind: str, config: Any) -> nn.Module:
    """`AutoModelFor…` classes choose by configuration; others are the model itself."""
    owner = getattr(library, kind)
    model: nn.Module = owner.from_config(config) if kind.startswith("Auto") else owner(config)
    return model.train()


def _loaded(library: Any, spec: HfModel, kind: str, sizes: Mapping[str, Any]) -> nn.Module:
    folder = folder_of(spec)
    _digest(spec.path or "", folder)
    keep = {name: value for name, value in sizes.items() if name == "num_labels"}
    try:
        model: nn.Module = getattr(library, kind).from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=bool(keep),  # a new head for other classes
            dtype=torch.float32,
            **keep,
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise wrong(("model", "path"), f"{spec.path}: cannot be loaded as {kind}: {_line(error)}") from None
    return model.train()


def _digest(path: str, folder: Path) -> None:
    """Record every file of the folder that the library may read, by its name."""
    try:
        for file in sorted(path for pattern in READ for path in folder.glob(pattern) if path.is_file()):
            digest.read_files(f"model.path {path}/{file.name}", [(file.name, file)])
    except OSError as error:
        raise wrong(("model", "path"), f"{path}: a file cannot be read ({error})") from None


def folder_of(spec: HfModel) -> Path:
    """The folder that `path` names. Raises SpecError if it is outside the root, missing, or no model."""
    root, path = os.environ.get(ROOT), spec.path or ""
    if not root:
        raise wrong(("model", "path"), f"{path}: this worker has no models root; its operator sets {ROOT}")
    try:
        folder = below_root(Path(root), path)
    except DataError:
        raise wrong(("model", "path"), f"{path}: outside the models root; name a folder below it") from None
    for needed in ("config.json", "*.safetensors"):
        if not any(folder.glob(needed)):
            raise wrong(("model", "path"), f"{path}: no {needed} in that folder below the models root")
    return folder


def _freeze(model: nn.Module, spec: HfModel) -> None:
    modules = dict(model.named_modules())
    for index, name in enumerate(spec.frozen):
        if name not in modules:
            known = ", ".join(child for child, _ in model.named_children())
            raise wrong(("model", "frozen", str(index)), f"there is no module '{name}'; top-level modules: {known}")
        modules[name].requires_grad_(False)


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:300]
