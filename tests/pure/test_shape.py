"""The bounds on the code that no linter counts: length, complexity with comprehensions, folders,
and the words that the field has a better one for."""

from __future__ import annotations

import ast
import re
from collections import Counter
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("attnservice", "experiments", "workers")
BRANCHES = (ast.If, ast.IfExp, ast.For, ast.While, ast.ExceptHandler, ast.match_case)
GONE = {
    *("parcel", "parcels", "leftover", "leftovers", "leash", "fleet", "duties", "caps", "ears", "departure", "gauges"),
    *("projected", "watchman", "mischief", "customer", "shipping", "shipped"),
}


@cache
def modules() -> dict[str, tuple[str, ast.Module]]:
    files = [file for name in PACKAGES for file in (ROOT / name).rglob("*.py") if "migrations" not in file.parts]
    sources = {str(file.relative_to(ROOT)): file.read_text("utf-8") for file in files}
    assert len(sources) > 300
    return {name: (source, ast.parse(source)) for name, source in sources.items()}


def functions() -> list[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    return [
        (f"{name}:{node.name}", node)
        for name, (_, tree) in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def complexity(function: ast.AST) -> int:
    """McCabe's number, with 1 for each comprehension and each of its conditions."""
    nodes = [node for node in ast.walk(function) if node is not function]
    branches = sum(isinstance(node, BRANCHES) for node in nodes)
    choices = sum(len(node.values) - 1 for node in nodes if isinstance(node, ast.BoolOp))
    loops = sum(1 + len(node.ifs) for node in nodes if isinstance(node, ast.comprehension))
    return 1 + branches + choices + loops


def test_no_function_is_longer_than_40_lines_or_more_complex_than_10() -> None:
    long = [(name, size) for name, node in functions() if (size := (node.end_lineno or 0) - node.lineno + 1) > 40]
    tangled = [(name, number) for name, node in functions() if (number := complexity(node)) > 10]
    assert (long, tangled) == ([], [])


def test_no_file_is_longer_than_300_lines() -> None:
    assert [name for name, (source, _) in modules().items() if source.count("\n") > 300] == []


def test_no_folder_has_more_than_16_modules_and_each_says_what_lives_there() -> None:
    folders = Counter(str(Path(name).parent) for name in modules() if not name.endswith("__init__.py"))
    assert {name: count for name, count in folders.items() if count > 16} == {}
    silent = [
        name for name, (_, tree) in modules().items() if name.endswith("__init__.py") and not ast.get_docstring(tree)
    ]
    assert [name for name in silent if "management" not in name and "templatetags" not in name] == []


def test_words_that_the_field_has_a_better_one_for_do_not_come_back() -> None:
    told = [
        (name, word)
        for name, (source, _) in modules().items()
        for word in sorted(set(re.findall(r"[a-z_]+", source.lower())) & GONE)
    ]
    assert told == []
