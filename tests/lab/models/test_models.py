"""Ten architectures of the sweep, drawn with a seed, and the table that the sweep has written."""

from __future__ import annotations

import random

import pytest

from tests.lab.models import table
from tests.lab.models.judging import judged
from tests.lab.models.listing import Architecture, architectures

SEED = 14
ROWS = table.rows()
TEN = random.Random(SEED).sample(sorted(ROWS), min(10, len(ROWS)))


@pytest.mark.parametrize("name", TEN, ids=str)
def test_an_architecture_is_as_the_table_says_and_nothing_in_it_is_silent(name: Architecture) -> None:
    verdict = judged(name).as_dict()
    assert table.amiss([verdict]) == []
    assert table.row(verdict) == ROWS[name]


def test_the_table_is_of_the_versions_that_are_installed() -> None:
    assert table.versions() in table.DOCS.read_text(), "run `make models`"


def test_the_table_names_every_architecture() -> None:
    told = table.named()
    assert [str(each) for each in architectures() if each not in told] == []


def test_sixty_architectures_and_more_are_in_the_table_and_no_attention_is_silent() -> None:
    assert len(ROWS) >= 60
    assert ", 0 are silent or wrong." in table.DOCS.read_text()
