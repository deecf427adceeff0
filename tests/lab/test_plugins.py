"""Own code: the worked example of docs/examples is installed with pip and trained for real."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from torch import nn

from experiments.spec import SpecError, parse_spec, resolved
from experiments.spec.sections.plugins import needs
from experiments.submissions.estimates import parameters
from tests.lab.collected import train_collected
from workers.trainer.attention import Attention

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "attn-example"


def recall() -> dict[str, Any]:
    raw: dict[str, Any] = yaml.safe_load((EXAMPLE / "recall.yaml").read_text())
    return raw


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a worker where the package is installed, in a folder of its own."""
    folder = tmp_path_factory.mktemp("installed")
    source = shutil.copytree(EXAMPLE, folder / "source")  # pip builds inside
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    target = folder / "packages"
    subprocess.run([sys.executable, "-m", "pip", "install", *options, "--target", target, source], check=True)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(target), str(ROOT)]), "OMP_NUM_THREADS": "1"}


def python(environment: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)


def test_an_installed_package_trains_with_its_variant_dataset_and_task(
    installed: dict[str, str], tmp_path: Path
) -> None:
    told = python(installed, "-m", "workers.trainer", "run", EXAMPLE / "recall.yaml", "--out", tmp_path)
    assert told.returncode == 0, told.stdout + told.stderr
    values = {group: read(tmp_path / f"{group}.arrow") for group in ("train", "test", "probe")}
    assert values["test"]["test/accuracy"][-1] > 0.9  # a sixth by chance
    assert len(values["train"]["grad_norm/encoder.0.self/W_q/head.1"]) == 150
    assert max(values["train"]["grad_norm/encoder.0.self/W_q"]) > 0


def read(path: Path) -> dict[str, list[float]]:
    with pa.ipc.open_stream(str(path)) as reader:
        table = reader.read_all()
    names = table.schema.metadata[b"names"].decode().split("\n")
    return dict(zip(names, zip(*table["values"].to_pylist(), strict=True), strict=True))


def test_a_worker_publishes_what_is_installed_without_importing_it(installed: dict[str, str]) -> None:
    code = (
        "import sys; from workers.supervisor.machine import installed; "
        "print(installed.names(), 'attn_example' in sys.modules)"
    )
    told = python(installed, "-c", code)
    names = ["datasets:attn_example.first", "tasks:attn_example.recall", "variants:attn_example.linear"]
    assert told.stdout.strip() == f"{names} False"


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (recall(), "task"),
        (
            {
                "task": "pointer",
                "data": {"dataset": "pointer"},
                "model": {"attention": {"variant": "attn_example.linear"}},
            },
            "model.attention.variant",
        ),
    ],
    ids=["task", "variant"],
)
def test_a_worker_without_the_package_says_what_it_lacks(raw: dict[str, Any], path: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"this worker has no 'attn_example\.\w+' among its") as caught:
        train_collected(parse_spec(raw), tmp_path)
    assert caught.value.errors[0].dotted == path


def test_a_spec_tells_what_it_needs_of_packages() -> None:
    spec = parse_spec(recall())
    assert needs(resolved(spec)) == {
        "tasks:attn_example.recall": ("task",),
        "datasets:attn_example.first": ("data", "dataset"),
        "variants:attn_example.linear": ("model", "attention", "variant"),
    }
    assert parameters(spec) is None
    assert needs(resolved(parse_spec({"task": "pointer", "data": {"dataset": "pointer"}}))) == {}


def test_a_variant_with_a_start_of_its_own_is_refused_by_name() -> None:
    def start(self: Attention, parameter: nn.Parameter) -> None:
        nn.init.zeros_(parameter)

    with pytest.raises(TypeError, match="`initialize`"):
        type("Zero", (Attention,), {"start": start})
