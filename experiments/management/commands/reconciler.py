"""`manage.py reconciler`: run until SIGTERM or SIGINT."""

from __future__ import annotations

import signal
import threading
from typing import Any

from django.core.management.base import BaseCommand

from experiments.maintenance.reconciler import Reconciler


class Command(BaseCommand):
    help = "Expire leases and ring for queued runs. Several may run; one acts."

    def handle(self, *args: Any, **options: Any) -> None:
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        Reconciler().run(stop)
