"""A program's environment on its way to local pods, past a broker that may be elsewhere.

Local pods are on the machine of their client and run as the same user, but what they are told goes
through the broker; and where that really is, its address does not say: ``127.0.0.1`` can be the end
of a tunnel (``ssh -L``, ``kubectl port-forward``). So the environment is sealed, by AES-256 in GCM
[1]_, with a key that is in a file of this user's, and that local pods are started with. A pod that
has another key, since it is on another machine, leaves its own environment as it is.

A private broker is on this machine for certain: what goes there needs no seal, nor the 10 ms that
it takes to import what makes one.

.. [1] NIST SP 800-38D. Each seal has a random nonce of 96 bits: good for 2**32 of them.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import platform
import secrets
from pathlib import Path
from typing import Final

from .errors import PodsUnavailable
from .machine import cache_folder
from .surroundings import pack_variables, unpack, unpack_variables

logger = logging.getLogger(__name__)

_SIZE: Final = 32
_NONCE: Final = 12


def local_key() -> bytes:
    """The key of this user on this machine; made where there is none.

    Raises:
        PodsUnavailable: its file cannot be read or written, or is another's.
    """
    path = cache_folder() / f"local.{platform.node()}.key"  # home folders can be on several
    try:
        try:
            return _read(path)
        except FileNotFoundError:
            _make(path)
            return _read(path)
    except OSError as error:
        raise PodsUnavailable(
            f"the key of local pods, {path}, cannot be read or written: {error}. See that the file "
            "and its folder are this user's alone, or name another cache folder in "
            "K8SFUTURES_CACHE_DIR"
        ) from error


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        key = file.read()
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise PermissionError("others could have written or read it")
    if len(key) != _SIZE:
        raise OSError(f"it has {len(key)} bytes instead of {_SIZE}; remove it")
    return key


def _make(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    try:
        draft.touch(mode=0o600, exist_ok=False)
        draft.write_bytes(secrets.token_bytes(_SIZE))
        path.hardlink_to(draft)  # whole, and never in the place of another's
    except FileExistsError:
        pass  # another program was faster
    finally:
        draft.unlink(missing_ok=True)


def seal(variables: dict[bytes, bytes], key: bytes) -> bytes:
    """An environment that only who has the key can read.

    Args:
        variables: the environment.
        key: from `local_key`.
    """
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce = os.urandom(_NONCE)
    return nonce + AESGCM(key).encrypt(nonce, pack_variables(variables), None)


def opened(body: bytes | None, key: bytes | None) -> bytes | None:
    """What a client has sent of its surroundings, with the environment readable, or left out.

    Args:
        body: from `Surroundings.pack`, or None.
        key: of this pod; None where it has none.

    Returns:
        Such a body; what is none is left to the process that will use it, and tell of it.
    """
    try:
        found = None if body is None else unpack(body)
    except ValueError:
        return body
    if found is None or not isinstance(found.own, bytes):
        return body
    own = None if key is None else _open(found.own, key)
    if own is None:
        logger.info("a client of another machine or cache folder: its environment stays there")
    return dataclasses.replace(found, own=own).pack()


def _open(sealed: bytes, key: bytes) -> dict[bytes, bytes] | None:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        plain = AESGCM(key).decrypt(sealed[:_NONCE], sealed[_NONCE:], None)
    except (InvalidTag, ValueError):  # the latter where there is not even a nonce
        return None
    return unpack_variables(plain)
