"""The code stands at the root and is imported as refold.*, each file under one name."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import refold

ROOT = Path(__file__).parent.parent
FOLDERS = ("engine", "log", "projections", "services")


@pytest.mark.parametrize("folder", FOLDERS)
def test_each_part_is_a_relative_symlink_to_a_real_folder(folder: str) -> None:
    link = ROOT / "src" / "refold" / folder
    assert link.readlink() == Path("..", "..", folder)
    assert not (ROOT / folder).is_symlink()


def test_the_package_is_the_one_of_this_checkout() -> None:
    assert Path(refold.__file__).parent == ROOT / "src" / "refold"


def test_no_part_has_been_imported_by_its_bare_name() -> None:
    assert sys.modules.keys().isdisjoint(FOLDERS)
