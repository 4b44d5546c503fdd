"""What to do instead, where somebody gives a call something that only one process can have."""

from __future__ import annotations

from typing import Final, NamedTuple


class Advice(NamedTuple):
    """About objects of some kinds.

    Attributes:
        why: they cannot travel.
        give: what a call is to be given instead, or to do.
        back: what a call is to return instead.
    """

    why: str
    give: str
    back: str


_EXECUTOR: Final = Advice(
    "an executor stays in the process that made it",
    "have the call make one of its own, or submit there what it would have submitted",
    "return the results of its calls",
)
_FUTURE: Final = Advice(
    "a Future stays in the process that made it",
    "give its result(), or submit this once it is done",
    "return its result()",
)
_LOCK: Final = Advice(
    "it is for the threads of one process",
    "have the call make one, or leave it out of the object's state (__getstate__)",
    "leave it out of the object's state (__getstate__)",
)
_QUEUE: Final = Advice(
    "it is for the threads of one process",
    "give what is in it as a list, and have the call return what it would have put there",
    "return what is in it as a list",
)
_SHARED_LOCK: Final = Advice(
    "calls run on other machines, which it does not reach",
    "do here, with what calls return, what must be done by one at a time",
    "leave it out of the object's state (__getstate__)",
)
_SHARED: Final = Advice(
    "calls run on other machines, which it does not reach",
    "give what is in it, and have calls return what they would have put there",
    "return what is in it",
)
_PROCESS: Final = Advice(
    "it stays on the machine where it runs",
    "have the call start it",
    "return what has come of it",
)
_CONNECTION: Final = Advice(
    "what is open stays in its process",
    "open it in the call, or in an initializer, once for each process",
    "return what has come through it",
)
_FILE: Final = Advice(
    "what is open stays in its process",
    "give its contents, or a path that pods have, and open that in the call",
    "return its contents",
)
_GENERATOR: Final = Advice(
    "what runs stays in its process",
    "give what it makes as a list, or have the call make it",
    "return what it makes as a list",
)
_COROUTINE: Final = Advice(
    "what runs stays in its process",
    "give its function, and have the call run that with asyncio.run",
    "return what it returns",
)
_LOOP: Final = Advice(
    "what runs stays in its process",
    "have the call make one, with asyncio.run for one",
    "return the results of its tasks",
)
_REFERENCE: Final = Advice(
    "nothing would hold there what it refers to",
    "give that itself",
    "return that itself",
)
_VIEW: Final = Advice(
    "it is of memory of this process",
    "give its bytes(...), or an array",
    "return its bytes(...), or an array",
)
_HANDLER: Final = Advice(
    "log records of calls come to the handlers of this process by themselves",
    "leave it out of the object's state (__getstate__)",
    "leave it out of the object's state (__getstate__)",
)

_KINDS: Final = {
    name: advice
    for advice, names in (
        (_EXECUTOR, "concurrent.futures._base.Executor multiprocessing.pool.Pool"),
        (_FUTURE, "concurrent.futures._base.Future _asyncio.Future"),
        (
            _LOCK,
            (
                "_thread.lock _thread.RLock _thread._local threading.Event threading.Condition "
                "threading.Semaphore threading.Barrier threading.Thread"
            ),
        ),
        (_QUEUE, "queue.Queue _queue.SimpleQueue"),
        (
            _SHARED_LOCK,
            (
                "multiprocessing.synchronize.SemLock multiprocessing.synchronize.Condition "
                "multiprocessing.synchronize.Event multiprocessing.synchronize.Barrier"
            ),
        ),
        (
            _SHARED,
            (
                "multiprocessing.queues.Queue multiprocessing.queues.SimpleQueue "
                "multiprocessing.sharedctypes.SynchronizedBase multiprocessing.heap.BufferWrapper "
                "multiprocessing.connection._ConnectionBase multiprocessing.managers.BaseManager"
            ),
        ),
        (_PROCESS, "multiprocessing.process.BaseProcess subprocess.Popen"),
        (
            _CONNECTION,
            (
                "_socket.socket _ssl._SSLContext select.epoll sqlite3.Connection sqlite3.Cursor "
                "psycopg2.extensions.connection psycopg.Connection sqlalchemy.engine.base.Engine "
                "sqlalchemy.engine.base.Connection"
            ),
        ),
        (_FILE, "_io._IOBase tempfile._TemporaryFileWrapper mmap.mmap"),
        (_GENERATOR, "builtins.generator builtins.async_generator"),
        (_COROUTINE, "builtins.coroutine"),
        (_LOOP, "asyncio.events.AbstractEventLoop"),
        (_REFERENCE, "weakref.ReferenceType"),
        (_VIEW, "builtins.memoryview"),
        (_HANDLER, "logging.Handler"),
    )
    for name in names.split()
}
"""By the full name of the class, so that nothing is imported for it; subclasses have it, too."""


def name_of_class(kind: type) -> str:
    """The full name of a class, without ``builtins``."""
    return f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")


def advice_on(it: object) -> Advice | None:
    """What is known of an object that cannot be pickled.

    Args:
        it: the object, or one that has it in its state.

    Returns:
        Why, and what to do; None for an object of another kind.
    """
    for kind in type(it).__mro__:
        found = _KINDS.get(f"{kind.__module__}.{kind.__qualname__}")
        if found is not None:
            return found
    return None
