"""Change of code under runs that are open: `patched`, and `continue_as_new` for those that would never end.

A patch is retired in two steps: when no run that began before it is open any more, the old path can go from the code
(the call stays, always True); when none is open that began while the call was in the code, the call can go as well.
It takes no operation number, so a history does not miss it.
"""

from typing import NoReturn

from refold.engine.names import check_name
from refold.engine.scope import workflow_scope


def patched(name: str) -> bool:
    """Whether this run takes the new path of a change: the same answer for ever, also when it is replayed.

        if patched("charge-in-euros"):
            await charge_in_euros(order)
        else:
            await charge(order)

    Args:
        name: The change's own name, 1 to 255 characters.

    Returns:
        True where the run comes here for the first time, or did so with the change in its code; False where it was here
        before the change.

    Raises:
        UsageError: The name can't be used, or the caller is no workflow code.
    """
    scope = workflow_scope(
        "patched()", "only workflow code is replayed, so take the new path there"
    )
    check_name(name, "change")
    return scope.patched(name)


def continue_as_new(*args: object, **kwargs: object) -> NoReturn:
    """End this execution and begin afresh under the same id, with a new input and no history.

    For workflows without end: `workflow_info().continue_suggested` says when. A history of 50,000 entries is warned of;
    one of 200,000 is parked, and each `resume` gives it as many again. Messages not yet received are kept.
    It raises a `BaseException` that has to reach the caller of the workflow function: call it from the function's own
    task, and let it pass.

    Args:
        *args: The arguments that the workflow function begins with.
        **kwargs: Those that are named.

    Raises:
        PayloadError: They do not fit the function's parameters. The run goes on.
        UsageError: The caller is no workflow code.
    """
    scope = workflow_scope("continue_as_new()", "return to the workflow and call it there")
    scope.continue_as_new(args, kwargs)
