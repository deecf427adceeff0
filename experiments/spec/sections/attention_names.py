"""The closed lists of names that attention knows."""

from __future__ import annotations

from typing import Literal

Variant = Literal["full", "no_q", "no_k", "no_v", "tied_qk", "no_qk", "const_q", "uniform"]
