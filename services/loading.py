"""From `app:checkout` to the workflow: importing the user's code, and saying what is there when the name is wrong."""

import difflib
import importlib
import sys
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, TypeGuard, cast

from refold.engine.definitions import Catalogue, Key, Workflow
from refold.engine.step_definitions import AsyncStep, SyncStep
from refold.log.errors import UsageError
from refold.projections.metrics import Metric
from refold.projections.projection import Projection, check_projection
from refold.projections.workflows import Workflows

AnyWorkflow = Workflow[..., Any]
_PARTS = ("name", "version", "tables", "apply")


def load_workflow(target: str) -> AnyWorkflow:
    """The one workflow that `module:name`, `file.py:name` or, where it has just one, `module` names.

    Where a module has one workflow in several versions, that is the newest.

    Raises:
        UsageError: The module can't be imported, or has no such workflow; says what it has.
    """
    module, attribute = _module_of(target)
    found = _workflows_in(module)
    if attribute:
        value = _attribute(module, attribute, found)
        if not _is_workflow(value):
            raise UsageError(
                f"{target} is {_kind(value)}, not a workflow. {_what_is_there(module, found)}"
            )
        return value
    if len({definition.name for definition in found.values()}) == 1:
        return max(found.values(), key=lambda definition: definition.version)
    if not found:
        raise UsageError(f"which workflow? {_what_is_there(module, found)}")
    names = "\n".join(f"  {target}:{name}" for name in found)
    raise UsageError(f"{target} has {len(found)} workflows, name one of them:\n{names}")


def load_workflows(targets: Iterable[str]) -> list[AnyWorkflow]:
    """All workflows of some modules: `module`, `module:workflow`, or `module:list_of_workflows`.

    Each comes with the other versions that its module has of it, for the runs that are still on those.

    Raises:
        UsageError: A module can't be imported, or there is nothing to run in it.
        DefinitionError: Two workflows have one name and version.
    """
    loaded: dict[Key, AnyWorkflow] = {}
    for target in targets:
        module, attribute = _module_of(target)
        found = _workflows_in(module)
        chosen = _listed(target, module, attribute, found) if attribute else list(found.values())
        if not chosen:
            raise UsageError(f"there is nothing to run: {_what_is_there(module, found)}")
        for definition in chosen:
            loaded.update({version.key: version for version in all_versions(definition)})
    return Catalogue.of(loaded.values()).definitions()


def load_projections(targets: Iterable[str]) -> list[Projection]:
    """The projections that are named: `workflows`, refold's own, or `module:NAME`, an object or a class.

    Raises:
        UsageError: A module can't be imported, or what is named there is no projection; or two have one name.
    """
    loaded: dict[str, Projection] = {}
    for target in targets:
        projection = Workflows() if target == Workflows.name else _projection(target)
        check_projection(projection)
        if projection.name in loaded:
            raise UsageError(f"there are two projections {projection.name!r}: name one of them")
        loaded[projection.name] = projection
    return list(loaded.values())


def _projection(target: str) -> Projection:
    module, attribute = _module_of(target)
    if not attribute:
        raise UsageError(
            f"{target!r} names no projection: write MODULE:PROJECTION, as in orders:Revenue, or {Workflows.name}"
        )
    found = _attribute(module, attribute, {})
    if isinstance(found, type) and hasattr(found, "apply"):
        try:
            found = found()
        except Exception as error:  # whatever the user's own code raises
            raise UsageError(
                f"{target} is a class of which no object can be made without arguments ({type(error).__name__}: "
                f"{error}): name an object of it"
            ) from error
    missing = [part for part in _PARTS if not hasattr(found, part)]
    if missing:
        raise UsageError(
            f"{target} is {_kind(found)} and no projection: it has no {', no '.join(missing)} (see docs/projections.md)"
        )
    return cast("Projection", found)


def load_modules(targets: Iterable[str]) -> None:
    """Import the modules that `module` or `module:name` names, for the steps that they declare.

    Raises:
        UsageError: A module can't be imported.
    """
    for target in targets:
        _module_of(target)


def load_metrics(targets: Iterable[str]) -> list[Metric]:
    """The metrics that `module` or `module:metric` names.

    Raises:
        UsageError: A module can't be imported, or has no such metric; says what it has.
    """
    loaded: list[Metric] = []
    for target in targets:
        module, attribute = _module_of(target)
        found = {name: value for name, value in vars(module).items() if isinstance(value, Metric)}
        if attribute and attribute not in found:
            raise UsageError(f"{target} is no metric. {_metrics_there(module, found)}")
        if not found:
            raise UsageError(_metrics_there(module, found))
        chosen = [found[attribute]] if attribute else list(found.values())
        loaded.extend(one for one in chosen if one not in loaded)
    return loaded


def _metrics_there(module: ModuleType, found: Mapping[str, Metric]) -> str:
    if found:
        return f"Metrics in {module.__name__!r}: {', '.join(found)}."
    return f"Module {module.__name__!r} has no metrics: decorate a function of an event with @metric(...)"


def load_attribute(target: str) -> object:
    """What `module:name` names.

    Raises:
        UsageError: The module can't be imported, or has nothing of that name.
    """
    module, attribute = _module_of(target)
    return _attribute(module, attribute, _workflows_in(module))


def load_error(name: str, message: str, modules: Iterable[str]) -> Exception:
    """An error of a type that is named, with a message.

    Args:
        name: `ValueError`, `shop.errors.Declined`, or the name of a class in one of `modules`.
        message: Its one argument.
        modules: Where to look for a name without a module.

    Raises:
        UsageError: There is no such type of error, or it can't be made of one text.
    """
    module, _, attribute = name.rpartition(".")
    if module:
        found = [load_attribute(f"{module}:{attribute}")]
    else:
        places = ("builtins", *modules, "refold.log.errors")
        found = [getattr(sys.modules.get(place), name, None) for place in places]
    kinds = [kind for kind in found if isinstance(kind, type) and issubclass(kind, Exception)]
    if not kinds:
        raise UsageError(
            f"{name!r} is no type of error that is known here: name it with its module, as in shop.errors.Declined"
        )
    try:
        return kinds[0](message)
    except Exception as error:
        raise UsageError(
            f"an error of type {name} can't be made of one text: {type(error).__name__}: {error}"
        ) from error


def all_versions(workflow: AnyWorkflow) -> list[AnyWorkflow]:
    """The workflow, then the other versions of it that its module has declared.

    One whose `def` a later version's has shadowed is in no variable of the module, and still needed.
    """
    others = [
        other
        for other in Catalogue.declared().definitions()
        if other.name == workflow.name
        and other.version != workflow.version
        and other.fn.__module__ == workflow.fn.__module__
    ]
    return [workflow, *others]


def _listed(
    target: str, module: ModuleType, attribute: str, found: dict[str, AnyWorkflow]
) -> list[AnyWorkflow]:
    value = _attribute(module, attribute, found)
    if _is_workflow(value):
        return [value]
    members = _members(value)
    chosen = [member for member in members if _is_workflow(member)]
    if not chosen or len(chosen) < len(members):
        raise UsageError(
            f"{target} is {_kind(value)}, not a workflow and no list of workflows. "
            f"{_what_is_there(module, found)}"
        )
    return chosen


def _members(value: object) -> list[object]:
    if isinstance(value, list | tuple | set | frozenset):
        return list(cast("Iterable[object]", value))
    return []


def _is_workflow(value: object) -> TypeGuard[AnyWorkflow]:
    return isinstance(value, Workflow)


def _module_of(target: str) -> tuple[ModuleType, str]:
    name, _, attribute = target.partition(":")
    if not name:
        raise UsageError(
            f"{target!r} names no module: write MODULE:WORKFLOW, as in orders:checkout"
        )
    directory = Path.cwd()
    if name.endswith(".py"):
        path = Path(name)
        if not path.is_file():
            raise UsageError(f"there is no file {name}: check the path")
        directory, name = path.resolve().parent, path.stem
    if str(directory) not in sys.path:
        sys.path.insert(0, str(directory))
    return _import(name, target), attribute


def _import(name: str, target: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name == missing or name.startswith(f"{missing}."):
            raise UsageError(
                f"there is no module {missing!r} (for {target!r}) in {Path.cwd()} or among what is installed. "
                f"{_nearby(name)}"
            ) from error
        raise UsageError(
            f"module {name!r} can't be imported, it needs {missing!r}: install that, then try again"
        ) from error
    except SystemExit as error:
        raise UsageError(
            f"module {name!r} ends the process when it is imported (sys.exit): put what is to be done when it is run "
            "as a script below `if __name__ == '__main__':`"
        ) from error
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise UsageError(
            f"module {name!r} can't be imported, {type(error).__name__} at "
            f"{place.filename}:{place.lineno}: {error}. --debug shows the traceback"
        ) from error


def _nearby(name: str) -> str:
    """Where the user may have meant to be."""
    here = sorted(path.stem for path in Path.cwd().glob("*.py"))
    close = difflib.get_close_matches(name, here, n=1)
    if close:
        return f"Did you mean {close[0]}?"
    if not here:
        return "There is no Python file in this directory: change to that of your code."
    return f"Python files here: {', '.join(here[:10])}{', ...' if len(here) > 10 else ''}."


def _workflows_in(module: ModuleType) -> dict[str, AnyWorkflow]:
    """A module's workflows by the name that they have in it; one that has two names counts once."""
    found: dict[Key, tuple[str, AnyWorkflow]] = {}
    for name, value in vars(module).items():
        if _is_workflow(value):
            found.setdefault(value.key, (name, value))
    return dict(found.values())


def _attribute(module: ModuleType, name: str, found: dict[str, AnyWorkflow]) -> object:
    value: object = module
    for part in name.split("."):
        if not hasattr(value, part):
            close = difflib.get_close_matches(name, found, n=1)
            hint = f" Did you mean {module.__name__}:{close[0]}?" if close else ""
            raise UsageError(
                f"module {module.__name__!r} has no {name!r}.{hint} {_what_is_there(module, found)}"
            )
        value = getattr(value, part)
    return value


def _what_is_there(module: ModuleType, found: dict[str, AnyWorkflow]) -> str:
    name = module.__name__
    if found:
        return f"Workflows in {name!r}: {', '.join(found)}."
    functions = [
        key
        for key, value in vars(module).items()
        if callable(value)
        and getattr(value, "__module__", None) == name
        and not key.startswith("_")
    ]
    if not functions:
        return f"Module {name!r} has no workflows: decorate a function in it with @workflow."
    return (
        f"Module {name!r} has no workflows, but has {', '.join(functions[:10])}: "
        "decorate the function that is to run with @workflow."
    )


def _kind(value: object) -> str:
    if isinstance(value, AsyncStep | SyncStep):
        return "a step"
    if isinstance(value, ModuleType):
        return "a module"
    if isinstance(value, type):
        return "a class"
    if callable(value):
        return "a plain function without @workflow"
    return f"of type {type(value).__name__}"
