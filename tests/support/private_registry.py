"""A small private registry: serves one image, to whoever has the password.

The read half of the OCI distribution specification
(https://github.com/opencontainers/distribution-spec/blob/main/spec.md), from an OCI layout on disk.
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

USER, PASSWORD = "puller", "a-password-for-tests"


class PrivateRegistry:
    """Serves ``<address>/team/worker:1`` on this machine's loopback interface.

    Args:
        image: one that buildah has.
        folder: for its files.
    """

    def __init__(self, image: str, folder: Path) -> None:
        self._layout = folder / "layout"
        subprocess.run(
            ["buildah", "push", "--quiet", image, f"oci:{self._layout}:1"],
            check=True,
            capture_output=True,
        )
        self.refused = self.served = 0
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                registry.answer(self, body=False)

            def do_GET(self) -> None:
                registry.answer(self, body=True)

            def log_message(self, *_: Any) -> None:
                """Nothing: the tests look at what was served."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_port}"
        self.image = f"{self.address}/team/worker:1"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def answer(self, request: BaseHTTPRequestHandler, *, body: bool) -> None:
        token = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if request.headers.get("Authorization") != f"Basic {token}":
            self.refused += 1
            content, kind, status = b"{}", "application/json", 401
        else:
            self.served += 1
            content, kind, status = self._find(request.path)
        request.send_response(status)
        if status == 401:
            request.send_header("WWW-Authenticate", 'Basic realm="tests"')
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if body:
            request.wfile.write(content)

    def _find(self, path: str) -> tuple[bytes, str, int]:
        (manifest,) = json.loads((self._layout / "index.json").read_bytes())["manifests"]
        if path.rstrip("/") == "/v2":
            return b"{}", "application/json", 200
        match = re.fullmatch(r"/v2/team/worker/(manifests|blobs)/(1|sha256:[0-9a-f]{64})", path)
        if match is None:
            return b"{}", "application/json", 404
        what, reference = match.groups()
        digest = manifest["digest"] if reference == "1" else reference
        blob = self._layout / "blobs/sha256" / digest.removeprefix("sha256:")
        kind = manifest["mediaType"] if what == "manifests" else "application/octet-stream"
        return (blob.read_bytes(), kind, 200) if blob.is_file() else (b"{}", kind, 404)
