"""One line that says where the keys of payloads are kept, and what is encrypted with them: the URL of the keys."""

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, cast
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from refold.log.errors import UsageError
from refold.log.key_directory import DirectoryKeys
from refold.log.key_environment import EnvironmentKeys
from refold.log.key_master import VARIABLE as MASTER
from refold.log.key_master import master_from
from refold.log.keys import MAX_AGE_S, KeyProvider, Master, PayloadKeys, Scope

VARIABLE: Final = "REFOLD_KEYS"

ACCEPTED: Final = """Accepted are:
  file:///var/lib/app/keys                        a directory; its master key is in the variable REFOLD_MASTER_KEY
  file:///var/lib/app/keys?master=file:/run/secrets/master      ... or in a file
  file:///var/lib/app/keys?master=import:app.kms:master         ... or with a service: an object of yours
  env:APP_KEYS                                    one key for all, from a variable: nobody can be erased alone
  import:app.kms:provider                         a key provider of yours
and with each of them
  ?encrypt=workflow                               all runs, also those that are started without a subject
  ?fields=email,customer.name                     only these fields of payloads, which stay readable otherwise
  ?max_age=60                                     seconds for which a key is used from memory"""


def open_keys(url: str, environment: Mapping[str, str] | None = None) -> PayloadKeys:
    """The keys that a URL names. Nothing is made, and no store is looked at.

    Args:
        url: One of the forms in `ACCEPTED`, which the error's message lists as well.
        environment: Where variables are looked up; the process's own where not given.

    Raises:
        UsageError: It is no such URL, or a key is missing or can't be one.
        KeysUnavailable: The file of a master key can't be read.
    """
    variables = os.environ if environment is None else environment
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    encrypted = options.pop("encrypt", "subject")
    if encrypted not in {"subject", "workflow"}:
        raise _refused(url, f"encrypt={encrypted} is neither subject nor workflow")
    scope: Scope = "workflow" if encrypted == "workflow" else "subject"
    fields = tuple(name for name in options.pop("fields", "").split(",") if name)
    max_age_s = _seconds(url, options.pop("max_age", str(MAX_AGE_S)))
    name = unquote(parts.path)
    match parts.scheme:
        case "file":
            provider = _directory(url, parts, options.pop("master", f"env:{MASTER}"), variables)
        case "env" if name:
            provider = EnvironmentKeys(variables.get(name, ""), name)
        case "import":
            provider = cast("KeyProvider", _imported(url, name))
        case _:
            raise _refused(url, "it does not begin with file:///, env: or import:")
    if options:
        raise _refused(url, f"the option {min(options)!r} is unknown")
    return PayloadKeys(provider, scope, fields, max_age_s)


def keys_from(environment: Mapping[str, str] | None = None) -> PayloadKeys | None:
    """The keys that the variable `REFOLD_KEYS` names; None where it is not set. Raises as `open_keys`."""
    url = (os.environ if environment is None else environment).get(VARIABLE)
    return open_keys(url, environment) if url else None


def _seconds(url: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise _refused(url, f"max_age={text} is no number of seconds")
    return seconds


def _directory(
    url: str, parts: SplitResult, named: str, variables: Mapping[str, str]
) -> KeyProvider:
    path = unquote(parts.path)
    if parts.netloc or parts.fragment or not path.startswith("/") or "\0" in path:
        raise _refused(url, "a directory is named by its absolute path")
    kind, _, name = named.partition(":")
    if kind == "import":
        return DirectoryKeys(Path(path), cast("Master", _imported(url, name)))
    return DirectoryKeys(Path(path), master_from(named, variables))


def _imported(url: str, name: str) -> object:
    """The object that `module:name` names, or what it returns where it is a function or a class."""
    module, _, attribute = name.partition(":")
    try:
        found: object = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise _refused(url, f"{name!r} can't be imported: {error}") from error
    return found() if callable(found) else found


def _refused(url: str, reason: str) -> UsageError:
    return UsageError(f"{url!r} does not name keys: {reason}. {ACCEPTED}")
