"""Which pods a client can use. Pure."""

from __future__ import annotations

from .control import Plan
from .errors import MessageError, PodMismatch
from .messages import Hello, Versions


def another_protocol(pool: str, error: MessageError) -> PodMismatch:
    """What an executor is broken by whose pods speak another protocol.

    Args:
        pool: name of theirs.
        error: says which.
    """
    return PodMismatch(
        f"the pods of pool {pool!r} speak {error}: they run another version of k8sfutures; build "
        "their image again (k8sfutures image build), or use another pool (setting pool)"
    )


def mismatch_of(plan: Plan, ours: Versions, name: str, message: Hello) -> str:
    """Why a pod cannot be this client's, for people; "" where it can.

    Args:
        plan: what the executor is made of.
        ours: the client's versions.
        name: the pod's.
        message: what it says of itself.
    """
    pod = f"pod {name} of pool {plan.pool!r}"
    theirs = Versions(*message.versions)
    if theirs != ours:
        return (
            f"{pod} has {theirs}, and this client has {ours}; use another pool "
            "(setting pool), or the same versions on both sides"
        )
    wrong = [
        f"{setting}={wanted!r} (the pod has {message.shape.get(setting, 'no such setting')!r})"
        for setting, wanted in plan.shape.items()
        if message.shape.get(setting) != wanted
    ]
    if wrong:
        return (
            f"{pod} was made with other settings than this client gives: {', '.join(wrong)}; "
            "use another pool (setting pool), leave them out, or remove that pool "
            "(k8sfutures pool delete)"
        )
    return ""
