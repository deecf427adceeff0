"""Which charts a run's page shows: panels over the series names of the contract, and the attention sites."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from experiments.models import Group
from experiments.store.choice import matches


@dataclass(frozen=True)
class Panel:
    """One chart: the series whose names match `globs`, over steps or time."""

    key: str
    title: str
    globs: tuple[str, ...]
    help: str = ""
    log: bool = False
    later: bool = False  # below the heat-map: looked at when something is odd

    @property
    def names(self) -> str:
        return ",".join(self.globs)


PANELS = (
    Panel("loss", "Loss", ("loss/*",), "every term, weighted, and their sum"),
    Panel("eval", "Evaluation", ("eval/*",), "on the validation set"),  # losses apart, see _without_losses
    Panel("grad", "Gradient norm", ("grad_norm/total",), "before clipping", log=True),
    Panel("lr", "Learning rate", ("lr",), later=True),
    Panel("clip", "Clip scale", ("grad_norm/clip_scale",), "1 means: not clipped", later=True),
    Panel("entropy", "Attention entropy", ("attn/entropy/*",), "per site; low means sharp"),
    Panel("mass", "Mass on the object", ("attn/object_mass/*",), "share of attention inside the mask"),
    Panel("logit", "Largest attention logit", ("attn/logit_max/*",), "growth here precedes collapse", later=True),
    Panel("flow", "Gradient along the chain", ("flow/**",), "norm at each station", log=True, later=True),
    Panel(
        "chain-error",
        "Chain against autograd",
        ("chain_error/*",),
        "‖Xᵀ·dQ − autograd's dW_q‖ ÷ ‖dW_q‖ on the probe batch; rounding is near 10⁻⁷",
        log=True,
        later=True,
    ),
    Panel("time", "Step time", ("time/*",), "milliseconds", later=True),
)
_TAKEN_BY_MATRICES = ("grad_norm/*/W_*", "grad_norm/*/W_*/head.*", "update_ratio/*/W_*", "weight_norm/*/W_*")


def names_of(run_ids: Iterable[int]) -> list[str]:
    """Every series name of the runs, once, in the order a trainer told them."""
    return list(dict.fromkeys(name for names in names_by_run(run_ids).values() for name in names))


def names_by_run(run_ids: Iterable[int]) -> dict[int, list[str]]:
    """The series names of each run that recorded something."""
    found: dict[int, list[str]] = {}
    groups = Group.objects.filter(run_id__in=list(run_ids)).order_by("run_id", "id")
    for run, names in groups.values_list("run_id", "names"):
        found.setdefault(run, []).extend(names)
    return found


def panels_of(names: list[str]) -> list[Panel]:
    """The known panels that have something to show, then one for every other first word."""
    shown = [panel for panel in PANELS if any(matches(name, panel.globs) for name in names)]
    split = {"eval": _without_losses, "flow": _ladders}
    shown = [part for panel in shown for part in (split[panel.key](names) if panel.key in split else [panel])]
    known = [glob for panel in PANELS for glob in panel.globs]
    rest = [name for name in names if not matches(name, [*known, *_TAKEN_BY_MATRICES])]
    system = [Panel(name.replace("/", "-"), name, (name,), later=True) for name in rest if name.startswith("system/")]
    words = dict.fromkeys(name.partition("/")[0] for name in rest if not name.startswith("system/"))
    return [*shown, *(Panel(f"other-{word}", word, (word, f"{word}/**")) for word in words), *system]


def _without_losses(names: list[str]) -> list[Panel]:
    """Scores between 0 and 1 and losses do not share an axis."""
    found = [name for name in names if matches(name, ["eval/*"])]
    scores = tuple(name for name in found if "loss" not in name)
    losses = tuple(name for name in found if "loss" in name)
    both = (Panel("eval", "Evaluation", scores, "on the validation set"), Panel("eval-loss", "Evaluation loss", losses))
    return [panel for panel in both if panel.globs]


def _ladders(names: list[str]) -> list[Panel]:
    """One chart a site: its stations, from the loss's side to W_q."""
    sites = dict.fromkeys(name.split("/")[1] for name in names if matches(name, ["flow/*/*"]))
    about = "the gradient's norm at each station: pred, queries, out, mix, weights, logits, Q, W_q"
    return [
        Panel(f"flow-{site.replace('.', '-')}", f"Chain of {site}", (f"flow/{site}/*",), about, log=True, later=True)
        for site in sites
    ]
