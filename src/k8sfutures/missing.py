"""What to say of a module or file that a call has not found on its pod, but the client has."""

from __future__ import annotations

import re
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Final

from .own_modules import is_installed
from .parcels import (
    can_be_shipped,
    extensions_of,
    find,
    is_compiled,
    is_namespace,
    locate,
    own_folders,
    parcel_of,
)
from .shipping import beside_at_client, too_big

_NO_NAME: Final = re.compile("cannot import name '(.+?)' from '(.+?)'")


def explain(error: BaseException, *, here: bool = False) -> str | None:
    """Why a module, or a file beside one, is missing on a pod, and what to do.

    Args:
        error: what a call has raised, or loading it; its causes and contexts count.
        here: whether the pod runs on this machine.

    Returns:
        A sentence or two; None where nothing is missing that the client has.
    """
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        if isinstance(one, ModuleNotFoundError) and one.name:
            return _explain(one.name, here=here)
        if isinstance(one, FileNotFoundError) and isinstance(one.filename, str):
            told = _explain_file(one.filename)
            if told is not None:
                return told
        # ``from package import module`` says it in other words.
        match = _NO_NAME.match(str(one)) if isinstance(one, ImportError) else None
        spec = None if match is None else find(f"{match[2]}.{match[1]}")
        if spec is not None and is_compiled(spec):
            return _explain(spec.name, here=here)
        one = one.__cause__ or one.__context__
    return None


def _explain_file(path: str) -> str | None:
    known = beside_at_client(path)
    if known is None or not Path(known[1]).exists():
        return None
    bundle, there = known
    if not bundle.name:
        return f"{there} is there at the client, but was not shipped: have ship={[there]!r} name it"
    if any(Path(origin).name == "__init__.py" for origin in bundle.origins.values()):
        return (
            f"{there} is there at the client, but was not shipped with the package "
            f"{bundle.name!r}: hidden files, compiled modules and virtual environments stay, and "
            "what is made after the executor has first needed it is seen by the next executor"
        )
    return (
        f"{there} is there at the client, but files beside the single module {bundle.name!r} are "
        "not shipped with it: make it a package, which comes with its data files (a folder with "
        "an __init__.py), pass the path or the contents as an argument, or have "
        f"ship={[there]!r} put the file into the working directory of calls"
    )


def _explain(name: str, *, here: bool) -> str | None:
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names:
        return (
            f"{name!r} is a part of Python that the pod's Python lacks: have its image built upon "
            "one that has it (k8sfutures image build --base IMAGE)"
        )
    spec, parcel_spec = find(name), locate(name)
    if spec is None or parcel_spec is None:
        return None  # nor does the client have it
    parcel = parcel_of(parcel_spec)
    if parcel in too_big:
        return too_big[parcel]
    if is_installed(parcel_spec.origin or spec.origin or ""):
        return _installed(top, parcel_spec, here=here)
    if is_compiled(spec):
        return (
            f"{name!r} is a compiled extension module of your own ({spec.origin}), and such run "
            "where they were built for, so it was not shipped: install it in the pods' image "
            "(k8sfutures image build --requirement ...)"
        )
    if is_namespace(parcel_spec):
        folders = own_folders(parcel_spec)
        return (
            f"{name!r} is a package of your own without an __init__.py ({', '.join(folders)}), of "
            "which only those modules are shipped that a call refers to by name: have "
            f"ship={[parcel_spec.name]!r} ship all of them"
            if folders
            else _installed(top, parcel_spec, here=here)
        )
    if not can_be_shipped(parcel_spec):
        return (
            f"{name!r} is there at the client ({spec.origin or spec.loader}), but is no source "
            "file that could be shipped: install it in the pods' image (k8sfutures image build "
            "--requirement ...)"
        )
    return (
        f"{name!r} is a module of your own ({spec.origin}) that nothing in the call refers to by "
        f"name, so it was not shipped: name it, ship={[parcel_spec.name]!r}"
    )


def _installed(top: str, spec: ModuleSpec, *, here: bool) -> str:
    """About a module that is installed at the client."""
    requirement = _requirement(top)
    text = f"{top!r} is installed here ({requirement or spec.origin}), and the pod does not have it"
    if here:
        text += (
            ": local pods look where this Python does at its start, so have its folder on "
            "PYTHONPATH before they start"
        )
    else:
        what = requirement or "..."
        text += f": install it in the pods' image (k8sfutures image build --requirement {what})"
    parcel = parcel_of(spec, even_installed=True)
    if parcel is not None and next(extensions_of(parcel), None) is None:
        text += f", or ship it along, as it is pure Python: ship={[spec.name]!r}"
    return text


def _requirement(top: str) -> str | None:
    """The distribution that a module comes from, as pip is asked for it."""
    from importlib import metadata  # which is slow to import, and few ask

    for name in metadata.packages_distributions().get(top, ()):
        return f"{name}=={metadata.version(name)}"
    return None
