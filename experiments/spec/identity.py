"""The parts of the evidence key besides the spec hash. Pure.

Verdicts and reports pool runs of one spec hash only where these agree: a digest of the files that were read, the
revision of the training code, torch's major.minor and the kind of device.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

UNKNOWN = "unknown"  # the data digest of a run that read files before digests were stored


@dataclass(frozen=True)
class Identity:
    """The fields are named like the columns of a run. Empty or None: no trainer has reported a value."""

    data_digest: str = ""
    revision: int | None = None
    torch: str = ""
    device_kind: str = ""

    @classmethod
    def reported(cls, info: Mapping[str, Any]) -> Identity:
        """From an attempt's `info`, as its trainer sent it."""
        device = str(info.get("device", ""))
        return cls(
            data_digest=str(info.get("data_digest", "")),
            revision=info.get("revision"),
            torch=".".join(str(info.get("torch", "")).split("+")[0].split(".")[:2])[:32],
            device_kind=str(info.get("device_kind") or (device and ("cpu" if device == "cpu" else "cuda")))[:32],
        )

    def after(self, former: Identity) -> Identity:
        """The identity of a run that continues an attempt with the identity `former`. A part that changed holds both
        values, such as "cpu+cuda", so that the run is not pooled with others. A changed digest (of a package's code;
        other changed files are refused) becomes a digest of both."""
        return Identity(
            _one_of_both(former.data_digest, self.data_digest),
            self.revision,
            _both(former.torch, self.torch),
            _both(former.device_kind, self.device_kind),
        )

    @property
    def fields(self) -> dict[str, Any]:
        return asdict(self)


def _both(former: str, now: str) -> str:
    return "+".join(sorted({*former.split("+"), *now.split("+")} - {""}))[:32]


def _one_of_both(former: str, now: str) -> str:
    if former in {"", UNKNOWN, now}:
        return now
    return hashlib.sha256(f"{former}+{now}".encode()).hexdigest()
