"""The tree of errors that `log/errors.py` draws is the one that there is."""

import importlib
import pkgutil
import re
from collections.abc import Iterator

import refold
from refold.log import errors
from refold.log.errors import RefoldError

_LINE = re.compile(r"^    (?P<indent>[│ ├└─]*)(?P<name>\w+)(?:  |$)")


def drawn() -> Iterator[tuple[str, str]]:
    """Each error of the docstring with the one that it stands under."""
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = _LINE.match(line)
        if found is None:
            continue
        depth = len(found["indent"]) // 4
        del above[depth:]
        if above:
            yield found["name"], above[-1]
        above.append(found["name"])


def defined(root: type[RefoldError]) -> Iterator[tuple[str, str]]:
    """Each error of refold's own under a root, with the one that it is derived from."""
    for error in root.__subclasses__():
        if error.__module__.startswith("refold."):
            yield error.__name__, root.__name__
            yield from defined(error)


def test_every_error_is_in_the_tree_where_it_belongs() -> None:
    """Given every module of refold, each error that is derived from RefoldError is drawn, under its own parent."""
    for module in pkgutil.walk_packages(refold.__path__, "refold."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    assert sorted(drawn()) == sorted(defined(RefoldError))
