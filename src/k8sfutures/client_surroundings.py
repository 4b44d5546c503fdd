"""What calls are to see of this process, which is their client: see `surroundings`."""

from __future__ import annotations

import os
import sys
from typing import Any, Final

from .config import SECRET_VARIABLES, Pods, Settings
from .machine import working_folder
from .surroundings import Surroundings, Variables, variables

_OF_PODS: Final = frozenset({"K8SFUTURES_NODE", "K8SFUTURES_POD_CONFIG", "K8SFUTURES_POD_NAME"})
"""Variables that a pod is started with: never another's."""


def surroundings_for(settings: Settings, pods: Pods) -> bytes:
    """What calls are to see of this process, as it is now.

    Args:
        settings: of the executor.
        pods: where they run. What this process has is for pods on its machine; and its environment,
            which may have secrets, can be read nowhere else, even on the way to those.

    Returns:
        A body for `surroundings.unpack`.

    Raises:
        PodsUnavailable: see `sealing.local_key`.
    """
    here = pods == "local"
    return Surroundings(
        argv=[str(one) for one in getattr(sys, "argv", [""])],
        main=_text(getattr(sys.modules.get("__main__"), "__file__", None)),
        directory=_text(working_folder()) if here else None,
        own=_own_variables(sealed=settings.amqp_url is not None) if here else None,
        named={os.fsencode(k): os.fsencode(v) for k, v in (settings.environment or {}).items()},
    ).pack()


def _own_variables(*, sealed: bool) -> Variables | bytes:
    kept_back = {os.fsencode(name) for name in SECRET_VARIABLES | _OF_PODS}
    own = {name: value for name, value in variables().items() if name not in kept_back}
    if not sealed:
        return own
    from .sealing import local_key, seal

    return seal(own, local_key())


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
