"""`make verdicts`: runs the service on a data folder of its own, trains every preset as far as its verdict needs, and
writes docs/verdicts.md from the results. Stopped and started again, it continues."""

from __future__ import annotations

import os
import time
from pathlib import Path

from attnservice.local.child import Child
from attnservice.local.console import write_line
from attnservice.local.environment import ROOT
from attnservice.local.service import LOOK_EVERY_S, Service

REPORT_EVERY_S = 15.0


class Verdicts(Service):
    """The service of `make run` with a slot for each core; it ends when nothing is left to train."""

    def __init__(self, data: Path, port: int, *, quick: bool, into: Path = ROOT / "docs") -> None:
        super().__init__(data, port, demo=False)
        self.slots = os.cpu_count() or 1
        self.quick, self.into = quick, into

    def _watch(self) -> None:
        from django.contrib.auth import get_user_model

        from experiments.models import Project
        from experiments.verdicts.campaign import campaign
        from experiments.verdicts.document import write

        began, wanted = time.monotonic(), campaign(self.quick)
        owner = get_user_model().objects.filter(is_superuser=True).earliest("pk")
        new = wanted.submit_missing(Project.objects.earliest("pk"), owner)
        write_line(f"  {len(wanted.hashes)} distinct specs, {new} of them to train on {self.slots} slots")
        reported = 0.0
        while not (now := wanted.progress()).done:
            if time.monotonic() - reported > REPORT_EVERY_S:
                reported = time.monotonic()
                write_line(
                    f"  {now.succeeded} of {now.wanted} succeeded, {now.failed} failed, after {reported - began:.0f} s"
                )
            if not self._wait():
                return
        write_line(
            f"  {now.succeeded} of {now.wanted} succeeded, {now.failed} failed, after {time.monotonic() - began:.0f} s"
        )
        write_line(f"  Written: {write(self.into, owner, quick=self.quick)}")

    def _wait(self) -> bool:
        """Wait two seconds, restarting children that died. False if asked to stop."""
        for _ in range(10):
            if self._asked:
                return False
            self._revive()
            time.sleep(LOOK_EVERY_S)
        return True

    def _start(self, child: Child) -> None:
        """All but the inspection worker: no checkpoint is asked here."""
        if child.name != "inspection":
            super()._start(child)
