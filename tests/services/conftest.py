"""A shop of its own for each test: a directory with the user's code, and `refold` run in it."""

import shutil
from pathlib import Path

import pytest

from cli_process import CommandLine


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A directory with `shop.py` and `office.py` in it."""
    for name in ("shop.py", "office.py"):
        shutil.copy(Path(__file__).with_name(name), tmp_path)
    return tmp_path


@pytest.fixture
def refold(shop: Path) -> CommandLine:
    """The command, run in the shop's directory on a SQLite log there."""
    return CommandLine(shop, "sqlite:///shop.db")
