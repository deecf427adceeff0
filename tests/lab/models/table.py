"""The table of the sweep, as it stands in docs/any-model.md between two markers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.lab.models.listing import Architecture

DOCS = Path(__file__).parents[3] / "docs" / "any-model.md"
BEGIN, END = "<!-- written by `make models` -->", "<!-- end of what `make models` writes -->"
COLUMNS = ("architecture", "attention", "sites", "right by changes", "right by equal tokens", "reported")
HEAD = f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|"
LIBRARIES = ("transformers", "timm", "torch")
Verdict = Mapping[str, Any]


def amiss(verdicts: Iterable[Verdict]) -> list[str]:
    """Attention that is neither right nor reported, and what failed, a line each."""
    lines = []
    for each in verdicts:
        name = f"{each['library']} {each['name']}"
        if "failed" in each:
            lines.append(f"{name}: {each['failed']}")
        lines += [f"{name}: silent: {module}" for module in each.get("silent", [])]
        lines += [f"{name}: wrong: {site}: {why}" for site, why in each.get("wrong", {}).items()]
    return lines


def line(each: Verdict) -> str:
    """One verdict while the sweep runs."""
    name = f"{each['library']} {each['name']}"
    if why := each.get("failed") or each.get("not_built"):
        return f"{name}: not built: {why}"
    counts = (
        f"{each['attentions']} attentions, {each['right']} of {each['sites']} sites right, {len(each['told'])} reported"
    )
    return f"{name}: {counts}{''.join(f', {why}' for why in amiss([each]))}"


def versions() -> str:
    return ", ".join(f"{name} {version(name).partition('+')[0]}" for name in LIBRARIES)


def written(verdicts: Sequence[Verdict], left: Collection[Architecture] = ()) -> str:
    """The summary, a row for each architecture with attention, and the names of the others; `left` are not judged."""
    ordered = sorted(verdicts, key=lambda each: (each["library"], each["name"]))
    built = [each for each in ordered if _built(each)]
    without = [f"{each['library']} {each['name']}" for each in built if not _attentive(each)]
    parts = [
        summary(ordered),
        "\n".join([HEAD, *(row(each) for each in built if _attentive(each))]),
        f"Built, and without attention ({len(without)}): {', '.join(without)}.",
        "\n".join(["Not built in a tiny configuration, and why:", "", *_not_built(ordered)]),
    ]
    if left:
        parts.append(f"Not judged yet ({len(left)}): {', '.join(map(str, sorted(left)))}.")
    return "\n\n".join(parts)


def _built(each: Verdict) -> bool:
    return not each.get("not_built") and "failed" not in each


def _attentive(each: Verdict) -> bool:
    return bool(each["attentions"] or each["told"])


def summary(verdicts: Sequence[Verdict]) -> str:
    built = [each for each in verdicts if _built(each)]
    attentive = [each for each in built if _attentive(each)]
    total = Counter[str]()
    for each in attentive:
        total.update({name: each[name] for name in ("sites", "right", "by_equal_tokens")})
        total.update(told=len(each["told"]), unapplied=len(each["unapplied"]))
    return (
        f"{versions()}: {len(verdicts)} architectures judged, {len(built)} built, {len(attentive)} of them with "
        f"attention. Of {total['sites']} sites {total['right']} are right by changes of weights, and "
        f"{total['by_equal_tokens']} of these by equal tokens too, which do not apply to {total['unapplied']}; "
        f"{total['told']} modules are reported, {len(amiss(verdicts))} are silent or wrong."
    )


def row(each: Verdict) -> str:
    name = f"{each['library']} {each['name']}"
    equal = "; ".join([str(each["by_equal_tokens"]), *_counted(each["unapplied"], "not applicable: ")])
    told = "; ".join(_counted(each["told"]))
    cells = [name, each["attentions"], each["sites"], each["right"], equal, told]
    return "| " + " | ".join(str(cell).replace("|", "/") for cell in cells) + " |"


def _counted(reasons: Mapping[str, str], before: str = "") -> list[str]:
    return [f"{before}{count} × {why}" for why, count in Counter(reasons.values()).items()]


def _not_built(verdicts: Iterable[Verdict]) -> list[str]:
    reasons = [(f"{each['library']} {each['name']}", each.get("not_built") or each.get("failed")) for each in verdicts]
    return [f"- {name}: {why.replace('|', '/')[:140]}" for name, why in reasons if why]


def write(text: str, path: Path = DOCS) -> None:
    before, _, rest = path.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def rows(path: Path = DOCS) -> dict[Architecture, str]:
    """The rows of the table that stands in the docs."""
    found = {}
    for each in _between(path).splitlines():
        if match := re.match(r"\| (transformers|timm) (\S+) \|", each):
            found[Architecture(match[1], match[2])] = each
    return found


def named(path: Path = DOCS) -> set[Architecture]:
    """Every architecture that the docs name."""
    return {Architecture(*each) for each in re.findall(r"(transformers|timm) ([\w.-]+[\w])", _between(path))}


def _between(path: Path) -> str:
    return path.read_text().partition(BEGIN)[2].partition(END)[0]
