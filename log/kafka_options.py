"""Settings of a Kafka connection from text: a URL's options, the environment, a settings file, in this order.

Each setting has one name, that of the field in `KafkaSettings`, and is found under it in all three:

    kafka://broker:9093/orders?security_protocol=SSL        the URL
    REFOLD_KAFKA_SECURITY_PROTOCOL=SSL                      the environment
    [kafka]                                                 a TOML file, named by REFOLD_SETTINGS or by `?settings=`
    security_protocol = "SSL"

The first that gives a setting counts. A name that nobody knows is refused: a misspelt one could leave a connection
unprotected. What is secret is best kept in a file of its own (`sasl_password_file`), never in an error's text.
"""

import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

from refold.log.errors import UsageError
from refold.log.kafka_settings import SECRETS, KafkaSettings

ENVIRONMENT_PREFIX = "REFOLD_KAFKA_"
FILE_VARIABLE = "REFOLD_SETTINGS"
FILE_OPTION = "settings"
TABLE = "kafka"

_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting, as it is named and read.

    Args:
        name: In `KafkaSettings`, in a URL and in a settings file.
        kind: What its text is read as: str, int or bool.
        default: What it is where nobody says.
        secret: Whether nothing may show it.
    """

    name: str
    kind: type[str] | type[int] | type[bool]
    default: str | int | bool | None
    secret: bool

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return f"{ENVIRONMENT_PREFIX}{self.name.upper()}"

    def read(self, value: object, where: str) -> str | int | bool:
        """The value from text, or as a TOML file has it.

        Raises:
            UsageError: It is not of the setting's kind.
        """
        if isinstance(value, str) and self.kind is bool and value.lower() in _BOOLEANS:
            return _BOOLEANS[value.lower()]
        if isinstance(value, str) and self.kind is int and value.isascii() and value.isdecimal():
            return int(value)
        if isinstance(value, str | int) and type(value) is self.kind:
            return value
        shown = "what is given" if self.secret else repr(value)
        wanted = {str: "text", int: "a whole number", bool: "true or false"}[self.kind]
        raise UsageError(f"{where}: {self.name} is {wanted}, not {shown}")


def _setting(name: str, default: object) -> Setting:
    assert default is None or isinstance(default, str | int)
    kind = bool if isinstance(default, bool) else int if isinstance(default, int) else str
    return Setting(name, kind, default, name in SECRETS)


SETTINGS: Mapping[str, Setting] = {
    field.name: _setting(field.name, field.default) for field in fields(KafkaSettings)
}


def settings_from(
    options: Iterable[tuple[str, str]], environ: Mapping[str, str] | None = None
) -> KafkaSettings:
    """The settings that a URL's options, the environment and the settings file give together.

    Args:
        options: Names and values from the URL.
        environ: The environment; this process's where not given.

    Raises:
        UsageError: A name is unknown, a value can't be, or the file can't be read.
    """
    environ = os.environ if environ is None else environ
    explicit = dict(options)
    path = explicit.pop(FILE_OPTION, None) or environ.get(FILE_VARIABLE)
    values = {
        **(_from_file(Path(path)) if path else {}),
        **_from_environment(environ),
        **{
            name: _known(name, "the URL").read(value, "the URL") for name, value in explicit.items()
        },
    }
    settings: KafkaSettings = cast("Any", KafkaSettings)(**values)
    return settings


def _from_environment(environ: Mapping[str, str]) -> dict[str, object]:
    """An empty variable is as good as none: that is how a compose file passes on what is not set."""
    given = {
        variable: text
        for variable, text in environ.items()
        if variable.startswith(ENVIRONMENT_PREFIX) and text
    }
    values: dict[str, object] = {}
    for variable, text in sorted(given.items()):
        name = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
        values[name] = _known(name, f"the variable {variable}").read(text, variable)
    return values


def _from_file(path: Path) -> dict[str, object]:
    """What a settings file says. Its parser's own words are not passed on: they may quote the file."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"the settings file {path} can't be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise UsageError(f"the settings file {path} is not UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        where = str(error).rpartition("(")[2].rstrip(")")
        raise UsageError(f"the settings file {path} is not TOML ({where})") from None
    others = sorted(document.keys() - {TABLE})
    if others:
        raise UsageError(f"the settings file {path} has {others[0]!r}, refold knows [{TABLE}] only")
    table: object = document.get(TABLE, {})
    if not isinstance(table, dict):
        raise UsageError(f"the settings file {path} needs a table [{TABLE}] with a setting a line")
    where = f"the settings file {path}"
    values = cast("dict[str, object]", table)
    return {name: _known(name, where).read(value, where) for name, value in values.items()}


def _known(name: str, where: str) -> Setting:
    setting = SETTINGS.get(name)
    if setting is not None:
        return setting
    nearest = get_close_matches(name, SETTINGS, n=1, cutoff=0.0)
    raise UsageError(
        f"{where}: there is no setting {name!r}; the nearest is {nearest[0]!r}. All of them are in docs/connecting.md"
    )
