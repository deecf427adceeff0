"""The trainer as a worker runs it: a process with orders, a kill and a resume, every variant, the CPU beside it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.numpy import load_file

from benchmarks.smoke.process import ordered
from benchmarks.smoke.received import Received, differences, trained
from benchmarks.smoke.report import Line, Skip
from benchmarks.smoke.specs import spec
from experiments.spec import Spec
from workers.protocol import Checkpoint, Result, Started
from workers.trainer.attention import INITIALIZERS
from workers.trainer.attention.variants import VARIANTS

SAME_AS_CPU = 1e-3  # of the first step, whose gradients differ by rounding alone
RESUMED = 1e-3  # where the run says that its kernels do not repeat themselves
COMPARED = ("loss/", "grad_norm/", "weight_norm/", "attn/", "flow/", "eval/loss")  # no counts of what is largest
EVALUATIONS = {"eval_every": 6, "checkpoint_every": 6, "predictions": 2}


def processes(device: str, names: tuple[str, ...], folder: Path) -> Iterator[Line]:
    """Each task in a process of its own with everything that a run does: evaluation, probes, maps, final scores."""
    for name in names:
        record = {"probe_every": 6, "finals": True, "maps_every": 6, "histograms": True}
        run = spec(name, device, train={"steps": 12, **EVALUATIONS}, record=record)
        received = ordered(run, folder / name)
        started, losses = received.of(Started)[0], received.points["loss/total"]
        wanted = torch.cuda.get_device_name() if device == "cuda" else "cpu"
        faults = [
            *([f"trained on {started.device}"] if (started.device, started.device_kind) != (wanted, device) else []),
            *([] if [each.step for each in received.of(Result)] == [12] else ["no result"]),
            *(f"{name} is not finite" for name in _broken(received)),
            *(f"no {group}" for group in ("eval/", "attn/", "test/") if not _any(received, group)),
        ]
        figure = f"12 steps on {started.device}, loss {losses[0]:.4g} → {losses[11]:.4g}, {len(received.points)} series"
        yield Line(f"trainer process: {name}", "; ".join([figure, *faults]), not faults)


def _broken(received: Received) -> list[str]:
    """Losses and norms that are not finite at some step, or do not stand at every step."""
    watched = {name: points for name, points in received.points.items() if name.startswith(("loss/", "grad_norm/"))}
    return [n for n, p in watched.items() if sorted(p) != list(range(12)) or not all(map(math.isfinite, p.values()))]


def _any(received: Received, group: str) -> bool:
    return any(name.startswith(group) for name in received.points)


def resumed(device: str, cases: tuple[tuple[str, str], ...], folder: Path) -> Iterator[Line]:
    """A run, and the same one killed in a process of its own after its checkpoint of six steps, then resumed: all
    values and weights."""
    for name, precision in cases:
        run = spec(name, device, train={"steps": 12, **EVALUATIONS, "precision": precision}, record={"probe_every": 6})
        place = folder / f"{name}-{precision}"
        whole = trained(run, place / "whole")
        killed = ordered(run, place / "killed", kill_at=lambda said: isinstance(said, Checkpoint))
        saved = killed.of(Checkpoint)[0]
        second = trained(run, place / "second", Path(saved.path))
        found = differences(whole.points, second.points, saved.step) | _weights(whole, second)
        yield _resumed(f"killed and resumed at step {saved.step}: {name} {precision}", whole, found)


def _resumed(check: str, whole: Received, found: dict[str, float]) -> Line:
    if not found:
        return Line(check, "every value and weight is identical to the bit", True)
    worst = max(found, key=lambda name: found[name])
    told = [notice.text for notice in whole.of(Started)[0].notices if notice.kind == "not_deterministic"]
    figure = f"{len(found)} series and weights differ, {worst} by {found[worst]:.2g} of its largest value"
    if told:
        return Line(check, f"{figure} (limit {RESUMED}: {told[0]})", found[worst] <= RESUMED)
    return Line(check, f"{figure}; the run says that it is deterministic", False)


def _weights(one: Received, other: Received) -> dict[str, float]:
    mine, theirs = (load_file(received.of(Checkpoint)[-1].path) for received in (one, other))
    points = (
        {f"file {k}": dict(enumerate(v.ravel().astype(float))) for k, v in each.items()} for each in (mine, theirs)
    )
    return differences(next(points), next(points))


def variants(device: str, names: tuple[str, ...], starts: tuple[str, ...], folder: Path) -> Iterator[Line]:
    """Each variant of attention with each initializer: three steps, losses and norms finite."""
    for name in names:
        for variant in VARIANTS:
            losses, faults = [], []
            for start in starts:
                model = {"attention": {"variant": variant, "init": start}}
                received = trained(spec(name, device, train={"steps": 3}, model=model), folder)
                losses.append(received.points["loss/total"][2])
                values = [
                    v for n, p in received.points.items() if n.startswith(("loss/", "grad_norm/")) for v in p.values()
                ]
                faults += [] if all(map(math.isfinite, values)) else [start]
            figure = "loss " + ", ".join(f"{loss:.4g} ({start})" for loss, start in zip(losses, starts, strict=True))
            yield Line(
                f"variant {variant}: {name}", f"{figure}{'; not finite: ' if faults else ''}{faults or ''}", not faults
            )


def same_as_cpu(device: str, names: tuple[str, ...], folder: Path) -> Iterator[Line]:
    """Losses, norms and gradients on their way of the first step, and probes after it, beside those of the CPU."""
    if device == "cpu":
        raise Skip("this is the CPU")
    for name in names:
        runs: list[Spec] = [spec(name, place, train={"steps": 1}, optimizer={"lr": 1e-6}) for place in (device, "cpu")]
        mine, cpu = ({n: p[0] for n, p in trained(run, folder).points.items()} for run in runs)
        compared = [n for n in cpu if n.startswith(COMPARED) and "/pointing/" not in n]
        # A gradient that nearly cancels is known to the rounding of what it is a sum of.
        floor = {"grad_norm": cpu["grad_norm/total"], "flow": max(v for n, v in cpu.items() if n.startswith("flow/"))}
        errors = {n: _apart(mine.get(n, math.nan), cpu[n], floor.get(n.partition("/")[0], 0.0)) for n in compared}
        worst = max(errors, key=lambda n: math.inf if math.isnan(errors[n]) else errors[n])
        figure = (
            f"{len(compared)} series, largest relative difference {errors[worst]:.2g} ({worst}; limit {SAME_AS_CPU})"
        )
        yield Line(f"as on the CPU: {name}", figure, errors[worst] <= SAME_AS_CPU)


def _apart(value: float, truth: float, whole: float) -> float:
    return 0.0 if value == truth else abs(value - truth) / max(abs(truth), 1e-3 * whole)


INITS = tuple(INITIALIZERS)
