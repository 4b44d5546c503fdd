"""Every exception that k8sfutures raises, and nothing else.

The tree::

    K8sFuturesError
    ├── SettingValueError (ValueError)            a setting has a value that cannot work
    ├── SettingTypeError (TypeError)              a setting has a value of the wrong type
    ├── MessageError (ValueError)                 bytes that are not one of our messages
    ├── ForkedExecutorError (RuntimeError)        an executor was used in a forked child
    ├── ImageError                                the pods' image cannot be built or pushed
    ├── ClusterError                              the Kubernetes API cannot do what was asked
    ├── CallTimeout (TimeoutError)                one call ran for longer than its `timeout`
    ├── CallCancelled (CancelledError)            one call was cancelled while it ran
    ├── ExecutorBroken (BrokenProcessPool)        the executor can run nothing any more
    │   ├── BrokerNotInstalled                    no rabbitmq-server for the local broker
    │   ├── BrokerUnreachable                     nobody answers at the broker's address
    │   ├── BrokerRefused                         the broker refused the credentials, or a right
    │   ├── BrokerUntrusted                       it could not show that it is the broker (TLS)
    │   ├── PodsUnavailable                       no pod could be started
    │   ├── PodMismatch                           the pool's pods run other versions
    │   ├── InitializerFailed                     the initializer failed
    │   ├── WorkersTerminated                     terminate_workers() or kill_workers()
    │   └── ThreadDied                            a thread of the client itself failed
    └── CallFailed (BrokenProcessPool)            one call failed, and only that call
        ├── WorkerCrashed                         its CPU process died
        ├── PodLost                               its pods were lost, more often than `retries`
        ├── CallNotLoadable                       the pod could not unpickle it
        └── ResultNotLoadable                     the client could not unpickle its result

The classes of the standard library that a ``ProcessPoolExecutor`` would raise are kept as
bases, so that an ``except BrokenProcessPool`` written for it goes on working. What the
user's own function raises, and what pickling a user's object raises, is never wrapped.

All of them survive pickling with their fields: the message is the only positional argument,
and fields are attributes.
"""

from __future__ import annotations

from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .attempts import Attempt

__all__ = [
    "BrokerNotInstalled",
    "BrokerRefused",
    "BrokerUnreachable",
    "BrokerUntrusted",
    "CallCancelled",
    "CallFailed",
    "CallNotLoadable",
    "CallTimeout",
    "ClusterError",
    "ExecutorBroken",
    "ForkedExecutorError",
    "ImageError",
    "InitializerFailed",
    "K8sFuturesError",
    "MessageError",
    "PodLost",
    "PodMismatch",
    "PodsUnavailable",
    "ResultNotLoadable",
    "SettingTypeError",
    "SettingValueError",
    "ThreadDied",
    "WorkerCrashed",
    "WorkersTerminated",
]


class K8sFuturesError(Exception):
    """Base of every exception that this library defines."""


class SettingValueError(K8sFuturesError, ValueError):
    """A setting has a value that cannot work; the text names it, its value and its origin."""


class SettingTypeError(K8sFuturesError, TypeError):
    """A setting has a value of the wrong type; the text names it, its value and its origin."""


class MessageError(K8sFuturesError, ValueError):
    """Bytes from the broker that are not a message of this protocol, signed with our key.

    Attributes:
        protocol: the version of the protocol where that alone is wrong, the signature being
            right; else None.
        stranger: the sender where it is one that believes to be known here, and is not; else None.
    """

    def __init__(
        self,
        message: str = "not a message",
        *,
        protocol: int | None = None,
        stranger: str | None = None,
    ) -> None:
        super().__init__(message)
        self.protocol = protocol
        self.stranger = stranger


class ForkedExecutorError(K8sFuturesError, RuntimeError):
    """An executor was used in a forked child of the process that made it."""


class ImageError(K8sFuturesError):
    """The pods' image cannot be built or pushed; the text says what failed and what to do."""


class ClusterError(K8sFuturesError):
    """The Kubernetes API did not do what it was asked to.

    Attributes:
        status: its HTTP status; 0 where it did not answer, None where it was not asked.
    """

    def __init__(
        self, message: str = "the Kubernetes API failed", *, status: int | None = None
    ) -> None:
        super().__init__(message)
        self.status = status


class CallTimeout(K8sFuturesError, TimeoutError):
    """A call ran for longer than the `timeout` of its options; its CPU process was ended.

    Attributes:
        timeout: seconds that it was allowed to run.
        seconds: how long it ran.
        pod: name of the pod, or None where unknown.
        node: the machine that the pod runs on, or None.
        cpu_id: the CPU id that the process was pinned to, or None.
        pid: process id of the process in its pod, or None.
        memory_peak: bytes of memory that the process had at its peak, or None.
        output: the last lines that the call printed, 20 at most.
        stack: where Python was when the process was ended.
        attempts: how often and where it ran, with what became of it each time, this one included.
    """

    def __init__(
        self,
        message: str = "a call ran for too long",
        *,
        timeout: float | None = None,
        seconds: float | None = None,
        pod: str | None = None,
        node: str | None = None,
        cpu_id: int | None = None,
        pid: int | None = None,
        memory_peak: int | None = None,
        output: str = "",
        stack: str = "",
        attempts: tuple[Attempt, ...] = (),
    ) -> None:
        super().__init__(message)
        self.timeout = timeout
        self.seconds = seconds
        self.pod = pod
        self.node = node
        self.cpu_id = cpu_id
        self.pid = pid
        self.memory_peak = memory_peak
        self.output = output
        self.stack = stack
        self.attempts = attempts


class CallCancelled(K8sFuturesError, CancelledError):
    """A call was cancelled with ``ex.cancel(future, running=True)`` after it had been sent out.

    Attributes:
        pod: name of the pod that had it, or None where none had.
    """

    def __init__(
        self, message: str = "a call was cancelled while it ran", *, pod: str | None = None
    ) -> None:
        super().__init__(message)
        self.pod = pod


class ExecutorBroken(K8sFuturesError, BrokenProcessPool):
    """The executor can run nothing any more; every Future that it still held has this error."""


class BrokerNotInstalled(ExecutorBroken):
    """There is no ``rabbitmq-server`` for the local broker on this machine."""


class BrokerUnreachable(ExecutorBroken):
    """Nobody answers at the broker's address."""


class BrokerRefused(ExecutorBroken):
    """The broker refused the user, the virtual host, the client's certificate, or a permission."""


class BrokerUntrusted(ExecutorBroken):
    """Who answered could not show that it is the broker: no TLS, or a certificate that fails."""


class PodsUnavailable(ExecutorBroken):
    """No pod could be started, or none answered within ``startup_timeout``."""


class PodMismatch(ExecutorBroken):
    """The pool's pods run a Python, protocol or pickle library that does not match ours."""


class InitializerFailed(ExecutorBroken):
    """The executor's ``initializer`` raised in a CPU process, or ended it.

    The cause is what it raised, or a `WorkerCrashed` with all that is known of the process.
    """


class WorkersTerminated(ExecutorBroken):
    """``terminate_workers()`` or ``kill_workers()`` was called, or Ctrl-C ended the program."""


class ThreadDied(ExecutorBroken):
    """A thread of the client failed; its exception is the cause. This is a bug in k8sfutures."""


class CallFailed(K8sFuturesError, BrokenProcessPool):
    """One call failed for a reason outside the function; every other call goes on."""


class WorkerCrashed(CallFailed):
    """The CPU process that ran this call died.

    Attributes:
        pod: name of the pod, or None where unknown.
        node: the machine that the pod runs on, or None.
        cpu_id: the CPU id that the process was pinned to, or None.
        pid: process id of the process in its pod, or None.
        seconds: how long the call ran, or None.
        signal: number of the signal that ended it, or None.
        exitcode: its exit code where it exited by itself, or None.
        out_of_memory: whether the kernel killed it because the pod had reached its limit.
        memory_limit: that limit in bytes, or None where there is none or it is unknown.
        memory_peak: bytes of memory that the process had at its peak, earlier calls included, or
            None.
        output: the last lines that the call printed, 20 at most.
        stack: where Python was, of a crash in native code: what `faulthandler` says.
        attempts: how often and where it ran, with what became of it each time, this one included.
    """

    def __init__(
        self,
        message: str = "a CPU process died",
        *,
        pod: str | None = None,
        node: str | None = None,
        cpu_id: int | None = None,
        pid: int | None = None,
        seconds: float | None = None,
        signal: int | None = None,
        exitcode: int | None = None,
        out_of_memory: bool = False,
        memory_limit: int | None = None,
        memory_peak: int | None = None,
        output: str = "",
        stack: str = "",
        attempts: tuple[Attempt, ...] = (),
    ) -> None:
        super().__init__(message)
        self.pod = pod
        self.node = node
        self.cpu_id = cpu_id
        self.pid = pid
        self.seconds = seconds
        self.signal = signal
        self.exitcode = exitcode
        self.out_of_memory = out_of_memory
        self.memory_limit = memory_limit
        self.memory_peak = memory_peak
        self.output = output
        self.stack = stack
        self.attempts = attempts


class PodLost(CallFailed):
    """The pod that ran this call was lost, and so were those that ran its retries.

    Attributes:
        pods: names of the pods that were lost with it, oldest first.
        reasons: for each of them what is known of why, in words.
        attempts: how often and where it ran, with what became of it each time.
    """

    def __init__(
        self,
        message: str = "the call's pod was lost",
        *,
        pods: tuple[str, ...] = (),
        reasons: tuple[str, ...] = (),
        attempts: tuple[Attempt, ...] = (),
    ) -> None:
        super().__init__(message)
        self.pods = pods
        self.reasons = reasons
        self.attempts = attempts


class CallNotLoadable(CallFailed):
    """The pod could not unpickle the call's function or arguments; its exception is the cause."""


class ResultNotLoadable(CallFailed):
    """The client could not unpickle the call's result or exception; that error is the cause."""
