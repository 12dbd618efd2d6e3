"""Failures: what is recorded of an error, and the error that comes back."""

import asyncio
import json
import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from refold.engine.failures import MAX_MESSAGE_CHARS, MAX_STACK_CHARS, Failure, capture, rebuild
from refold.log.errors import PayloadTooLarge, StepError, StepTimeout


class Declined(Exception):
    """An error with a constructor of its own, as users write them."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"declined with {code}: {reason}")
        self.code = code
        self.reason = reason


class Outer:
    class Inner(ValueError):
        pass


class HoldsConnection(Exception):
    def __init__(self, message: str, connection: object) -> None:
        super().__init__(message)
        self.connection = connection
        self.attempt = 3


class BrokenStr(Exception):
    def __str__(self) -> str:
        raise RuntimeError


class BrokenReduce(Exception):
    def __reduce__(self) -> tuple[object, ...]:
        raise RuntimeError


class SaysOtherwise(Exception):
    """Its message is not made of what it holds."""

    made = 0

    def __str__(self) -> str:
        SaysOtherwise.made += 1
        return f"message {SaysOtherwise.made}"


def back(error: BaseException) -> Exception:
    return rebuild(capture(error))


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no"),
        ValueError(),
        ValueError("a", 2, None),
        KeyError("missing"),
        OSError(2, "No such file", "a.txt"),
        ConnectionResetError(104, "reset"),
        ZeroDivisionError("division by zero"),
        TimeoutError(),
        Outer.Inner("nested"),
        StepTimeout("took too long"),
        PayloadTooLarge("big"),
        json.JSONDecodeError("bad", "doc", 1),
        BrokenReduce("still told"),
    ],
)
def test_an_importable_error_comes_back_as_its_own_type(error: Exception) -> None:
    """Given an error whose arguments are JSON, its type, arguments and message come back."""
    came = back(error)
    assert type(came) is type(error)
    assert came.args == error.args
    assert str(came) == str(error)


def test_attributes_of_the_users_own_error_come_back() -> None:
    """Given a constructor that takes other things than the message, the attributes are there to be asked."""
    came = back(Declined(51, "no funds"))
    assert isinstance(came, Declined)
    assert (came.code, came.reason, str(came)) == (51, "no funds", "declined with 51: no funds")


def test_an_attribute_with_no_json_form_is_left_out() -> None:
    """Given an error that holds a connection, the rest of it comes back."""
    came = back(HoldsConnection("lost", object()))
    assert isinstance(came, HoldsConnection)
    assert str(came) == "lost"
    assert came.attempt == 3


def test_the_name_of_a_file_comes_back_with_an_os_error() -> None:
    """Given an OSError, the file name is no argument, and still comes back."""
    came = back(FileNotFoundError(2, "No such file", "a.txt"))
    assert isinstance(came, FileNotFoundError)
    assert (came.errno, came.filename) == (2, "a.txt")


def test_arguments_with_no_json_form_leave_type_and_message() -> None:
    """Given an argument that can't be recorded, the type comes back with the message alone."""
    failure = capture(ValueError(object()))
    assert failure.payload is None
    came = rebuild(failure)
    assert type(came) is ValueError
    assert str(came) == failure.error_message


def test_a_type_defined_in_a_function_comes_back_as_a_step_error() -> None:
    """Given a class that no import finds, a StepError carries what there is."""

    class Local(Exception):
        pass

    came = back(Local("why"))
    assert isinstance(came, StepError)
    assert str(came).endswith("Local: why")
    assert came.type_name.endswith(
        ":test_a_type_defined_in_a_function_comes_back_as_a_step_error.<locals>.Local"
    )
    assert "Local: why" in came.stack


def test_a_type_that_would_say_something_else_is_not_used() -> None:
    """Given a class whose message does not come from the record, the record's message is told."""
    failure = capture(SaysOtherwise())
    came = rebuild(failure)
    assert isinstance(came, StepError)
    assert failure.error_message in str(came)


def test_a_type_that_pydantic_makes_comes_back_as_a_step_error() -> None:
    """Given an error that can't be made from Python, its message and type name come back."""

    class Model(BaseModel):
        number: int

    with pytest.raises(ValidationError) as caught:
        Model.model_validate({"number": "x"})
    came = back(caught.value)
    assert isinstance(came, StepError)
    assert "number" in str(came)
    assert came.type_name == "pydantic_core._pydantic_core:ValidationError"


@pytest.mark.parametrize(
    "error",
    [
        asyncio.CancelledError(),
        KeyboardInterrupt(),
        SystemExit(1),
        GeneratorExit(),
        StopIteration(5),
        StopAsyncIteration(),
    ],
)
def test_what_must_not_be_raised_in_a_workflow_comes_back_as_a_step_error(
    error: BaseException,
) -> None:
    """Given a cancellation or an exit inside a step, the workflow sees a failed step and no cancellation of its own."""
    came = back(error)
    assert isinstance(came, StepError)
    assert came.type_name.endswith(f":{type(error).__name__}")


def test_the_record_shows_the_stack_with_its_causes() -> None:
    """Given a chained error, the recorded stack names both, and the rebuilt error carries it as a note."""

    def fail() -> None:
        try:
            dict[str, int]().pop("inner")
        except KeyError as inner:
            raise ValueError("outer") from inner

    with pytest.raises(ValueError, match="outer") as caught:
        fail()
    failure = capture(caught.value)
    assert failure.error_stack is not None
    assert "KeyError: 'inner'" in failure.error_stack
    assert "in fail" in failure.error_stack
    assert "in fail" in rebuild(failure).__notes__[0]


def test_a_long_stack_and_a_long_message_are_cut() -> None:
    """Given megabytes of message, the record stays small, and the type still comes back."""
    failure = capture(ValueError("x" * 3_000_000))
    assert len(failure.error_message) < MAX_MESSAGE_CHARS + 100
    assert failure.error_stack is not None
    assert len(failure.error_stack) < MAX_STACK_CHARS + 100
    assert failure.payload is None
    assert isinstance(rebuild(failure), ValueError)


def test_an_error_that_can_not_be_told_is_recorded_all_the_same() -> None:
    """Given an error whose own methods raise, capture and rebuild do not."""
    failure = capture(BrokenStr("x"))
    assert failure.error_type.endswith(":BrokenStr")
    assert "RuntimeError" in failure.error_message
    assert isinstance(rebuild(failure), StepError)


def test_lone_surrogates_in_a_message_are_escaped() -> None:
    """Given text that UTF-8 can't hold, the record holds it escaped."""
    failure = capture(ValueError("bad \ud800"))
    assert failure.error_message == "bad \\ud800"
    failure.error_message.encode()
    assert failure.error_stack is not None
    failure.error_stack.encode()


@given(
    error_type=st.text()
    | st.sampled_from(
        ["builtins:int", "builtins:print", "os:system", "nowhere:X", "builtins:", ":"]
    ),
    message=st.text(),
    stack=st.none() | st.text(),
    payload=st.none()
    | st.text()
    | st.sampled_from(["{}", "[]", '{"args":3}', '{"args":[],"state":[]}', '{"args":[[]]}']),
)
def test_no_record_makes_rebuild_raise(
    error_type: str, message: str, stack: str | None, payload: str | None
) -> None:
    """Given any text in the record, rebuild returns an error."""
    assert isinstance(rebuild(Failure(error_type, message, stack, payload)), Exception)


def test_a_recorded_name_that_is_no_error_is_not_called() -> None:
    """Given a record that names a function, nothing is called."""
    came = rebuild(Failure("builtins:exit", "3", None, '{"args":[3]}'))
    assert isinstance(came, StepError)


def test_a_module_that_is_not_loaded_yet_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a fresh process that has not imported the error's module, the type is the same as in the first one."""
    (tmp_path / "vendor_errors_for_refold.py").write_text("class Broken(Exception): pass\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    came = rebuild(Failure("vendor_errors_for_refold:Broken", "x", None, '{"args":["x"]}'))
    module = sys.modules.pop("vendor_errors_for_refold")
    assert isinstance(module, types.ModuleType)
    assert type(came).__name__ == "Broken"
    assert type(came).__module__ == "vendor_errors_for_refold"


def test_rebuilding_twice_gives_equal_errors() -> None:
    """Given one record, every replay sees the same."""
    failure = capture(Declined(1, "x"))
    first, second = rebuild(failure), rebuild(replace(failure))
    assert (type(first), first.args, vars(first)) == (type(second), second.args, vars(second))
