"""Programs in a network namespace of their own, where packets can be dropped."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

OWN_NETWORK = ("unshare", "--net")
"""Put before a command, it runs in a network namespace of its own."""


def why_not() -> str | None:
    """Why this process cannot make such a namespace and drop packets there, if it cannot."""
    if os.geteuid() != 0:
        return "only root can make a network namespace"
    if not shutil.which("nft") and not shutil.which("iptables"):
        return "needs nft (Debian's package nftables) or iptables"
    done = subprocess.run([*OWN_NETWORK, "ip", "link"], capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else done.stderr.strip()


def bring_up() -> None:
    """Have a loopback interface; in the namespace."""
    _run("ip", "link", "set", "lo", "up")


def drop_packets(port: int) -> None:
    """Drop all packets from and to a local port; in the namespace."""
    if shutil.which("nft"):
        _run("nft", "add table inet faults")
        _run("nft", "add chain inet faults out { type filter hook output priority 0; }")
        for end in ("sport", "dport"):
            _run("nft", f"add rule inet faults out tcp {end} {port} drop")
    else:
        for end in ("--sport", "--dport"):
            _run("iptables", "-A", "OUTPUT", "-p", "tcp", end, str(port), "-j", "DROP")


def _run(*words: str) -> None:
    subprocess.run(words, check=True)


def local_port(pid: int, remote: int) -> int:
    """The local port of a process's connection to a remote port."""
    links = Path(f"/proc/{pid}/fd").iterdir()
    sockets = {str(link.readlink()) for link in links if link.is_symlink()}
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        here, there = (int(fields[n].rpartition(":")[2], 16) for n in (1, 2))
        if there == remote and f"socket:[{fields[9]}]" in sockets:
            return here
    raise AssertionError(f"process {pid} has no connection to port {remote}")
