"""A first program: ``python -m k8sfutures.demo`` counts primes on this machine's CPUs.

It uses the executor as any program would, twice: on cold pods, which have to be started, and
then, as a second program would find them, on the warm pods that the first run left.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import sys
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import as_completed
from pathlib import Path
from typing import Final, TextIO

from .address import parse_amqp_url
from .broker import ensure_local_broker, local_broker_status
from .config import load_settings
from .errors import K8sFuturesError
from .executor import K8sRabbitExecutor
from .values import dataclass

DEFAULT: Final = 5_000_000
LEAST: Final = 1_000
MOST: Final = 100_000_000

KNOWN: Final = {
    1_000: 168,
    10_000: 1_229,
    100_000: 9_592,
    1_000_000: 78_498,
    5_000_000: 348_513,
    10_000_000: 664_579,
    100_000_000: 5_761_455,
}
"""How many primes there are below a number, from the tables (OEIS A006880 for powers of ten)."""

_CALLS: Final = 200
_WARM_FOR: Final = 60
_BAR: Final = 24
_INTERRUPTED: Final = 130
"""The exit code of a program that Ctrl-C has ended, as shells count it."""


# --- what runs on the pods


def primes_between(start: int, stop: int) -> tuple[int, int, float]:
    """Count the primes from `start` up to, not including, `stop`, by trial division.

    A sieve would be faster: this is meant to be work.

    Returns:
        How many there are, the process that counted them, and the CPU seconds that it took.
    """
    began = time.process_time()
    divisors: list[int] = []
    for number in range(3, math.isqrt(stop) + 1, 2):
        if all(number % divisor for divisor in divisors):
            divisors.append(number)
    count = 1 if start <= 2 < stop else 0
    for number in range(max(3, start | 1), stop, 2):
        for divisor in divisors:
            if divisor * divisor > number:
                count += 1
                break
            if not number % divisor:
                break
        else:
            count += 1
    return count, os.getpid(), time.process_time() - began


# --- what runs here


@dataclass(frozen=True, slots=True)
class Run:
    """What one run through an executor came to; times in seconds, from its constructor on."""

    primes: int
    first: float
    last: float
    cpu: float
    processes: int

    def times(self) -> str:
        """The first and the last result, as columns."""
        return f"{self.first * 1e3:11,.0f} ms {self.last:11.2f} s"


class Progress:
    """How far a run is: one line that is written over in a terminal, a few lines elsewhere.

    Args:
        stream: where to.
        total: steps there are.
    """

    def __init__(self, stream: TextIO, total: int) -> None:
        self._stream = stream
        self._total = total
        self._terminal = stream.isatty()
        self._shown = 0

    def show(self, done: int, words: str) -> None:
        """Say that so many steps are done."""
        percent = 100 * done // self._total
        if self._terminal:
            bar = ("#" * (_BAR * done // self._total)).ljust(_BAR, ".")
            self._write(f"\r\033[K   [{bar}] {percent:3d} %   {words}")
        elif percent // 25 > self._shown // 25:
            self._write(f"   {percent:3d} %   {words}\n")
        self._shown = percent

    def clear(self) -> None:
        """Leave no half-written line."""
        if self._terminal:
            self._write("\r\033[K")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def count_primes(below: int, workers: int | None, pool: str) -> Run:
    """Count the primes below a number on the pods of a pool; they are started if there are none."""
    edges = [below * number // _CALLS for number in range(_CALLS + 1)]
    progress = Progress(sys.stdout, _CALLS)
    primes, cpu = 0, 0.0
    processes: set[int] = set()
    start = time.perf_counter()
    with K8sRabbitExecutor(workers, pods="local", pool=pool, warm_for=_WARM_FOR) as executor:
        try:
            executor.submit(os.getpid).result()
            first = time.perf_counter() - start
            futures = [executor.submit(primes_between, *edge) for edge in itertools.pairwise(edges)]
            for done, future in enumerate(as_completed(futures), start=1):
                found, process, seconds = future.result()
                primes += found
                cpu += seconds
                processes.add(process)
                progress.show(done, f"{primes:,} primes so far")
            last = time.perf_counter() - start
        except KeyboardInterrupt:
            executor.shutdown(wait=False, cancel_futures=True)
            raise
        finally:
            progress.clear()
    return Run(primes, first, last, cpu, len(processes))


def demonstrate(below: int, workers: int | None) -> bool:
    """The whole demonstration.

    Returns:
        Whether the result is right, as far as it is known.
    """
    say(
        f"Counting the primes below {below:,} by trial division, in {_CALLS} calls of "
        "K8sRabbitExecutor.submit().",
        "Each call goes through RabbitMQ to a pod, which on this machine is a group of ordinary"
        " processes.",
        "",
    )
    find_broker()
    pool = f"demo-{uuid.uuid4().hex[:8]}"
    say("", "1. On cold pods: nothing runs yet that could take a call.")
    cold = count_primes(below, workers, pool)
    report(cold)
    say("", "2. On warm pods: a new executor attaches to the pods that the first one has left.")
    warm = count_primes(below, workers, pool)
    report(warm)
    say(
        "",
        "   from the executor's constructor to ...    first result   last result",
        f"   1. cold: it had to start the pods      {cold.times()}",
        f"   2. warm: the pods were there           {warm.times()}",
        "   Warm pods spare their start alone: the work itself takes as long on either.",
        "",
    )
    right = judge(below, cold.primes, warm.primes)
    say("", what_stays())
    return right


def find_broker() -> None:
    """Find or start RabbitMQ, and say which."""
    url = load_settings({}).amqp_url
    if url:
        say(f"RabbitMQ: the one at {parse_amqp_url(url).safe}, as the setting amqp_url says.")
        return
    running = local_broker_status() is not None
    start = time.perf_counter()
    if not running:
        say("RabbitMQ: starting a private one on this machine ...")
    ensure_local_broker()
    if running:
        say("RabbitMQ: a private one runs on this machine already.")
    else:
        say(f"RabbitMQ: started in {time.perf_counter() - start:.1f} s.")


def report(run: Run) -> None:
    """One run in words."""
    say(
        f"   {run.primes:,} primes in {run.last:.2f} s: {run.cpu:.2f} s of CPU time on "
        f"{run.processes} CPU process{'es' if run.processes > 1 else ''}; the first result came "
        f"after {run.first * 1e3:,.0f} ms."
    )


def judge(below: int, cold: int, warm: int) -> bool:
    """Compare the results with each other, and with what is known."""
    if cold != warm:
        say(f"The two runs disagree: {cold:,} and {warm:,} primes below {below:,}.")
        return False
    known = KNOWN.get(below)
    if known is None:
        say(f"There are {cold:,} primes below {below:,}; both runs agree.")
    elif cold == known:
        say(f"There are {cold:,} primes below {below:,}; the tables say the same.")
    else:
        say(f"{cold:,} primes below {below:,} were counted, and the tables say {known:,}.")
    return known in (None, cold)


def what_stays() -> str:
    """What this program leaves behind, and how to end it."""
    pods = f"the warm pods, for {_WARM_FOR} s"
    if load_settings({}).amqp_url:
        return f"Still running: {pods}; they end by themselves."
    return (
        f"Still running: {pods}, and RabbitMQ, for your next program; to stop it: "
        f"{command()} broker stop"
    )


def command() -> str:
    """How to call our command line, from where the reader is."""
    script = Path(sys.executable).with_name("k8sfutures")
    folders = os.environ.get("PATH", "").split(os.pathsep)
    if str(script.parent) in folders or not script.exists():
        return "k8sfutures"
    here = Path.cwd()
    return str(script.relative_to(here) if script.is_relative_to(here) else script)


def say(*lines: str) -> None:
    """Print, at once, even into a pipe."""
    print(*lines, sep="\n", flush=True)


# --- the command line


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demonstration.

    Args:
        arguments: those of the command line, without the program's name.

    Returns:
        The exit code: 0, 1 where it failed or the result is wrong, 130 after Ctrl-C.
    """
    options = _parser().parse_args(arguments)
    try:
        return 0 if demonstrate(options.below, options.workers) else 1
    except K8sFuturesError as error:
        print(f"k8sfutures.demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted. Warm pods end by themselves.", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has had enough. Nothing may be left for the exit to flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m k8sfutures.demo",
        description="Count primes on the CPUs of this machine, through RabbitMQ: once on cold "
        "pods, once on warm ones.",
    )
    parser.add_argument(
        "--below",
        type=_below,
        default=DEFAULT,
        metavar="N",
        help=f"count the primes below this number, {LEAST:,} to {MOST:,} (default: {DEFAULT:,})",
    )
    parser.add_argument(
        "--workers",
        type=_workers,
        metavar="N",
        help="use at most so many CPUs (default: all of this machine's)",
    )
    return parser


def _below(text: str) -> int:
    return _number(text.replace(",", ""), LEAST, MOST)


def _workers(text: str) -> int:
    return _number(text, 1, 10_000)


def _number(text: str, least: int, most: int) -> int:
    words = f"a whole number from {least:,} to {most:,} is needed, not {text!r}"
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(words) from None
    if not least <= number <= most:
        raise argparse.ArgumentTypeError(words)
    return number


if __name__ == "__main__":
    sys.exit(main())
