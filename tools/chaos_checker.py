"""The checker of fault runs: every rule, over a case; and what there is to see of whatever a violation names.

python tools/chaos_checker.py DIRECTORY      # judge a run again that was kept
"""

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import chaos_client_rules as clients
import chaos_log_rules as log
from chaos_case import Case, load_case
from chaos_history import Fault
from refold.log.events import Event

Rule = Callable[[Case], Iterator[str]]

RULES: Final[tuple[Rule, ...]] = (
    log.the_log_is_sound,
    log.no_record_is_unreadable,
    log.offsets_have_no_gap,
    clients.rule_01_an_acknowledged_start_is_never_lost,
    clients.rule_01_what_was_acknowledged_is_never_unknown,
    log.rule_02_no_attempt_begins_after_its_outcome,
    log.rule_03_every_outcome_has_an_attempt,
    log.rule_04_no_step_begins_before_the_one_before_is_recorded,
    clients.rule_05_a_result_is_the_log_s,
    clients.rule_05_all_clients_hear_the_same,
    clients.rule_05_a_result_is_made_of_what_was_recorded,
    log.rule_06_each_claim_has_one_owner,
    log.rule_07_all_readers_fold_to_the_same,
    log.rule_09_times_never_go_back,
    log.rule_10_what_runs_send_each_other_arrives_once,
    clients.rule_10_what_was_not_written_is_not_there,
    clients.rule_10_who_is_told_that_a_run_has_ended_is_told_the_truth,
    log.rule_11_nothing_is_done_before_its_time,
    log.rule_13_every_run_ends,
    clients.rule_17_an_acknowledged_cancel_is_recorded,
    clients.rule_20_an_answer_is_the_log_s,
    clients.rule_20_answers_never_go_back,
    clients.rule_20_a_value_was_published,
    clients.only_expected_errors,
    log.no_worker_crashes,
)

MAX_OF_A_RULE: Final = 20
"""One cause often shows a thousand times."""
MAX_LINES: Final = 120
NEAR_US: Final = 5_000_000
"""Faults so long before or after what a violation names are shown with it."""


@dataclass(frozen=True, slots=True)
class Violation:
    """Something that must not be.

    Args:
        rule: The rule's name.
        text: What is wrong.
        evidence: What there is to see of the workflows that it names: log, attempts, operations, faults; in the order
            of time, with offsets.
    """

    rule: str
    text: str
    evidence: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join([f"{self.rule}: {self.text}", *(f"    {line}" for line in self.evidence)])


def violations(case: Case) -> list[Violation]:
    """All violations of all rules, each with its evidence; of a rule no more than a person would read."""
    found: list[Violation] = []
    for rule in RULES:
        texts = list(rule(case))
        found += [
            Violation(rule.__name__, text, tuple(evidence(case, text)))
            for text in texts[:MAX_OF_A_RULE]
        ]
        if len(texts) > MAX_OF_A_RULE:
            found.append(Violation(rule.__name__, f"... and {len(texts) - MAX_OF_A_RULE} more", ()))
    return found


def evidence(case: Case, text: str) -> list[str]:
    """Lines about the workflows that a text names, in the order of time."""
    lines: list[tuple[int, str]] = []
    for workflow_id in sorted(_named(case, text)):
        lines += _about(case, workflow_id)
    if lines:
        first, last = min(at for at, _ in lines), max(at for at, _ in lines)
        lines += [
            (fault.began_us, f"fault     {fault}")
            for fault in case.recorded.faults
            if _touches(fault, first - NEAR_US, last + NEAR_US)
        ]
    lines.sort()
    shown = [f"{at} {line}" for at, line in lines[:MAX_LINES]]
    return shown + ([f"... and {len(lines) - MAX_LINES} more"] if len(lines) > MAX_LINES else [])


def _named(case: Case, text: str) -> set[str]:
    known = case.audited.streams.keys() | {op.workflow_id for op in case.recorded.operations}
    found: set[str] = set()
    for word in re.findall(r"[\w.:/-]+", text):
        bare = word.strip(".:/")
        found |= {bare, bare.rpartition("/")[0]} & known
    return found


def _about(case: Case, workflow_id: str) -> Iterator[tuple[int, str]]:
    for event in case.stream(workflow_id):
        yield event.recorded_at, f"log       {_shown(case, workflow_id, event)}"
    for line in case.begun:
        if line.workflow_id == workflow_id:
            yield (
                line.at_us,
                f"attempt   {line.attempt} of {workflow_id}/{line.step} in process {line.pid}",
            )
    for operation in case.recorded.operations:
        if operation.workflow_id == workflow_id:
            yield operation.began_us, f"operation {operation}"


def _shown(case: Case, workflow_id: str, event: Event) -> str:
    place = case.audited.places[workflow_id, event.position or 0]
    names = (
        "step",
        "attempt",
        "name",
        "message_id",
        "target_id",
        "due_at",
        "payload",
        "error_message",
    )
    there: Mapping[str, object] = {
        name: value for name in names if (value := getattr(event, name, None)) is not None
    }
    rest = " ".join(f"{name}={value}" for name, value in there.items())
    return (
        f"partition {place.partition} offset {place.offset} position {event.position} {event.kind} by {event.worker}"
        f" under {event.claim}, logged at {place.timestamp}: {rest}"
    )


def _touches(fault: Fault, first_us: int, last_us: int) -> bool:
    return fault.began_us <= last_us and (fault.ended_us or last_us) >= first_us


def main() -> int:
    """Judge a run's directory."""
    found = violations(load_case(Path(sys.argv[1])))
    for violation in found:
        print(violation)
    print(f"{len(found)} violations")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
