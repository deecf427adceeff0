"""Templates, styles and scripts use the field's terms; the words they replaced do not come back."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "experiments"
FILES = sorted(
    path
    for folder in (ROOT / "templates", ROOT / "static" / "attn")
    for path in folder.rglob("*")
    if path.suffix in {".html", ".js", ".css"}
)
FORBIDDEN = {
    r"the line\b(?! of|,)|in line\b": "queue",
    r"askers?|answerers?|looked.?at|looks": "query, key, attention row, attention column",
    r"parcel\w*|shipp\w*": "archived block, archiving",
    r"leftovers?": "pending deletion, orphans",
    r"turns?": "write throttle",
    r"leash": "parent-death signal",
    r"evidence": "run outputs, samples",
    r"gauges?": "metrics, norms",
    r"duties|watchm[ae]n|ears": "lease keeper, watchdog, stop listener",
    r"fleet|company|customers?|mischief": "workers, cluster, load, faults",
    r"explore|explorers?": "inspect, inspection worker",
    r"departure": "shutdown deadline",
    r"nobody|anybody|lately|lets go|whom|whoever": "plain English",
    r"pick(ed|s)? (two|other|run)": "select",
}
# Lines that may hold such a word, by a part of the line, with the reason.
ALLOWED = {
    '"asker"': "a query parameter",
    '"answerer"': "a query parameter",
    "asker: query": "fields of a question in REST, and query parameters",
    "answerer: key": "fields of a question in REST, and query parameters",
    "site.askers": "a field of an answer in REST",
    "{ askers, answerers }": "fields of an answer in REST",
    "askers)": "a field of an answer in REST",
    "answerers)": "a field of an answer in REST",
    "focus.asker": "fields of an answer in REST",
    "the thicker the line": "a line of a drawing",
    "What the line does not show": "a line of a chart",
    "whole line": "a line of a form",
    "report.looks": "looks at the data, a term of sequential tests",
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_of_the_pages_uses_the_fields_terms(path: Path) -> None:
    lines = path.read_text().splitlines()
    found = [
        f"{number}: {line.strip()} ({term})" for number, line in enumerate(lines, start=1) for term in _terms(line)
    ]
    assert not found


def test_the_reader_finds_a_word() -> None:
    assert len(FILES) > 100
    assert list(_terms("<p>Asked to wait in line, by the explorer</p>")) == ["queue", "inspect, inspection worker"]
    assert list(_terms('recall("asker")')) == []


def _terms(line: str) -> list[str]:
    """The terms to use instead of the line's words."""
    if any(part in line for part in ALLOWED):
        return []
    return [term for word, term in FORBIDDEN.items() if re.search(rf"\b(?:{word})\b", line, re.IGNORECASE)]
