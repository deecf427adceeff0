"""For operators: alarms as figures, checks of a deployment, log lines for machines."""

from __future__ import annotations

import io
import json
import logging
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.db.models.functions import Now

from attnservice.logs import Json, about
from experiments.api.operations.metrics import exposition
from experiments.maintenance import alarms
from experiments.models import Run, Worker
from tests.redis_server import RedisServer

from .factories import make_run, make_worker

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.db]


def examined(code: int) -> str:
    out = io.StringIO()
    if code:
        with pytest.raises(SystemExit) as ended:
            call_command("doctor", stdout=out)
        assert ended.value.code == code
    else:
        call_command("doctor", stdout=out)
    return out.getvalue()


def test_doctor_says_in_words_what_is_wrong(redis: RedisServer, settings: Any) -> None:
    make_run()
    told = examined(1)
    for words in ("answers", "all applied", "no living worker takes", "none has ever run", "Redis answers", "GiB free"):
        assert words in told
    assert "no heartbeat within" in told
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    assert "bad     broker" in examined(1)


def test_doctor_finds_a_sound_deployment_sound(redis: RedisServer, settings: Any) -> None:
    from experiments.maintenance.reconciler import Reconciler

    settings.SECRET_KEY = "x" * 60
    make_worker()
    Reconciler().tick()
    told = examined(0)
    assert "bad" not in told


def test_alarms_stand_in_the_metrics_and_in_the_log(settings: Any, caplog: pytest.LogCaptureFixture) -> None:
    run = make_run()
    worker = make_worker()
    Run.objects.filter(pk=run.pk).update(created=Now() - timedelta(seconds=500))
    Worker.objects.filter(pk=worker.pk).update(backlog=50 * 2**20)
    text = exposition().decode()
    line = next(each for each in text.splitlines() if each.startswith('attn_ready_seconds{pool="cpu"}'))
    assert 499 < float(line.split()[-1]) < 520
    assert f'attn_worker_backlog_bytes{{worker="{worker.name}"}} 5.24288e+07' in text
    assert "attn_leases_expired_total 0.0" in text
    with caplog.at_level(logging.WARNING):
        alarms.log_alarms()
    assert "queued but not claimed: pool cpu" in caplog.text
    assert "spool growing" in caplog.text


def test_a_log_line_is_json_and_names_run_and_attempt() -> None:
    record = logging.LogRecord("workers.lease_keeper", logging.WARNING, __file__, 1, "run %s: stopping", (7,), None)
    with about(run=7, attempt=3):
        line = json.loads(Json().format(record))
    assert (line["level"], line["message"], line["run"], line["attempt"]) == ("WARNING", "run 7: stopping", 7, 3)
    assert "run" not in json.loads(Json().format(record))
