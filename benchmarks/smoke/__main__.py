"""Try the trainer on this machine's device, with torch and the checkout alone.

    python -m benchmarks.smoke [--device cuda] [--short] [--out FOLDER]

A line a check; `benchmarks/results/gpu-smoke-<device>.json`; exit status 1 where a check fails, 2 where packages of the
trainer itself are missing. What needs transformers, timm or peft is skipped by name. `--short` is the form that the
tests run. It is made to take under five minutes on a GPU.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the trainer does, before torch loads
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

RESULTS = Path(__file__).resolve().parents[1] / "results"
# Module, and the package that has it: what a trainer imports. No Django, no Celery, no Redis.
NEEDED = {
    "numpy": "numpy",
    "PIL": "pillow",
    "pyarrow": "pyarrow",
    "pycocotools": "pycocotools",
    "pydantic": "pydantic",
    "safetensors": "safetensors",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "torch": "torch",
    "yaml": "PyYAML",
}


def main() -> int:
    options = _options()
    missing = [package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        print(
            f"A trainer needs {', '.join(missing)}: {sys.executable} -m pip install {' '.join(missing)}",
            file=sys.stderr,
        )
        return 2
    import torch

    if options.device == "cuda" and not torch.cuda.is_available():
        print(
            f"torch {torch.__version__} sees no CUDA device here. DEVICE=cpu runs the same checks on the CPU",
            file=sys.stderr,
        )
        return 2
    from benchmarks.smoke.checks import run

    with tempfile.TemporaryDirectory() as scratch:
        report = run(options.device, short=options.short, scratch=Path(scratch))
    print(f"{report.summary()}; {report.write(options.out)}")
    return 1 if report.failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--short", action="store_true", help="one task and few cases of each check")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the result")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
