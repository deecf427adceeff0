"""Models of the library transformers as a spec names them: from a configuration, or from a folder of the operator.

Nothing is fetched and no code of a model's folder is run. What the data fix (how many words, how large the images)
is set where the configuration is silent and refused where it contradicts.
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

SEEN = 2  # samples of the batch that layouts are measured on
ROOT = "ATTN_MODELS_ROOT"  # environment: the folder that specs may name weights in
READ = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")


def build(spec: HfSpec, kind: str, sizes: Mapping[str, Any]) -> nn.Module:
    """The model as this seed starts it, not attached yet. `kind` is a class of transformers that holds a head, `sizes`
    are fields of the configuration that the data fix. Raises SpecError that names the field."""
    try:
        library = transformers()
    except LibraryMissing as error:
        raise wrong(("task",), str(error)) from None
    torch.manual_seed(zlib.crc32(f"{spec.seed}/hf".encode()))
    model = _loaded(library, spec.model, kind, sizes) if spec.model.path else _fresh(library, spec.model, kind, sizes)
    _freeze(model, spec.model)
    return model


def attach_on(model: nn.Module, run: Callable[[], object]) -> None:
    """Attach to a model, its layouts measured on a batch of the run's own data. Raises SpecError where it has no
    attention that can be read, or cannot take the batch."""
    try:
        attach(model, run)
    except (ValueError, TypeError, RuntimeError, AttributeError, KeyError, IndexError) as error:
        raise wrong(("model",), _line(error)) from None


def wrong(path: tuple[str, ...], message: str) -> SpecError:
    return SpecError([FieldError(path, message)])


def _fresh(library: Any, asked: HfModel, kind: str, sizes: Mapping[str, Any]) -> nn.Module:
    given: dict[str, Any] = dict(asked.config or {})
    name = str(given.pop("model_type"))
    for field, value in sizes.items():
        if given.setdefault(field, value) != value and field != "vocab_size":
            raise wrong(("model", "config", field), f"must be {value!r} on this data, or absent")
    try:
        config = library.AutoConfig.for_model(name, **given)
    except (KeyError, ValueError) as error:
        unknown = f"transformers {library.__version__} knows no model '{name}'"
        message = unknown if name not in library.CONFIG_MAPPING else _line(error)
        raise wrong(("model", "config", "model_type"), message) from None
    except Exception as error:  # its own checks of fields raise what they like
        raise wrong(("model", "config"), _line(error)) from None
    check_used(config, asked.config or {})
    try:
        return _of(library, kind, config)
    except (ValueError, TypeError, RuntimeError, AttributeError, KeyError, IndexError, ZeroDivisionError) as error:
        raise wrong(("model", "config"), f"{name} cannot be built as {kind}: {_line(error)}") from None


def _of(library: Any, kind: str, config: Any) -> nn.Module:
    """`AutoModelFor…` classes choose by configuration, others are the model itself."""
    owner = getattr(library, kind)
    model: nn.Module = owner.from_config(config) if kind.startswith("Auto") else owner(config)
    return model.train()


def _loaded(library: Any, asked: HfModel, kind: str, sizes: Mapping[str, Any]) -> nn.Module:
    folder = folder_of(asked)
    _told(asked.path or "", folder)
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
        raise wrong(("model", "path"), f"{asked.path}: cannot be loaded as {kind}: {_line(error)}") from None
    return model.train()


def _told(path: str, folder: Path) -> None:
    """Weights, configuration and tokenizer, each by its name: whatever of the folder the library may read."""
    try:
        for file in sorted(each for pattern in READ for each in folder.glob(pattern) if each.is_file()):
            digest.read_files(f"model.path {path}/{file.name}", [(file.name, file)])
    except OSError as error:
        raise wrong(("model", "path"), f"{path}: a file cannot be read ({error})") from None


def folder_of(asked: HfModel) -> Path:
    """The folder that `path` names. Raises SpecError where it is outside the root, missing, or no model."""
    told, path = os.environ.get(ROOT), asked.path or ""
    if not told:
        raise wrong(("model", "path"), f"{path}: this worker has no models root ({ROOT} is not set)")
    try:
        folder = below_root(Path(told), path)
    except DataError:
        raise wrong(("model", "path"), f"{path}: outside the models root") from None
    for needed in ("config.json", "*.safetensors"):
        if not any(folder.glob(needed)):
            raise wrong(("model", "path"), f"{path}: no {needed} in that folder below the models root")
    return folder


def _freeze(model: nn.Module, asked: HfModel) -> None:
    modules = dict(model.named_modules())
    for place, name in enumerate(asked.frozen):
        if name not in modules:
            known = ", ".join(child for child, _ in model.named_children())
            raise wrong(("model", "frozen", str(place)), f"there is no module '{name}'; at the top: {known}")
        modules[name].requires_grad_(False)


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:300]
