"""What pickles what.

Three picklers, the cheapest that does the job:

1. C pickle, protocol 5, for data and for what a pod can import, the user's own modules
   included: those are shipped (see `own_modules`);
2. cloudpickle, for definitions that a pod cannot import: what lives in ``__main__`` or in a
   module that cannot be shipped, and lambdas, closures and local classes anywhere. It keeps a
   registry, so that such a class is one class at either end;
3. dill, for data that neither of them takes.

C pickle alone does not know that a reference into ``__main__`` means nothing on a pod, so its
output is searched for the names of such modules: the name of every module that a pickle
refers to stands in it in plain text. A name found by accident costs time and nothing else.

Everything is read with C pickle: it reads what all three write.
"""

from __future__ import annotations

import copyreg
import io
import pickle
import sys
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import methodcaller
from typing import Any, Final

import cloudpickle

from .bodies import Segments
from .definitions import DefinitionsPickler
from .own_modules import own_modules

PROTOCOL: Final = 5

loads = pickle.loads

_MAIN: Final = b"__main__"
# A class of which only `multiprocessing` itself makes copies that are any good.
_CONNECTION: Final = b"multiprocessing.connection\x94\x8c\nConnection"
# A reference to a module's attribute, in protocol 4 and later: STACK_GLOBAL.
_REFERENCE: Final = b"\x93"

_cloudpickle_lock = threading.RLock()


@contextmanager
def _by_value() -> Iterator[None]:
    """Let cloudpickle take definitions of own modules by value that cannot be shipped."""
    with _cloudpickle_lock:
        known = set(cloudpickle.list_registry_pickle_by_value())
        added = [
            module
            for module in own_modules.by_value().values()
            if module.__name__ not in known and module.__name__ in sys.modules
        ]
        for module in added:
            cloudpickle.register_pickle_by_value(module)
        try:
            yield
        finally:
            for module in added:
                cloudpickle.unregister_pickle_by_value(module)


def _needs_care(data: bytes) -> bool:
    own = own_modules.by_value()
    return data.find(_CONNECTION) >= 0 or any(data.find(name) >= 0 for name in own)


# --- objects


def dumps(obj: object) -> bytes:
    """Pickle any object so that a process that has never seen the user's code can load it.

    Args:
        obj: data, definitions, or both.

    Returns:
        Bytes for `loads`.

    Raises:
        Exception: what the object itself raised, or why none of the picklers takes it.
    """
    buffers: list[pickle.PickleBuffer] = []
    try:
        # The contents of arrays stay out of it: no name of a module is in there, and to search
        # 10 MB for some costs more than to pickle them.
        data = pickle.dumps(obj, PROTOCOL, buffer_callback=buffers.append)
        if _refers_to_definitions(data):
            return _dumps_definitions(obj)
        return pickle.dumps(obj, PROTOCOL) if buffers else data
    except Exception:  # cloudpickle takes it, or says what is wrong with it
        return _dumps_definitions(obj)


def split(obj: object, limit: int) -> tuple[list[bytes], list[pickle.PickleBuffer]]:
    """Pickle any object like `dumps`, with its bulky parts apart.

    Args:
        obj: data, definitions, or both.
        limit: bytes that a part has at least to be bulky.

    Returns:
        The pickle in segments, of which there are several only where a bytes object or a text in
        it is bulky and so a segment of its own; and its bulky buffers (PEP 574), of which nothing
        has been copied.

    Raises:
        Exception: as for `dumps`.
    """
    buffers: list[pickle.PickleBuffer] = []

    def in_band(buffer: pickle.PickleBuffer) -> bool:
        if buffer.raw().nbytes < limit:
            return True
        buffers.append(buffer)
        return False

    by_definitions = False
    try:
        if type(obj) is tuple and _has_bulky_text(obj, limit):
            file = Segments(limit)
            pickle.Pickler(file, PROTOCOL, buffer_callback=in_band).dump(obj)
            segments = file.take()
            if not any(map(_refers_to_definitions, file.code)):
                return segments, buffers
            buffers.clear()
        data = pickle.dumps(obj, PROTOCOL, buffer_callback=in_band)
        by_definitions = _refers_to_definitions(data)
    except Exception:
        by_definitions = True
    if by_definitions:
        buffers.clear()
        data = _dumps_definitions(obj, in_band, None, buffers.clear)
    if len(data) < limit:
        return [data], buffers
    # Once more, for what is bulky in it: few calls come here, and none of those that hurry.
    file = Segments(limit)

    def begin_anew() -> None:
        buffers.clear()
        file.clear()

    begin_anew()
    if by_definitions:
        data = _dumps_definitions(obj, in_band, file, begin_anew)
        return file.take() or [data], buffers
    pickler = pickle.Pickler(file, PROTOCOL, buffer_callback=in_band)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        pickler.dispatch_table = {**copyreg.dispatch_table, numpy.ndarray: _reduced_array}
    pickler.dump(obj)
    return file.take(), buffers


def _reduced_array(array: Any) -> Any:
    """As NumPy reduces arrays; those of times, of which it gives no buffer, as ones of integers."""
    if array.dtype.kind in "mM" and (array.flags.c_contiguous or array.flags.f_contiguous):
        return methodcaller("view", array.dtype), (array.view("i8"),)
    return array.__reduce_ex__(PROTOCOL)


def _has_bulky_text(call: tuple[Any, ...], limit: int) -> bool:
    """Whether an argument is a bulky ``bytes`` or ``str``: then one look at it is enough."""
    return any(
        type(value) in _TEXTS and len(value) >= limit
        for value in (call[0] if call and type(call[0]) is tuple else call)
    )


_TEXTS: Final = frozenset((bytes, str))


def _refers_to_definitions(data: bytes) -> bool:
    # `find`, as `in` takes ten times as long on bytes: it tries an integer first. To look for
    # one byte costs a tenth of looking for more.
    return data.find(_REFERENCE) >= 0 and (data.find(_MAIN) >= 0 or _needs_care(data))


def _dumps_definitions(
    obj: object,
    buffer_callback: Callable[[pickle.PickleBuffer], object] | None = None,
    file: Segments | None = None,
    begin_anew: Callable[[], object] = lambda: None,
) -> bytes:
    """Pickle by value what a pod cannot import; into `file` where there is one, and it can.

    What the callback and the file were given before dill begins counts for nothing: `begin_anew`
    is called.
    """
    try:
        buffer = io.BytesIO()
        with _by_value():
            units = not isinstance(obj, types.FunctionType | type)
            DefinitionsPickler(file or buffer, PROTOCOL, buffer_callback, units=units).dump(obj)
        return buffer.getvalue()
    except Exception as from_cloudpickle:
        begin_anew()  # some of what failed is there already
        try:
            data = _dumps_with_dill(obj)
        except Exception:  # cloudpickle's words name the object; dill's are its own
            raise from_cloudpickle from None
        if data.find(_MAIN) >= 0 or _needs_care(data):
            # What a pod cannot import, by name; or as something that is new at each load.
            raise
        return data


def _dumps_with_dill(obj: object) -> bytes:
    import dill

    class Pickler(dill.Pickler):  # type: ignore[misc]
        dispatch = dill.Pickler.dispatch.copy()

    # dill makes a new lock, opens the file anew, and refers to what is gone at once, on the
    # machine where it loads them: for another machine that is no copy, and the user had better
    # hear of it.
    for kind in list(Pickler.dispatch):
        if kind.__module__ in {"_thread", "_io", "_pyio", "weakref"}:
            del Pickler.dispatch[kind]
    buffer = io.BytesIO()
    Pickler(buffer, PROTOCOL, recurse=True).dump(obj)
    return buffer.getvalue()
