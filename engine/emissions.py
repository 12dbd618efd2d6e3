"""What workflow code lets out: values as JSON by their own type, and the requests that record something at once."""

from collections.abc import Callable

from refold.engine.operations import EmissionKind, EmitRequest
from refold.engine.payload import MAX_PAYLOAD_BYTES, PayloadType, check_size
from refold.log.errors import DefinitionError, PayloadError


def encoded(value: object, what: str, limit: int = MAX_PAYLOAD_BYTES) -> str:
    """The JSON of a value that no annotation declares the type of, by its own.

    Args:
        value: The value.
        what: Its role, for messages.
        limit: Most bytes of it.

    Raises:
        PayloadError: It has no JSON form, does not come back from it, or is too large.
    """
    kind = type(value)
    try:
        text: str = PayloadType.of(kind, what).encode(value)
    except DefinitionError as error:
        raise PayloadError(
            f"The {what} is of type `{kind.__qualname__}`, which has no JSON form. Use a pydantic model, a dataclass,"
            " or plain values (None, bool, int, float, str, list, dict with str keys). Nothing was recorded."
        ) from error
    check_size(text, limit, what)
    return text


def emission(
    kind: EmissionKind,
    name: str,
    payload: str | None = None,
    *,
    message_id: str | None = None,
    error: tuple[str, str] | None = None,
    attributes: dict[str, str] | None = None,
) -> Callable[[int, str], EmitRequest]:
    """What makes an emission's request from its number and the `file:line` of the call.

    Args:
        kind: As in `EmitRequest`.
        name: As there.
        payload: As there.
        message_id: As there.
        error: Type and message of the error that a question is answered with.
        attributes: As there.
    """
    error_type, error_message = error or (None, None)

    def make(step: int, source: str) -> EmitRequest:
        return EmitRequest(
            step, kind, name, payload, message_id, error_type, error_message, attributes, source
        )

    return make
