"""Every error that refold raises, in one tree.

    RefoldError
    ├── LogError                   the log could not do what was asked
    │   ├── LogUnavailable         broker or file can't be reached now; nothing was written
    │   │   └── PayloadsUnavailable    nor can what payloads are read with
    │   │       ├── BlobsUnavailable   the store of large payloads
    │   │       └── KeysUnavailable    the store of their keys
    │   ├── AppendUnknown          the append may or may not be in the log; read it to know
    │   ├── RecordTooLarge         refused before the send; nothing was written
    │   ├── LogCorrupt             a record, or the file, is not what refold wrote
    │   │   └── LogTrimmed         it is gone from the log's beginning: an archive may have it
    │   ├── LogMismatch            partition count, topic or format differ from what was recorded
    │   └── TopicsMissing          the namespace's topics have not been made
    ├── DefinitionError            a decorated function can't be what the decorator says
    ├── UsageError                 a durable call in the wrong place or the wrong spelling
    │   └── SideEffectError        workflow code reached outside; it belongs in a step
    ├── PayloadError               a value has no JSON form, or does not fit its annotation
    │   ├── PayloadTooLarge        its JSON is over the limit
    │   └── PayloadUnreadable      what is recorded of it can't be read here
    │       ├── BlobMissing        it is in a blob store, and not in the one that is given here
    │       ├── BlobCorrupt        what the blob store has is not what was put into it
    │       ├── KeyMissing         it is encrypted, and its key is not given here
    │       ├── EnvelopeCorrupt    it is encrypted, and was altered or made with another key
    │       └── PayloadErased      its key was destroyed: nobody can read it any more
    ├── CommandRefused             the partition's owner refused a command
    │   ├── WorkflowConflict       the id is taken by a run with another input
    │   ├── UnknownWorkflow        no worker that owns the partition knows the name
    │   ├── UnknownQueue           nobody has set a queue of that name
    │   ├── InvalidInput           the input does not fit the workflow's parameters
    │   ├── WorkflowEnded          the run has ended, so it takes no message, question or order any more
    │   └── AskRefused             the workflow refused a question, before or after it was recorded
    ├── WorkflowNotFound           no run has that id
    ├── WorkflowParked             the run waits for a person
    ├── WorkflowCancelled          the run was asked to cancel, and ended by it; raised inside `def` workflows as well
    ├── WorkflowTerminated         the run was ended from outside, its code not asked
    ├── WorkflowError              the run failed with an error whose type can't be rebuilt here
    ├── StepError                  a step failed with an error whose type can't be rebuilt here
    ├── StepTimeout                an attempt, or all of them together, took too long
    ├── ResultTimeout              the run had not ended when the caller's patience did
    ├── NoThreadFree               every thread for `def` workflows is lost to code that never came back
    ├── EngineClosed               the engine was closed before or during the call
    ├── ProjectionFailed           a projection's own code raised on an event
    ├── MetricFailed               a metric's own code raised, or gave what is no number
    ├── TargetError                where a projection or a sink keeps what it has could not do what was asked
    │   ├── TargetUnavailable      it can't be reached or written now
    │   ├── TargetMismatch         it is another projection's or namespace's, of a newer release, or damaged
    │   └── TargetRefused          a receiver over HTTP does not take an event
    ├── PositionMoved              another process has written to the target meanwhile
    └── CheckFailed                `refold check` could not be carried out

Every message says what happened, to which workflow and step, and what to do next.
"""


class RefoldError(Exception):
    """Root of all errors that refold raises itself."""


class LogError(RefoldError):
    """The log could not do what was asked of it."""


class LogUnavailable(LogError):
    """The log can't be reached now. Nothing was written."""


class PayloadsUnavailable(LogUnavailable):
    """What payloads are read or written with can't be reached now. Nothing that needs it was written."""


class BlobsUnavailable(PayloadsUnavailable):
    """The store of large payloads can't be reached now. Nothing that names one was written."""


class KeysUnavailable(PayloadsUnavailable):
    """The store of payloads' keys can't be reached now. Nothing that needs one was written."""


class AppendUnknown(LogError):
    """An append was sent and its outcome is not known: only reading the log settles it."""


class RecordTooLarge(LogError):
    """A record is over the log's limit. Nothing was written."""


class LogCorrupt(LogError):
    """What stands in the log is not what refold wrote."""


class LogTrimmed(LogCorrupt):
    """Records that are needed are gone from the log's beginning; where they were archived, the archive has them."""


class LogMismatch(LogError):
    """The log is not the one that was recorded, or of a newer format."""


class TopicsMissing(LogError):
    """The namespace's topics do not exist: `refold topics create` makes them."""


class DefinitionError(RefoldError):
    """A function can't be the workflow or step that its decorator says."""


class UsageError(RefoldError):
    """A durable call was made where it can't be, or in the wrong spelling."""


class SideEffectError(UsageError):
    """Workflow code reached outside (file, socket, process, blocking sleep)."""


class PayloadError(RefoldError):
    """A value has no JSON form, or does not fit the type that was declared for it."""


class PayloadTooLarge(PayloadError):
    """A value's JSON is over the limit."""


class PayloadUnreadable(PayloadError):
    """What is recorded of a value can't be read here."""


class BlobMissing(PayloadUnreadable):
    """A large payload is not in the blob store that is given here."""


class BlobCorrupt(PayloadUnreadable):
    """What the blob store has of a large payload is not what was put into it."""


class KeyMissing(PayloadUnreadable):
    """A payload is encrypted with a key that is not given here."""


class EnvelopeCorrupt(PayloadUnreadable):
    """An encrypted payload was altered, moved, or made with another key of that name."""


class PayloadErased(PayloadUnreadable):
    """The key of an encrypted payload was destroyed: the payload is gone for ever."""


class CommandRefused(RefoldError):
    """The partition's owner refused a command; nothing else changed."""


class WorkflowConflict(CommandRefused):
    """The id belongs to a run with another workflow or another input."""


class UnknownWorkflow(CommandRefused):
    """The worker that owns the partition has no workflow of that name."""


class UnknownQueue(CommandRefused):
    """Nobody has said how many runs of that queue may run at once: `Engine.set_queue`, or `refold queue set`."""


class InvalidInput(CommandRefused):
    """The input does not fit the workflow's parameters."""


class WorkflowEnded(CommandRefused):
    """The run has ended: it takes no message, question or order any more."""


class AskRefused(CommandRefused):
    """The workflow refused a question: its validator before it was recorded, or its code after."""


class WorkflowCancelled(RefoldError):
    """The run was asked to cancel and has ended by it.

    In a `def` workflow that is asked to cancel, it is raised from the durable call that waits, or from the next one.
    """


class WorkflowTerminated(RefoldError):
    """The run was ended from outside, its code not asked."""


class WorkflowNotFound(RefoldError):
    """No run has that id."""


class WorkflowParked(RefoldError):
    """The run waits for a person: fix the cause, then `refold resume ID`."""


class WorkflowError(RefoldError):
    """The run failed with an error whose type can't be rebuilt in this process."""


class StepError(RefoldError):
    """A step failed with an error whose type can't be rebuilt in this process."""

    def __init__(self, message: str, *, type_name: str = "", stack: str = "") -> None:
        super().__init__(message)
        self.type_name = type_name
        self.stack = stack


class StepTimeout(RefoldError, TimeoutError):
    """A step's attempt, or all of its attempts together, took longer than allowed."""


class ResultTimeout(RefoldError, TimeoutError):
    """The run had not ended within the time that the caller gave. It goes on."""


class EngineClosed(RefoldError):
    """The engine was closed before or while the call was under way."""
