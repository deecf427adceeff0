"""The compose file says what its published schema allows, and what we promise."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import yaml

from tests.deploy.compose import FILE, ROOT, services


def test_the_compose_file_fits_the_published_compose_specification() -> None:
    checker = Path(sys.executable).with_name("check-jsonschema")
    told = subprocess.run(
        [checker, "--builtin-schema", "vendor.compose-spec", FILE], capture_output=True, text=True, timeout=60
    )
    assert told.returncode == 0, told.stdout + told.stderr


def test_it_has_every_part_of_the_service() -> None:
    assert set(services()) == {
        "postgres", "redis", "migrate", "web", "reconciler", "worker-cpu", "worker-gpu", "explorer"
    }  # fmt: skip


def test_the_gpu_worker_reserves_a_device_and_starts_only_when_asked() -> None:
    gpu = services()["worker-gpu"]
    [device] = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["count"], device["capabilities"]) == ("nvidia", 1, ["gpu"])
    assert gpu["profiles"] == ["gpu"]


def test_every_secret_is_a_file_that_make_secrets_writes(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    subprocess.run([sys.executable, ROOT / "tools" / "make_secrets.py", folder], check=True, timeout=30)
    declared = yaml.safe_load(FILE.read_text())["secrets"]
    assert {Path(secret["file"]).name for secret in declared.values()} == {path.name for path in folder.iterdir()}
    assert folder.stat().st_mode & 0o077 == 0


def test_secrets_are_left_alone_when_they_exist(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "tools" / "make_secrets.py"), str(tmp_path / "secrets")]
    subprocess.run(command, check=True, timeout=30)
    before = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    subprocess.run(command, check=True, timeout=30)
    assert before == {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}


def test_every_secret_that_a_service_reads_is_given_to_it() -> None:
    asked = set[str]()
    for name, service in services().items():
        wanted = set(re.findall(r"/run/secrets/(\w+)", yaml.safe_dump(service)))
        assert wanted <= set(service.get("secrets", [])), name
        asked |= wanted
    assert asked == set(yaml.safe_load(FILE.read_text())["secrets"])


def test_the_images_start_what_compose_starts() -> None:
    """Each image's own CMD and the compose file's command must not drift apart."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    commands = [
        yaml.safe_load(line.removeprefix("CMD ")) for line in dockerfile.splitlines() if line.startswith("CMD ")
    ]
    assert commands == [services()["web"]["command"], services()["worker-cpu"]["command"]]
