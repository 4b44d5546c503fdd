"""Bundles: the same files make the same one, and unpacking one writes nowhere else."""

import contextlib
import hashlib
import os
import stat
import zlib
from pathlib import Path

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k8sfutures.bundles import FORMAT, NAME_FILE, pack, unpack


def packed(content: list) -> tuple[str, bytes]:
    """Like `pack`, of anything."""
    whole = msgpack.packb(content)
    return hashlib.sha256(whole).hexdigest()[:32], zlib.compress(whole)


FILES = [("pkg/__init__.py", False, b"x = 1"), ("pkg/run.sh", True, b"#!/bin/sh")]


def test_what_was_packed_is_unpacked(tmp_path: Path) -> None:
    digest, body = pack("pkg", FILES)
    assert unpack(memoryview(body), digest, tmp_path) == "pkg"
    assert (tmp_path / "pkg/__init__.py").read_bytes() == b"x = 1"
    assert os.access(tmp_path / "pkg/run.sh", os.X_OK)
    assert (tmp_path / NAME_FILE).read_text() == "pkg"
    mode = stat.S_IMODE((tmp_path / "pkg/__init__.py").stat().st_mode)
    assert not mode & 0o222, "processes share it"


def test_the_hash_depends_on_the_files_alone() -> None:
    digest, body = pack("pkg", FILES)
    assert pack("pkg", FILES[::-1]) == (digest, body)
    assert pack("pkg", [(*FILES[0][:2], b"x = 2"), FILES[1]])[0] != digest
    assert pack("pkg", [("pkg/other.py", *FILES[0][1:]), FILES[1]])[0] != digest
    assert pack("other", FILES)[0] != digest


@pytest.mark.parametrize(
    "path", ["/etc/x", "../x", "a/../../x", "a//b", "", ".", "a/./b", "a\0b", NAME_FILE, 3, None]
)
def test_a_path_that_leads_elsewhere_is_refused(tmp_path: Path, path: object) -> None:
    digest, body = packed([FORMAT, "pkg", [[path, False, b""]]])
    folder = tmp_path / "in"
    folder.mkdir()
    with pytest.raises(ValueError, match="leads out of its folder"):
        unpack(body, digest, folder)
    assert list(tmp_path.iterdir()) == [folder]
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "body", [b"", b"x", zlib.compress(b""), zlib.compress(b"x"), zlib.compress(msgpack.packb(1))]
)
def test_what_is_no_bundle_is_refused(tmp_path: Path, body: bytes) -> None:
    with pytest.raises(ValueError, match="bundle"):
        unpack(body, "abc", tmp_path)


def test_another_bundle_is_refused(tmp_path: Path) -> None:
    digest, body = pack("pkg", FILES)
    with pytest.raises(ValueError, match=f"not abc, but {digest}"):
        unpack(body, "abc", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_of_another_format_is_refused(tmp_path: Path) -> None:
    digest, body = packed([FORMAT + 1, "pkg", []])
    with pytest.raises(ValueError, match=f"format {FORMAT + 1}"):
        unpack(body, digest, tmp_path)


@given(st.binary(max_size=200))
def test_any_bytes_are_unpacked_or_refused(tmp_path_factory, body: bytes) -> None:
    with contextlib.suppress(ValueError):
        unpack(body, "abc", tmp_path_factory.mktemp("bundle"))
