"""What an examination finds: the words that a log, its doctor and whoever shows it share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, runtime_checkable


class Level(StrEnum):
    """How a finding is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Args:
        check: What was looked at, in a word or two.
        level: How it is.
        told: What was found.
        advice: What to do about it; empty where nothing is to be done.
    """

    check: str
    level: Level
    told: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Examination:
    """What a log says about itself before anything in it is read.

    Args:
        findings: In the order in which they were looked at.
        holders: Who has which partition by the word of whoever shares them out, each with the name it goes by there,
            empty where it goes by none. None where that can't be told.
        readable: Whether it makes sense to open the log and look inside.
    """

    findings: Sequence[Finding]
    holders: Mapping[int, str] | None = field(default=None)
    readable: bool = True


@runtime_checkable
class Examined(Protocol):
    """A log that a doctor can look at."""

    async def examine(self) -> Examination:
        """Look at everything around the log: servers, files, settings, who is there. Needs no open log.

        It changes nothing. What may not be asked is a finding, not an error.
        """
        ...


def ok(check: str, told: str) -> Finding:
    """Nothing to be done."""
    return Finding(check, Level.OK, told)


def warn(check: str, told: str, advice: str) -> Finding:
    """Worth a thought."""
    return Finding(check, Level.WARN, told, advice)


def fail(check: str, told: str, advice: str) -> Finding:
    """It does not work, or something will be lost."""
    return Finding(check, Level.FAIL, told, advice)
