"""Which code a trainer was started from."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from workers.supervisor.process import source


def git(folder: Path, *words: str) -> str:
    named = ["-c", "user.name=n", "-c", "user.email=n@example.org"]
    done = subprocess.run(["git", "-C", str(folder), *named, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "requirements.lock").write_text("torch==1\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "First")
    return tmp_path


def test_the_commit_and_the_hash_of_the_lock_file_are_told(repository: Path) -> None:
    lock = hashlib.sha256(b"torch==1\n").hexdigest()
    assert source.facts(repository) == {"commit": git(repository, "rev-parse", "HEAD"), "dirty": False, "lock": lock}


def test_a_changed_file_makes_it_dirty_and_a_new_one_does_not(repository: Path) -> None:
    (repository / "notes.txt").write_text("x")
    assert source.facts(repository)["dirty"] is False
    (repository / "requirements.lock").write_text("torch==2\n")
    assert source.facts(repository)["dirty"] is True


def test_the_commit_of_a_repository_around_the_code_is_not_its_own(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(source.COMMIT, raising=False)
    (repository / "inside").mkdir()
    assert source.facts(repository / "inside") == {"commit": "", "dirty": None, "lock": ""}
    monkeypatch.setenv(source.COMMIT, "abc")
    assert source.facts(repository / "inside")["commit"] == "abc"
