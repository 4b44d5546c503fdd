"""What became of a soak: what is right, what must not be, and how it is told."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .checks import RETRIES

if TYPE_CHECKING:
    from .clients import Client
    from .world import World

MORE_FILES = 4
"""Open files by which a client may have grown at the end: a connection that is being made."""

MORE_MEMORY = 1.6
"""Times the memory that it had at the start: what pools of memory keep, and caches of functions."""

SETTLED = 0.4
"""Part of the run after which memory is flat: clients and pods have their recent blobs by then."""

FLAT = 1.3
"""Times the memory that it had then: what one that does not grow may use at the end."""


@dataclass
class Report:
    """See the module's text.

    Attributes:
        seed: of the run.
        seconds: how long faults have struck.
        faults: how many of each.
        work: calls of each kind.
        before: memory and files of an agent that was there all the time, at the start.
        meanwhile: the same while it had work, in the order of time.
        after: at the end, when no client is there any more.
        violations: in words.
    """

    seed: int
    seconds: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    work: Counter[str] = field(default_factory=Counter)
    before: dict[str, int] = field(default_factory=dict)
    meanwhile: list[dict[str, int]] = field(default_factory=list)
    after: dict[str, int] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    quiet: list[dict[str, Any]] = field(default_factory=list)
    executions: int = 0
    duplicated: int = 0
    again: int = 0
    missing: int = 0
    hangs: int = 0
    crashes: int = 0
    losses: int = 0
    refusals: int = 0
    unexplained: int = 0

    def judge(self, world: World) -> None:
        """Look at all that clients have said, and at what their calls have written down."""
        crashed: Counter[tuple[str, int]] = Counter()
        hit = world.struck_pods | world.poisoned()
        for client in world.clients:
            self._judge_calls(world, client)
            for item in client.of("violation"):
                self.violations.append(f"{client.name}: {item['what']}")
            for item in client.of("hang"):
                self.hangs += 1
                self.violations.append(f"{client.name}: {item} hangs; see {client.log}")
            for item in client.of("crashed"):
                crashed[item["pod"], item["pid"]] += 1
                if not world.was_killed(item["pod"], item["pid"]):
                    self.violations.append(f"{client.name}: nobody has killed that process: {item}")
            for item in client.of("refused"):
                self.refusals += 1
                if client.name not in world.refused:
                    self.violations.append(f"{client.name}: nobody has revoked that: {item}")
            for item in client.of("lost"):
                self.losses += 1
                if item["pod"] not in hit:
                    # By a call that kills its pods, before we knew of it; or it was too slow.
                    self.unexplained += 1
                    world.say(f"a pod that nobody has hit was given up: {item}")
        self.crashes = len(crashed)
        for (pod, pid), count in crashed.items():
            if count > 1:
                self.violations.append(f"{count} calls have failed with process {pid} of {pod}")
        self.quiet = list(world.clients[0].of("quiet"))
        self._judge_usage()

    def _judge_calls(self, world: World, client: Client) -> None:
        ran = world.executions(client.name)
        self.executions += ran.total()
        self.outcomes.update(client.last("quiet").get("outcomes", {}))
        for item in client.unfinished():
            if not client.was_killed:
                self.violations.append(f"{client.name}: {item} has no end")
            for number in range(item["first"], item["first"] + item["count"]):
                if ran[number] > 1 + RETRIES:
                    self.violations.append(f"{client.name}: call {number} ran {ran[number]} times")
        for item in client.of("done"):
            self.work[item["what"]] += item["count"]
            for first, count, least, most in item["rows"]:
                for number in range(first, first + count):
                    times = ran[number]
                    if times < least:
                        self.missing += 1
                        self.violations.append(f"{client.name}: call {number} never ran")
                    if times > most:
                        self.duplicated += 1
                        self.violations.append(
                            f"{client.name}: call {number} ({item['what']}) ran {times} times, "
                            f"{most} at most were right"
                        )
                    self.again += max(0, min(times, most) - 1)

    def _judge_usage(self) -> None:
        pairs = [("the agent", self.before, self.after)]
        if self.quiet:
            # The first rounds load modules and start threads.
            pairs.append(("the client", self.quiet[min(2, len(self.quiet) - 1)], self.quiet[-1]))
        for who, before, after in pairs:
            if not (before and after):
                self.violations.append(f"{who} that was to be measured is gone")
                continue
            more = MORE_FILES if who == "the client" else 0
            if after["files"] > before["files"] + more:
                self.violations.append(f"{who} has more open files: {before} -> {after}")
            if after["memory"] > before["memory"] * MORE_MEMORY + 100_000:
                self.violations.append(f"{who} has more memory: {before} -> {after}")
        if len(self.quiet) > 100:
            before, after = self.quiet[int(len(self.quiet) * SETTLED)], self.quiet[-1]
            if after["memory"] > before["memory"] * FLAT:
                self.violations.append(f"the client's memory is not flat: {before} -> {after}")
        if len(self.meanwhile) > 20:
            _, settled, end = self._of_the_agent("memory")
            if end > settled * FLAT:
                self.violations.append(f"the agent's memory is not flat: {settled} -> {end} KiB")

    def _of_the_agent(self, what: str) -> list[int]:
        """What it used with work: near the start, when it had settled, and near the end.

        Medians of a tenth of the looks each, since a look may find a message of megabytes.
        """
        tenth = max(1, len(self.meanwhile) // 10)
        settled = int(len(self.meanwhile) * SETTLED)
        parts = (
            self.meanwhile[:tenth],
            self.meanwhile[settled : settled + tenth],
            self.meanwhile[-tenth:],
        )
        return [round(statistics.median(look[what] for look in part)) for part in parts]

    def text(self) -> str:
        """For people."""
        lines = [
            "",
            f"seed {self.seed}, {self.seconds / 60:.1f} minutes of faults",
            f"calls: {self.work.total():,} in {self.executions:,} executions",
            *_table(self.work),
            "outcomes:",
            *_table(self.outcomes),
            f"faults: {self.faults.total()}",
            *_table(self.faults),
            f"calls whose process was killed: {self.crashes}",
            f"executors whose user was refused: {self.refusals}",
            f"pods given up with calls: {self.losses} (of no known fault: {self.unexplained})",
            f"executions for that: {self.again}",
            f"lost: {self.missing}   duplicated: {self.duplicated}   hangs: {self.hangs}",
            f"agent, unused: {_usage(self.before)} -> {_usage(self.after)}",
        ]
        if self.meanwhile:
            memory, files, threads = map(self._of_the_agent, ("memory", "files", "threads"))
            lines.append(
                f"agent, in {len(self.meanwhile)} looks while it had work: "
                + " -> ".join(
                    _usage({"memory": kib, "files": count, "threads": several})
                    for kib, count, several in zip(memory, files, threads, strict=True)
                )
            )
        if self.quiet:
            first = self.quiet[min(2, len(self.quiet) - 1)]
            settled = self.quiet[int(len(self.quiet) * SETTLED)]
            lines.append(
                f"client, between its {len(self.quiet)} rounds: {_usage(first)} -> "
                f"{_usage(settled)} -> {_usage(self.quiet[-1])}"
            )
        shown = self.violations[:40]
        lines.append(f"violations: {len(self.violations)}")
        lines += [f"  {line}" for line in shown]
        return "\n".join(lines)


def _table(counts: Counter[str]) -> list[str]:
    return [f"  {count:>9,}  {what}" for what, count in counts.most_common()]


def _usage(of: dict[str, Any]) -> str:
    if not of:
        return "gone"
    return f"{of['memory'] // 1024} MiB, {of['files']} files, {of['threads']} threads"
