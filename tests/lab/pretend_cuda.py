"""A CUDA device on a machine that has none: tensors compute on the CPU and say that they lie on `cuda:0`.

What mixes the two devices, hands a device's tensor to NumPy, or makes a tensor without a device inside a computation,
fails as it would on a GPU; values are those of the CPU. Kernels, streams and asynchrony are not modelled: `make
gpu-smoke` is for them.

The device is a property of the storage, so that views and parameters share it. What autograd and C++ do is seen by a
dispatch mode, what Python asks of tensors (`.device`, `.to`, `device=`) by a function mode.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
STEP_MS = 7.0  # between any two events
THERE, HERE, EITHER = "cuda", "cpu", "either"
aten = torch.ops.aten
INDEXED = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default}
ON_HOST = {torch.Tensor.numpy, torch.Tensor.__array__}
GETTERS = {"device": torch.Tensor.device.__get__, "is_cuda": torch.Tensor.is_cuda.__get__}  # type: ignore[attr-defined]


class DeviceMixUp(RuntimeError):
    """A GPU would refuse this."""


class Places:
    """Which storages lie on the device. One that C++ has made for itself, as backward passes do, would lie where its
    companions do: it goes with either."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[StorageWeakRef, str]] = {}

    def of(self, tensor: Tensor) -> str:
        if tensor.layout != torch.strided:
            return EITHER
        known = self._known.get(tensor.untyped_storage()._cdata)
        return known[1] if known is not None and not known[0].expired() else HERE

    def has(self, tensor: Tensor) -> bool:
        return self.of(tensor) == THERE

    def put(self, found: Any, place: str) -> None:
        for tensor in tree_leaves(found):
            if isinstance(tensor, Tensor) and tensor.layout == torch.strided:
                storage = tensor.untyped_storage()
                self._known[storage._cdata] = StorageWeakRef(storage), place


class _Dispatch(TorchDispatchMode):
    def __init__(self, places: Places) -> None:
        super().__init__()
        self.places = places
        self.operations = 0  # that ran on the device

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        tensors = [each for each in tree_leaves((args, given)) if isinstance(each, Tensor)]
        places = [self.places.of(each) for each in tensors]
        found = func(*args, **given)
        if func is aten.copy_.default:  # between devices, by its nature
            return found
        if THERE in places:
            self.operations += 1
            self._check(func, [each for each, place in zip(tensors, places, strict=True) if place == HERE])
        if THERE in places or HERE not in places:
            self.places.put(found, THERE if THERE in places else EITHER)
        return found

    def _check(self, func: Any, on_cpu: list[Tensor]) -> None:
        """A single number of the host is taken by what works element by element, indices of the host by indexing."""
        if not on_cpu or (torch.Tag.pointwise in func.tags and all(each.ndim == 0 for each in on_cpu)):
            return
        if func in INDEXED and all(each.ndim == 0 or each.dtype in (torch.int64, torch.bool) for each in on_cpu):
            return
        shapes = ", ".join(str(tuple(each.shape)) for each in on_cpu)
        raise DeviceMixUp(f"{func}: tensors of shape {shapes} lie on the CPU, others on the device")


class _Functions(TorchFunctionMode):
    def __init__(self, places: Places) -> None:
        super().__init__()
        self.places = places

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if func == GETTERS["device"]:
            return CUDA if self.places.has(args[0]) else func(*args)
        if func == GETTERS["is_cuda"]:
            return self.places.has(args[0])
        if func in ON_HOST and self.places.has(args[0]):
            raise DeviceMixUp("can't convert a tensor of the device to NumPy")
        given.pop("pin_memory", None)
        if func in (torch.Tensor.to, torch.Tensor.cuda, torch.Tensor.cpu):
            return self._moved(func, args, given)
        if given.get("device") is not None:
            found = func(*args, **{**given, "device": CPU})
            self.places.put(found, torch.device(given["device"]).type)
            return found
        found = func(*args, **given)
        tensors = [each for each in tree_leaves((args, given)) if isinstance(each, Tensor)]
        if not tensors:  # made in Python, without a device
            self.places.put(found, HERE)
        elif func is torch.Tensor.__deepcopy__:
            self.places.put(found, self.places.of(tensors[0]))
        return found

    def _moved(self, func: Callable[..., Any], args: tuple[Any, ...], given: dict[str, Any]) -> Tensor:
        """`.to` in all its forms, `.cuda()` and `.cpu()`. A move is a copy."""
        tensor, asked = args[0], [*args[1:], *given.values()]
        was = self.places.of(tensor)
        place = {torch.Tensor.cuda: THERE, torch.Tensor.cpu: HERE}.get(func, was)
        dtype = tensor.dtype
        for each in asked:
            if isinstance(each, Tensor):
                place, dtype = self.places.of(each), each.dtype
            elif isinstance(each, torch.device | str):
                place = torch.device(each).type
            elif isinstance(each, torch.dtype):
                dtype = each
        found: Tensor = tensor.to(dtype)
        if place != was or given.get("copy"):
            found = found.clone() if found is tensor else found
            self.places.put(found, place)
        return found


class _Event:
    """Device work is done as soon as it is asked for."""

    def __init__(self, **_options: Any) -> None:
        self.stream: Any = None

    def record(self, stream: Any = None) -> None:
        self.stream = stream

    def query(self) -> bool:
        return True

    def synchronize(self) -> None: ...

    def elapsed_time(self, _end: Any) -> float:
        return STEP_MS


@contextmanager
def pretend_cuda() -> Iterator[_Dispatch]:
    """Inside, `cuda` is a device. Yields what counts the operations that ran there."""
    places = Places()
    asked: dict[str, Callable[..., Any]] = {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "is_bf16_supported": lambda *_: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "current_stream": lambda device=None: f"stream of {device}",
        "get_device_name": lambda _device=None: "Pretend",
        "get_rng_state": lambda _device=None: torch.arange(16, dtype=torch.uint8),
        "set_rng_state": lambda _state, _device=None: None,
        "memory_reserved": lambda _device=None: 0,
        "synchronize": lambda _device=None: None,
        "utilization": _unknown,
        "Event": _Event,
    }
    optimizers = sys.modules[torch.optim.Optimizer.__module__]
    group = optimizers._group_tensors_by_device_and_dtype

    def by_place(lists: Any, with_indices: bool = False) -> Any:
        """C++ asks tensors themselves where they lie."""
        found = group(lists, with_indices)
        return {(each[0][0].device, key[1]): (each, at) for key, (each, at) in found.items()}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optimizers, "_group_tensors_by_device_and_dtype", by_place)
        for name, answer in asked.items():
            patch.setattr(torch.cuda, name, answer)
        with _Dispatch(places) as dispatch, _Functions(places):
            yield dispatch


class NotSupported(Exception):
    """As NVIDIA's library raises: no RuntimeError."""


def _unknown(_device: Any = None) -> int:
    raise NotSupported("Not Supported")
