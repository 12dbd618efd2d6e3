"""Room for runs and steps: a limit by number and by memory, and somebody to wake when there is room again."""

from refold.engine.room import LOOK_EVERY_US, Room, resident_bytes


def test_there_is_room_for_so_many() -> None:
    """Given a limit of two, the third has to wait until one leaves."""
    room = Room(2)
    room.enter()
    assert not room.is_full()
    room.enter()
    assert room.is_full()
    room.leave()
    assert not room.is_full()


def test_those_who_wait_are_woken() -> None:
    """Given somebody who waits, each one that leaves wakes whoever asked to be woken, until that is ended."""
    room = Room(1)
    woken: list[str] = []
    end = room.wake_with(lambda: woken.append("woken"))
    for waiting in (0, 1, 1):
        room.enter()
        room.waiting = waiting
        room.leave()
    assert woken == ["woken"] * 2
    end()
    end()  # twice is no error
    room.enter()
    room.leave()
    assert woken == ["woken"] * 2


def test_memory_is_looked_at_now_and_then() -> None:
    """Given a limit of memory, it is looked at once a second, and one run may be there whatever it says."""
    now_us = 0
    used = [100]
    room = Room(None, 50, elapsed=lambda: now_us, memory_bytes=lambda: used[0])
    assert not room.is_full()  # nobody is there
    room.enter()
    assert room.is_full()
    used[0] = 10
    assert room.is_full()  # not looked at again yet
    now_us += LOOK_EVERY_US
    assert not room.is_full()


def test_this_process_uses_memory() -> None:
    """Given this process, what is resident is more than a page and less than all there could be."""
    assert 1_000_000 < resident_bytes() < 1 << 50
