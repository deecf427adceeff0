"""Query parameters that name something: unknown names get 400 with a suggestion.

An unknown name would give an empty answer, which looks like a result.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from experiments.models import Experiment, Group, Param, Project, Run
from experiments.models.definitions import AnyUser
from experiments.spec import FieldError
from experiments.spec.errors import did_you_mean
from experiments.states import ENDED
from experiments.store.choice import matches
from experiments.submissions.presets import presets

from .problems import Invalid
from .query import Query


def check_project(name: str | None, user: AnyUser) -> None:
    """Raises Invalid where the user may see no project of this name."""
    if name is None:
        return
    known = list(Project.objects.visible_to(user).values_list("name", flat=True).distinct())
    if name not in known:
        raise Invalid.at("project", f"there is no project '{name}', or you may not see it{did_you_mean(name, known)}")


def check_preset(name: str | None, user: AnyUser) -> None:
    """Raises Invalid where the name is no preset, and no experiment that the user may see was made from such a one."""
    if name is None or name in presets() or Experiment.objects.visible_to(user).filter(preset=name).exists():
        return
    raise Invalid.at("preset", f"there is no preset '{name}'{did_you_mean(name, presets())}")


def check_experiments(ids: Collection[int], user: AnyUser) -> None:
    """Raises Invalid that names the experiments which the user may not see."""
    known = set(Experiment.objects.visible_to(user).filter(pk__in=ids).values_list("pk", flat=True)) if ids else set()
    if missing := [str(each) for each in ids if each not in known]:
        raise Invalid.at("experiment", f"there is no experiment {', '.join(missing)}, or you may not see it")


def check_parameter(path: str | None, runs: Collection[int]) -> None:
    """Raises Invalid where none of the runs has this parameter, since all would form one group without a value."""
    if path is None or Param.objects.filter(run_id__in=runs, key=path).exists():
        return
    known = sorted(set(Param.objects.filter(run_id__in=runs).order_by().values_list("key", flat=True).distinct()))
    raise Invalid.at("by", f"none of these runs has the parameter '{path}'{did_you_mean(path, known)}")


def check_series(names: Sequence[str], runs: Collection[int]) -> None:
    """Raises Invalid at a name without `*` that none of the runs has recorded, once all of them have ended. A glob may
    match nothing. Costs a query where there is a name without `*`."""
    exact = [name for name in names if "*" not in name]
    if not exact:
        return
    recorded = _recorded(runs)
    unknown = without_match(exact, recorded)
    if unknown and not Run.objects.filter(pk__in=runs).exclude(state__in=ENDED).exists():
        raise Invalid(_no_series(name, recorded) for name in unknown)


def check_export(run: Run, names: Sequence[str], group: str | None) -> None:
    """Raises Invalid at names and globs that match nothing of an ended run: a file does not show what it lacks."""
    if not run.ended:
        return
    groups = sorted(set(Group.objects.filter(run=run).values_list("name", flat=True)))
    if group is not None and group not in groups:
        raise Invalid.at("group", f"this run has no group '{group}'{did_you_mean(group, groups)}")
    recorded = _recorded([run.pk])
    if unknown := without_match(names, recorded):
        raise Invalid(_no_series(name, recorded) for name in unknown)


def without_match(globs: Iterable[str], names: Collection[str]) -> list[str]:
    return [glob for glob in globs if not any(matches(name, [glob]) for name in names)]


def unmatched_part(query: Query, names: Collection[str]) -> dict[str, list[str]]:
    """The requested names and globs that match nothing, as a part of the answer; empty where there are none."""
    globs: list[str] = query.names if "names" in query.model_fields_set else []  # type: ignore[attr-defined]
    unmatched = without_match(globs, names)
    return {"unmatched": unmatched} if unmatched else {}


def _no_series(name: str, recorded: Iterable[str]) -> FieldError:
    if "*" in name:
        recorded = sorted({f"{series.rpartition('/')[0]}/*" for series in recorded})
    return FieldError(("names",), f"none of these runs has recorded '{name}'{did_you_mean(name, recorded)}")


def _recorded(runs: Collection[int]) -> list[str]:
    groups = Group.objects.filter(run_id__in=runs).order_by("run_id", "id").values_list("names", flat=True)
    return list(dict.fromkeys(name for names in groups for name in names))
