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
    Panel("loss", "Loss", ("loss/*",), "every term as it is, and their weighted sum"),
    Panel("eval", "Evaluation", ("eval/*",), "on the validation set"),  # losses apart, see _without_losses
    Panel(
        "grad",
        "Gradient norm",
        ("grad_norm/total",),
        "‖∂loss/∂W‖ over all weights of the optimizer's step, before clipping",
        log=True,
    ),
    Panel("lr", "Learning rate", ("lr",), "of the optimizer at each step", later=True),
    Panel(
        "clip",
        "Clip scale",
        ("grad_norm/clip_scale",),
        "what the step's gradients were multiplied by; 1: not clipped",
        later=True,
    ),
    Panel(
        "entropy",
        "Attention entropy",
        ("attn/entropy/*",),
        "−Σ A ln A ÷ ln(keys), mean over heads: 1 looks everywhere alike, 0 at one key; a fall to 0 is a collapse",
    ),
    Panel(
        "mass",
        "Mass on the object",
        ("attn/object_mass/*",),
        "share of attention on what is asked for; compare with the share of the image that it covers",
    ),
    Panel(
        "pointing",
        "Pointing",
        ("attn/pointing/*",),
        "how often the place that gets most attention lies on what is asked for",
    ),
    Panel(
        "same-object",
        "Mass on the same object",
        ("attn/same_object/*",),
        "share of attention that patches of an object keep on it; chance is the share of the image it covers",
    ),
    Panel(
        "spectral",
        "Sharpest comparison σ₁",
        ("attn/spectral_norm/*",),
        "largest singular value of W_q·W_kᵀ over heads: how sharp attention can get",
        log=True,
        later=True,
    ),
    Panel(
        "rank",
        "Directions compared",
        ("attn/effective_rank/*",),
        "effective rank of W_q·W_kᵀ, mean over heads: in how many directions a head compares",
        later=True,
    ),
    Panel(
        "asymmetry",
        "Asymmetry of self-attention",
        ("attn/asymmetry/*",),
        "‖A − Aᵀ‖ ÷ ‖A‖: 0 where the asked ask back, √2 where nobody does",
        later=True,
    ),
    Panel(
        "logit",
        "Largest attention logit",
        ("attn/logit_max/*",),
        "largest q·k before softmax; unbounded growth comes before divergence, and QK-norm stops it",
        later=True,
    ),
    *(
        Panel(f"{key}-heads", f"{title} by head", (f"attn/{key}/*/head.*",), "one line a head", later=True)
        for key, title in (
            ("entropy", "Attention entropy"),
            ("logit_max", "Largest attention logit"),
            ("asymmetry", "Asymmetry"),
            ("spectral_norm", "Sharpest comparison σ₁"),
            ("effective_rank", "Directions compared"),
        )
    ),
    Panel("flow", "Gradient along the chain", ("flow/**",), "norm at each station", log=True, later=True),
    Panel(
        "chain-error",
        "Chain against autograd",
        ("chain_error/*",),
        "‖Xᵀ·dQ − autograd's dW_q‖ ÷ ‖dW_q‖ on the probe batch; rounding is near 10⁻⁷, more where softmax cancels",
        log=True,
        later=True,
    ),
    Panel(
        "chain-bound",
        "Chain against its bound",
        ("chain_error/*/of_bound",),
        "the same difference ÷ the largest that rounding explains: above 1 a link is wrong",
        log=True,
        later=True,
    ),
    Panel(
        "chain-double",
        "Chain against autograd in double precision",
        ("chain_error/*/fp64",),
        "relative, on a copy of the model; from_loss: the mask loss' own way, every link by hand",
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
    return [*shown, *(Panel(f"other-{word}", word, _below(word, rest)) for word in words), *system]


def _below(word: str, names: list[str]) -> tuple[str, ...]:
    """Globs of the series of that name and below it, of those that match any."""
    return tuple(glob for glob in (word, f"{word}/**") if any(matches(name, [glob]) for name in names))


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
