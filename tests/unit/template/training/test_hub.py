"""A hub data set: refused with a remedy where it cannot be read, or would not be the same one next year."""

import sys
from pathlib import Path

import pytest

from template.training.hub import HubTexts, HubUnavailable, documents

COMMIT = "0" * 40


def test_a_branch_is_no_revision() -> None:
    with pytest.raises(HubUnavailable, match="not a commit"):
        next(documents(HubTexts("owner/name", "main")))


def test_a_folder_is_not_taken_for_a_hub(tmp_path: Path) -> None:
    with pytest.raises(HubUnavailable, match="on this machine"):
        next(documents(HubTexts(str(tmp_path), COMMIT)))


def test_without_the_library_the_remedy_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)  # as if it were not installed
    with pytest.raises(HubUnavailable, match="pip install datasets"):
        next(documents(HubTexts("owner/name", COMMIT)))
