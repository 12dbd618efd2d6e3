"""The report of a run: what it proves by itself, in Python and in a real browser, and what a change shows as."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import pytest

from browser import Tab
from chronicle import BEGAN_AT, Chronicle
from refold.log.codec import decode_event, encode_event
from refold.log.errors import LogCorrupt, LogMismatch, LogTrimmed, UsageError, WorkflowNotFound
from refold.log.events import StepCompleted
from refold.log.memory import MemoryLog, MemoryStore
from refold.log.protocol import Channel, Record
from refold.log.schedules import SCHEDULE
from refold.projections.audit import stand_of
from refold.projections.audit_check import check_report
from refold.projections.audit_page import page_of, report_in
from refold.projections.audit_report import AuditReport, make_report, read_report
from refold.projections.audit_walk import Standing
from refold.projections.seal import Seal, SealKey

KEY = SealKey.generate()
EVIL = '</script><img src=x onerror="document.body.dataset.hacked=1"><!-- \' \u2028 & \x07'
MADE_AT = BEGAN_AT + 3_600_000_000


def lived() -> Chronicle:
    """Two owners and two runs; one run has orders, and values that are markup."""
    made = Chronicle()
    made.claim()
    for _ in range(4):
        made.step("order-1")
        made.step("order-2")
    made.pause("order-1", "anna@desk", "gateway is <b>down</b>")
    made.claim()
    made.zombie(0)
    made.word = EVIL.replace('"', '\\"').replace("\x07", "\\u0007")
    for _ in range(3):
        made.step("order-1")
    made.word = "paid"
    made.step("order-2")
    made.complete("order-1")
    return made


def reported(
    made: Chronicle,
    workflow_id: str = "order-1",
    *,
    sealed_to: int | None = None,
    key: SealKey = KEY,
) -> AuditReport:
    """The report of a run, with a seal over the log up to an offset (-1 for no seal)."""
    end = len(made.entries) if sealed_to is None else sealed_to

    async def report() -> AuditReport:
        log = MemoryLog(store=MemoryStore(now_us=lambda: BEGAN_AT))
        await log.open()
        seal: tuple[Seal, SealKey] | None = None
        if end >= 0:
            await log.append(Channel.EVENTS, 0, made.entries[:end])
            standing, *_ = await stand_of(log, 0, Standing())
            seal = key.seal("shop", log.identity, MADE_AT - 1, [standing], None), key
            await log.append(Channel.EVENTS, 0, made.entries[end:])
        else:
            await log.append(Channel.EVENTS, 0, made.entries)
        with_key = None if seal is None else (seal[0], key.public)
        found = await make_report(log, workflow_id, MADE_AT, with_key)
        await log.close()
        return found

    return asyncio.run(report())


def events(report: AuditReport) -> list[str]:
    """Kinds of a report's events."""
    records = [Record(one.offset, 0, report.workflow_id, one.value) for one in report.events]
    return [str(getattr(decode_event(record), "kind", None)) for record in records]


def test_a_sealed_report_is_verified_by_the_reader_s_own_key() -> None:
    """Given a run of a sealed log, its report has its events alone, and each is proved."""
    report = reported(lived())
    assert events(report) == [
        *("workflow.started", "step.completed", "step.completed", "step.completed"),
        *("workflow.paused", "step.completed", "step.completed", "step.completed"),
        "workflow.completed",
    ]
    checked = check_report(report, [KEY.public])
    assert (checked.verdict, checked.sealed, checked.wrong) == ("verified", 9, ())
    assert check_report(report, []).verdict == "consistent"
    assert read_report(report.to_json(), "it") == report


def test_events_after_the_seal_are_not_said_to_be_sealed() -> None:
    """Given a log that went on after its seal, the report is consistent, and says how many events are sealed."""
    checked = check_report(reported(lived(), sealed_to=6), [KEY.public])
    assert (checked.verdict, checked.sealed) == ("consistent", 3)
    checked = check_report(reported(lived(), sealed_to=-1), [KEY.public])
    assert (checked.verdict, checked.sealed, checked.seal) == ("consistent", 0, None)


def flipped(report: AuditReport) -> AuditReport:
    """A recorded amount is another."""
    one = report.events[3]
    value = one.value.replace(b"paid", b"PAID")
    return replace(
        report, events=(*report.events[:3], one._replace(value=value), *report.events[4:])
    )


def forged(report: AuditReport) -> AuditReport:
    """An event is written anew, with its chain."""
    one = report.events[3]
    event = decode_event(Record(0, 0, report.workflow_id, one.value))
    assert isinstance(event, StepCompleted)
    entry, _ = encode_event(replace(event, payload='"stolen"'), one.before)
    changed = one._replace(value=entry.value)
    return replace(report, events=(*report.events[:3], changed, *report.events[4:]))


def dropped(report: AuditReport) -> AuditReport:
    return replace(report, events=(*report.events[:3], *report.events[4:]))


def dropped_last(report: AuditReport) -> AuditReport:
    return replace(report, events=report.events[:-1])


def moved(report: AuditReport) -> AuditReport:
    one = report.events[3]._replace(offset=8)
    return replace(report, events=(*report.events[:3], one, *report.events[4:]))


def at_another_time(report: AuditReport) -> AuditReport:
    one = report.events[3]._replace(timestamp=1)
    return replace(report, events=(*report.events[:3], one, *report.events[4:]))


def swapped(report: AuditReport) -> AuditReport:
    one, two, *rest = report.events
    return replace(report, events=(two, one, *rest))


def of_another_run(report: AuditReport) -> AuditReport:
    return replace(report, workflow_id="order-2")


def of_another_namespace(report: AuditReport) -> AuditReport:
    return replace(report, identity="another")


def by_another_key(report: AuditReport) -> AuditReport:
    thief = SealKey.generate()
    return reported(lived(), key=thief)


TAMPERINGS = [flipped, forged, dropped, moved, at_another_time, swapped]
NAMED = [flipped, dropped, moved, swapped]


@pytest.mark.parametrize(
    "tamper", [*TAMPERINGS, dropped_last, of_another_run, of_another_namespace, by_another_key]
)
def test_a_changed_report_is_found(tamper: Callable[[AuditReport], AuditReport]) -> None:
    """Given a sealed report that was changed, it is altered, and it is said how."""
    checked = check_report(tamper(reported(lived())), [KEY.public])
    assert checked.verdict == "altered"
    assert checked.wrong


def test_a_zombie_s_event_is_in_no_report() -> None:
    """Given a record that did not count, it is not in its run's report, and can't be slipped in: no seal has it."""
    made = lived()
    report = reported(made)
    late = next(at for at in range(len(made.entries)) if at not in made.counting)
    assert late not in [one.offset for one in report.events]
    slipped = report.events[4]._replace(offset=late, value=made.entries[late].value)
    assert check_report(replace(report, events=(*report.events[:4], slipped)), [KEY.public]).wrong


def test_there_is_no_report_of_what_is_not_there_or_was_changed() -> None:
    """Given an unknown run, a changed log, or one that was trimmed, there is an error and no report."""
    with pytest.raises(WorkflowNotFound):
        reported(lived(), "order-9")
    made = lived()
    made.entries[4] = made.entries[4]._replace(value=made.entries[4].value[:-1] + b"9")
    with pytest.raises(LogCorrupt, match="at offset 4"):
        reported(made, sealed_to=-1)

    async def trimmed() -> None:
        log = MemoryLog(store=MemoryStore())
        await log.open()
        await log.append(Channel.EVENTS, 0, lived().entries)
        await log.trim(Channel.EVENTS, 0, 5)
        await make_report(log, "order-1", MADE_AT)

    with pytest.raises((LogTrimmed, LogCorrupt), match="--archive"):
        asyncio.run(trimmed())


def test_what_is_no_report_is_refused() -> None:
    """Given other files, each is told to be none."""
    with pytest.raises(LogCorrupt, match="is not an audit report"):
        read_report("{}", "it")
    with pytest.raises(LogMismatch, match="upgrade"):
        read_report('{"format": "refold audit report 9"}', "it")
    with pytest.raises(UsageError, match="is not a report"):
        report_in("<html></html>", "it")


# In a browser -------------------------------------------------------------------------------------------------


def shown(tab: Tab, path: Path, report: AuditReport) -> str:
    """Show a report; returns the verdict."""
    path.write_text(page_of(report), encoding="utf-8")
    tab.open(path)
    tab.wait_until("document.body.dataset.done === 'yes'")
    return tab.text("#verdict")


def test_a_page_verifies_itself_with_no_network(browser_page: Tab, tmp_path: Path) -> None:
    """Given a sealed report, the page says that it is verified, by which key, and shows every event."""
    assert shown(browser_page, tmp_path / "r.html", reported(lived())) == "Verified"
    assert f"signed by the key {KEY.public.id}" in browser_page.text("#checks")
    kinds = browser_page.texts("#rows td:nth-child(3)")
    assert kinds == events(reported(lived()))
    assert set(browser_page.texts("#rows td:last-child")) == {"sealed"}
    assert browser_page.texts("#order-rows td")[1:] == [
        *("pause", "anna@desk", "gateway is <b>down</b>")
    ]
    browser_page.fill("#key", KEY.public.pem())
    assert browser_page.text("#key-answer") == "It is the key of this seal."
    assert browser_page.text("#verdict") == "Verified"
    browser_page.fill("#key", SealKey.generate().public.id)
    assert browser_page.text("#key-answer") == "It is NOT the key of this seal."
    assert browser_page.text("#verdict") == "Sealed by somebody else"


def test_what_was_recorded_is_shown_as_text(browser_page: Tab, tmp_path: Path) -> None:
    """Given values that are markup and scripts, they are shown to the letter, and nothing of them is done."""
    shown(browser_page, tmp_path / "r.html", reported(lived()))
    assert browser_page.evaluate("document.body.dataset.hacked ?? null") is None
    assert browser_page.evaluate("document.querySelectorAll('img').length") == 0
    assert any(EVIL[:20] in text for text in browser_page.texts("#rows summary"))
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<img" not in page


@pytest.mark.parametrize("tamper", TAMPERINGS)
def test_a_page_that_was_changed_says_so(
    tamper: Callable[[AuditReport], AuditReport], browser_page: Tab, tmp_path: Path
) -> None:
    """Given a page whose data were changed, it says that it is altered, and names the event where one can be told."""
    changed = tamper(reported(lived()))
    assert shown(browser_page, tmp_path / "r.html", changed) == "Altered"
    wrong = browser_page.texts("#checks li.bad")
    assert wrong
    if tamper in NAMED:
        assert "The event at offset" in wrong[0]
        assert "altered" in browser_page.texts("#rows td:last-child")
    assert not {"sealed", "not sealed"} & set(browser_page.texts("#rows td:last-child"))


def test_a_page_without_a_seal_says_what_that_means(browser_page: Tab, tmp_path: Path) -> None:
    """Given no seal, or events after it, the page says that it is consistent, and what is not proved."""
    path = tmp_path / "r.html"
    assert shown(browser_page, path, reported(lived(), sealed_to=-1)) == "Consistent"
    assert "could have made them up" in browser_page.text("#checks")
    assert shown(browser_page, path, reported(lived(), sealed_to=6)) == "Consistent"
    assert "6 events were written after that seal" in browser_page.text("#checks")


def test_a_long_run_is_shown_bit_by_bit_and_nothing_is_left_out(
    browser_page: Tab, tmp_path: Path
) -> None:
    """Given a run of 2,100 events, the first steps and events are shown, and the others when they are asked for."""
    made = Chronicle()
    made.claim()
    for _ in range(2_100):
        made.step("order-1")
    assert shown(browser_page, tmp_path / "r.html", reported(made)) == "Verified"
    assert browser_page.texts("button") == [
        "Show the other 2049 steps",
        "Show the other 100 events",
    ]
    for what, row, first, in_all in (
        ("steps", ".bar-row", 50, 2_099),
        ("events", "#rows tr", 2_000, 2_100),
    ):
        assert len(browser_page.texts(row)) == first
        browser_page.click(f"button.{what}")
        assert len(browser_page.texts(row)) == in_all
    assert browser_page.texts("button") == []


def test_orders_to_a_schedule_are_shown_with_who_and_why(browser_page: Tab, tmp_path: Path) -> None:
    """Given the report of a schedule's own run, what people ordered is told as for any run."""
    made = Chronicle()
    made.claim()
    made.step("order-1")
    order = {"order": "pause", "requested_by": "anna@desk", "reason": "holidays"}
    made.ask("order-1", SCHEDULE, json.dumps(order))
    shown(browser_page, tmp_path / "r.html", reported(made))
    told = browser_page.texts("#order-rows td")[1:]
    assert told == ["schedule: pause", "anna@desk", "holidays"]


def test_a_page_whose_seal_was_signed_by_another_says_so(browser_page: Tab, tmp_path: Path) -> None:
    """Given a seal with a signature of another key, the page does not take it."""
    report = reported(lived())
    assert report.seal is not None
    line = json.loads(report.seal)
    line["signature"] = "00" * 64
    changed = replace(report, seal=json.dumps(line))
    assert shown(browser_page, tmp_path / "r.html", changed) == "Altered"
    assert "signature is not one of its key" in browser_page.text("#checks")


def test_the_page_hashes_as_python_does(browser_page: Tab, tmp_path: Path) -> None:
    """Given data of every length around a block's, and long ones, the page's BLAKE2b is Python's."""
    shown(browser_page, tmp_path / "r.html", reported(lived()))
    lengths = [0, 1, 3, 64, 127, 128, 129, 255, 256, 257, 1000, 70_000]
    for size, of in ((32, lengths), (16, [0, 32])):
        script = f"{of}.map((n) => hex(blake2b(Uint8Array.from({{length: n}}, (_, i) => i * 7), {size})))"
        expected = [
            blake2b(bytes(i * 7 & 255 for i in range(n)), digest_size=size).hexdigest() for n in of
        ]
        assert browser_page.evaluate(script) == expected
