"""Links between documents lead somewhere, and indexes list what there is."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
DECISIONS = sorted(path for path in (DOCS / "decisions").glob("*.md") if path.name != "README.md")
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
FENCED = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]*`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
FOLDERS = "attnservice|benchmarks|docs|experiments|tests|tools|workers"
PATH = re.compile(rf"`((?:{FOLDERS})/[^`\s<*{{:]*)`")
ROW = re.compile(r"^\| \[(\d{4})\]\(([^)]+)\) \| (.+) \|$", re.MULTILINE)


def links(text: str) -> Iterator[str]:
    """Relative links outside of code, with their anchors."""
    prose = CODE.sub("", FENCED.sub("", text))
    return (target for target in LINK.findall(prose) if not re.match(r"[a-z]+:", target))


@cache
def anchors(page: Path) -> frozenset[str]:
    """The anchors that a page's headings have on the repository's host."""
    headings = re.findall(r"^#+ +(.+?) *$", FENCED.sub("", page.read_text("utf-8")), re.MULTILINE)
    words = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return frozenset(text.replace(" ", "-") for text in words)


def leads_nowhere(page: Path, target: str) -> bool:
    """Whether a link of `page` leads to no file of the checkout, or to no heading of that file."""
    path, _, anchor = target.partition("#")
    led = (page.parent / path).resolve() if path else page
    if not led.exists() or not led.is_relative_to(ROOT):
        return True
    return bool(anchor) and led.suffix == ".md" and anchor not in anchors(led)


def broken(page: Path, text: str) -> list[str]:
    """The links of `text`, as written in `page`, that lead nowhere."""
    return [target for target in links(text) if leads_nowhere(page, target)]


def title(decision: Path) -> str:
    """Its first heading, without the number that some repeat."""
    heading = decision.read_text("utf-8").splitlines()[0]
    return re.sub(r"^# (\d{4}[.:]? )?", "", heading)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file(page: Path) -> None:
    assert broken(page, page.read_text("utf-8")) == []


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=lambda page: page.stem)
def test_every_path_of_the_code_that_a_page_names_exists(page: Path) -> None:
    """The changelog tells what was; patterns such as `results/<date>.json` are left out."""
    named = PATH.findall(FENCED.sub("", page.read_text("utf-8")))
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_a_map_of_the_code_names_its_paths() -> None:
    assert len(PATH.findall((DOCS / "architecture.md").read_text("utf-8"))) > 20


@pytest.mark.parametrize("target", ["absent.md", "../../etc/passwd", "README.md#no-such-heading", "#nor-this"])
def test_a_link_that_leads_nowhere_is_found(target: str) -> None:
    assert broken(ROOT / "README.md", f"See [this]({target}).") == [target]


def test_pages_that_matter_are_among_those_looked_at() -> None:
    assert {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"} <= {page.name for page in PAGES}
    assert sum(len(list(links(page.read_text("utf-8")))) for page in PAGES) > 100


def test_no_number_of_a_decision_stands_twice() -> None:
    assert all(re.match(r"\d{4}-[a-z0-9-]+\.md$", path.name) for path in DECISIONS)
    counts = Counter(path.name[:4] for path in DECISIONS)
    assert [number for number, count in counts.items() if count > 1] == []


def test_the_index_lists_every_decision_with_its_title() -> None:
    """A new decision adds its row to docs/decisions/README.md, in order of numbers."""
    listed = ROW.findall((DOCS / "decisions/README.md").read_text("utf-8"))
    assert listed == [(path.name[:4], path.name, title(path)) for path in DECISIONS]


def test_the_index_of_documents_names_every_page() -> None:
    index = (DOCS / "README.md").read_text("utf-8")
    named = {target.partition("#")[0] for target in links(index)}
    assert {path.name for path in DOCS.iterdir() if path.is_file()} - named == {"README.md"}
