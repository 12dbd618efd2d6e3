"""Which workflows a target on the command line means."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from refold.log.errors import DefinitionError, UsageError
from refold.services.loading import load_workflow, load_workflows

VERSIONS = """\
from refold.engine.definitions import workflow

@workflow
def checkout(order: int) -> int:
    return order

@workflow(version=2)
def checkout(order: int) -> int:
    return order + 1

@workflow
def other() -> None: ...
"""

RENAMED = """\
from refold.engine.definitions import workflow

@workflow(name="refund", version=2)
def refund_v2() -> int:
    return 2

@workflow(name="refund")
def refund_v1() -> int:
    return 1
"""

CLASH = """\
from refold.engine.definitions import workflow

@workflow(name="same", version=2)
def one() -> None: ...

@workflow(name="same", version=2)
def two() -> None: ...
"""


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Modules of a user in the working directory; forgotten again afterwards."""
    texts = {"versions_app": VERSIONS, "renamed_app": RENAMED, "clash_app": CLASH}
    for name, text in texts.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in texts:
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("modules")
def test_a_worker_takes_every_version_of_what_it_is_given() -> None:
    """Given a module whose version 2 shadows version 1, runs on version 1 still find their code."""
    loaded = load_workflows(["versions_app"])
    assert [(found.name, found.version) for found in loaded] == [
        ("checkout", 2),
        ("checkout", 1),
        ("other", 1),
    ]
    loaded = load_workflows(["versions_app:checkout", "renamed_app:refund_v2"])
    assert [(found.name, found.version) for found in loaded] == [
        ("checkout", 2),
        ("checkout", 1),
        ("refund", 2),
        ("refund", 1),
    ]


@pytest.mark.usefixtures("modules")
def test_a_module_with_one_workflow_means_its_newest_version() -> None:
    """Given two functions that are versions of one workflow, the module's name alone is clear."""
    assert load_workflow("renamed_app").version == 2
    assert load_workflow("renamed_app:refund_v1").version == 1
    assert load_workflow("versions_app:checkout").version == 2
    with pytest.raises(UsageError, match="has 2 workflows"):
        load_workflow("versions_app")


@pytest.mark.usefixtures("modules")
def test_a_module_with_one_version_twice_is_refused() -> None:
    """Given two functions with one name and version, the worker does not choose."""
    with pytest.raises(DefinitionError, match="'same' means several workflows of version 2"):
        load_workflows(["clash_app"])
