"""What calls are to see of this process, which is their client: see `surroundings`."""

from __future__ import annotations

import ipaddress
import os
import sys
from typing import Any, Final

from .address import parse_amqp_url
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
            which may have secrets, does not leave the machine even on the way to those.

    Returns:
        A body for `surroundings.unpack`.
    """
    here = pods == "local"
    return Surroundings(
        argv=[str(one) for one in getattr(sys, "argv", [""])],
        main=_text(getattr(sys.modules.get("__main__"), "__file__", None)),
        directory=_text(working_folder()) if here else None,
        own=_own_variables() if here and _is_on_this_machine(settings.amqp_url) else None,
        named={os.fsencode(k): os.fsencode(v) for k, v in (settings.environment or {}).items()},
    ).pack()


def _own_variables() -> Variables:
    kept_back = {os.fsencode(name) for name in SECRET_VARIABLES | _OF_PODS}
    return {name: value for name, value in variables().items() if name not in kept_back}


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _is_on_this_machine(url: str | None) -> bool:
    """Whether what goes to a broker stays on this machine; None is for the private one."""
    if url is None:
        return True
    host = parse_amqp_url(url).host
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
