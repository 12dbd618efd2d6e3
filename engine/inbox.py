"""What has come from outside and the code has not taken yet: messages, questions, and the ends of children.

Messages are kept per topic, first in first out, until the code takes them; which of its receives gets which of them
follows from the order of the log, so that a replay repeats it. Questions have topics of their own: a message and a
question on topics of one name do not meet. A child's end stays, for as many as want to look at it.
"""

from collections import deque

from refold.log.events import AskReceived, ChildCompleted, ChildFailed, MessageReceived

Message = MessageReceived | AskReceived
ChildEnd = ChildCompleted | ChildFailed

Topic = tuple[str, bool]
"""A topic's name, and whether it is of questions."""


def topic_of(message: Message) -> Topic:
    """The topic on which a message or question came."""
    return message.name, message.__class__ is AskReceived


class Inbox:
    """Messages not taken yet, and how children have ended."""

    def __init__(self) -> None:
        self._topics: dict[Topic, deque[Message]] = {}
        self._ends: dict[int, ChildEnd] = {}

    def put(self, message: Message) -> None:
        """A message or a question came."""
        self._topics.setdefault(topic_of(message), deque()).append(message)

    def holds(self, topic: Topic) -> bool:
        """Whether there is a message on a topic."""
        return topic in self._topics

    def take(self, topic: Topic) -> Message | None:
        """Take the oldest message of a topic; None where there is none."""
        waiting = self._topics.get(topic)
        if waiting is None:
            return None
        message = waiting.popleft()
        if not waiting:
            del self._topics[
                topic
            ]  # topics may be as many as messages: one for each question's answer
        return message

    def positions(self) -> tuple[int, ...]:
        """Positions in the stream of all that was not taken, in order."""
        return tuple(
            sorted(
                message.position
                for waiting in self._topics.values()
                for message in waiting
                if message.position is not None
            )
        )

    def put_end(self, end: ChildEnd) -> None:
        """A child ended. Its first end is the one that counts."""
        self._ends.setdefault(end.step, end)

    def end_of(self, step: int) -> ChildEnd | None:
        """How the child that request `step` started has ended; None where it has not."""
        return self._ends.get(step)
