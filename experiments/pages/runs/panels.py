"""The charts of a run's page, by the names of its series."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import chain

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
    later: bool = False  # below the heat-map, under "More curves"

    @property
    def names(self) -> str:
        return ",".join(self.globs)


PANELS = (
    Panel("loss", "Loss", ("loss/*",), "every term without its weight, and their weighted sum"),
    Panel("eval", "Evaluation", ("eval/*",), "on the validation set"),  # split by _evaluation
    Panel("grad", "Gradient norm", ("grad_norm/total",), "‖∂loss/∂W‖ over all weights, before clipping", log=True),
    Panel("lr", "Learning rate", ("lr",), "of the optimizer", later=True),
    Panel("clip", "Clip scale", ("grad_norm/clip_scale",), "factor of gradient clipping; 1: not clipped", later=True),
    Panel(
        "entropy",
        "Attention entropy",
        ("attn/entropy/*",),
        "−Σ A ln A ÷ ln(keys), mean over heads: 1 is uniform, 0 is one key; a fall to 0 is a collapse",
    ),
    Panel(
        "mass",
        "Mass on the object",
        ("attn/object_mass/*",),
        "share of attention on the prompted object; chance is the share of the image that it covers",
    ),
    Panel("pointing", "Pointing", ("attn/pointing/*",), "how often the attention maximum lies on the prompted object"),
    Panel(
        "same-object",
        "Mass on the same object",
        ("attn/same_object/*",),
        "share of attention from an object's patches to that object; chance is the share of the image that it covers",
    ),
    Panel(
        "spectral",
        "Largest singular value σ₁",
        ("attn/spectral_norm/*",),
        "of W_q·W_kᵀ, maximum over heads: bounds how sharp attention can get",
        log=True,
        later=True,
    ),
    Panel(
        "rank",
        "Effective rank",
        ("attn/effective_rank/*",),
        "of W_q·W_kᵀ, mean over heads: the number of directions in which a head compares",
        later=True,
    ),
    Panel(
        "asymmetry",
        "Asymmetry of self-attention",
        ("attn/asymmetry/*",),
        "‖A − Aᵀ‖ ÷ ‖A‖: 0 where attention is symmetric, √2 where no attention is mutual",
        later=True,
    ),
    Panel(
        "logit",
        "Largest attention logit",
        ("attn/logit_max/*",),
        "largest q·k before softmax; unbounded growth precedes divergence, and QK-norm prevents it",
        later=True,
    ),
    *(
        Panel(f"{key}-heads", f"{title} by head", (f"attn/{key}/*/head.*",), "one line per head", later=True)
        for key, title in (
            ("entropy", "Attention entropy"),
            ("logit_max", "Largest attention logit"),
            ("asymmetry", "Asymmetry"),
            ("spectral_norm", "Largest singular value σ₁"),
            ("effective_rank", "Effective rank"),
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
        "the same difference ÷ the rounding bound: above 1 a link is wrong",
        log=True,
        later=True,
    ),
    Panel(
        "chain-double",
        "Chain against autograd in double precision",
        ("chain_error/*/fp64",),
        "relative, on a copy of the model; from_loss: from the mask loss, every link analytic",
        log=True,
        later=True,
    ),
    Panel("time", "Step time", ("time/*",), "milliseconds", later=True),
)
# For tasks whose inputs are tokens: what the object is there.
_TOKEN_TASKS = ("pointer", "roles")
_FOR_TOKENS = {
    "mass": {
        "title": "Mass on the related tokens",
        "help": "share of attention on the tokens that the query must attend to, of each site's best head",
    },
    "pointing": {"help": "how often the attention maximum lies on a token that the query must attend to"},
}
_TITLES = {"test": "Test set"}  # of panels named by the first word of their series
_HEAT_MAP = ("grad_norm/*/W_*", "grad_norm/*/W_*/head.*", "update_ratio/*/W_*", "weight_norm/*/W_*")
_KNOWN = [*_HEAT_MAP, *chain.from_iterable(panel.globs for panel in PANELS)]


def names_of(run_ids: Iterable[int]) -> list[str]:
    """Every series name of the runs, once, in the order of recording."""
    return list(dict.fromkeys(chain.from_iterable(names_by_run(run_ids).values())))


def names_by_run(run_ids: Iterable[int]) -> dict[int, list[str]]:
    """The series names of each run that recorded something."""
    by_run: dict[int, list[str]] = {}
    groups = Group.objects.filter(run_id__in=list(run_ids)).order_by("run_id", "id")
    for run, names in groups.values_list("run_id", "names"):
        by_run.setdefault(run, []).extend(names)
    return by_run


def panels_of(names: list[str], task: str) -> list[Panel]:
    """The known panels that have data, one for every other first word, one for every series of the system."""
    panels: list[Panel] = []
    for panel in _panels_for(task):
        if _matching(names, panel.globs):
            split = _SPLIT.get(panel.key)
            panels += split(names) if split else [panel]
    return [*panels, *_others([name for name in names if not matches(name, _KNOWN)])]


def _panels_for(task: str) -> Iterable[Panel]:
    texts: dict[str, dict[str, str]] = _FOR_TOKENS if task in _TOKEN_TASKS else {}
    return (replace(panel, **texts.get(panel.key, {})) for panel in PANELS)  # type: ignore[arg-type]


def _others(names: list[str]) -> list[Panel]:
    """One panel for each first word, then one for each series of the system."""
    system = [name for name in names if name.startswith("system/")]
    words = dict.fromkeys(name.partition("/")[0] for name in names if name not in system)
    panels = [Panel(f"other-{word}", _TITLES.get(word, word), _below(word, names)) for word in words]
    return [*panels, *(Panel(name.replace("/", "-"), name, (name,), later=True) for name in system)]


def _matching(names: list[str], globs: Iterable[str]) -> list[str]:
    return [name for name in names if matches(name, globs)]


def _below(word: str, names: list[str]) -> tuple[str, ...]:
    """Globs of the series of that name and below it, of those that match any."""
    return tuple(glob for glob in (word, f"{word}/**") if _matching(names, [glob]))


def _evaluation(names: list[str]) -> list[Panel]:
    """Scores between 0 and 1 and losses do not share an axis."""
    series = _matching(names, ["eval/*"])
    losses = tuple(name for name in series if "loss" in name)
    scores = tuple(name for name in series if name not in losses)
    both = (Panel("eval", "Evaluation", scores, "on the validation set"), Panel("eval-loss", "Evaluation loss", losses))
    return [panel for panel in both if panel.globs]


def _chains(names: list[str]) -> list[Panel]:
    """One chart per site: its stations, from the loss to W_q."""
    sites = dict.fromkeys(name.split("/")[1] for name in _matching(names, ["flow/*/*"]))
    about = "gradient norm at each station: pred, queries, out, mix, weights, logits, Q, W_q"
    return [
        Panel(f"flow-{site.replace('.', '-')}", f"Chain of {site}", (f"flow/{site}/*",), about, log=True, later=True)
        for site in sites
    ]


_SPLIT: dict[str, Callable[[list[str]], list[Panel]]] = {"eval": _evaluation, "flow": _chains}
