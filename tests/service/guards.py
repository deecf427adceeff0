"""Take a guard out of the product, for the control of a race: with it the race is lost, or the test proves nothing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from django.db import models


def without(model: type[models.Model], *lookups: str) -> AbstractContextManager[None]:
    """Within, filters on the model drop these lookups from every WHERE: `without(Run, "fence")`."""
    return _patched_filter(model, set(lookups))


@contextmanager
def _patched_filter(model: type[models.Model], dropped: set[str]) -> Any:
    plain = models.QuerySet.filter

    def unguarded(self: models.QuerySet[Any], *args: Any, **lookups: Any) -> models.QuerySet[Any]:
        if self.model is model:
            lookups = {name: value for name, value in lookups.items() if name not in dropped}
        return plain(self, *args, **lookups)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models.QuerySet, "filter", unguarded)
        yield


@contextmanager
def between(owner: Any, read: str, meanwhile: Callable[[], object]) -> Any:
    """Within, `meanwhile` happens once: right after the first call of `owner.read` that finds something, and before
    what follows it. That it happened is asserted."""
    plain = getattr(owner, read)

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        seen = plain(*args, **kwargs)
        if seen is not None:
            patch.setattr(owner, read, plain)
            meanwhile()
        return seen

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, read, interrupted)
        yield
        assert getattr(owner, read) == plain, f"{read} found nothing"
