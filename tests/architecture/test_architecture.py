"""Who may import whom, and what is written nowhere: the rules that keep the parts apart.

The source is read as syntax trees, so an import counts wherever it stands: at the top of a module,
in a function, or under ``TYPE_CHECKING``.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = "k8sfutures"
FOLDER = Path(__file__).parents[2] / "src" / PACKAGE

PURE_CORE = (
    *("messages", "codec", "chunks", "bodies", "lanes", "arrivals"),
    *("scheduler", "scheduler_backlog", "scheduler_events", "scheduler_isolation"),
    *("attempts", "crashes", "options", "worker.endings"),
    "scheduler_records",
    *("worker.assignment", "worker.dispatch", "worker.frames", "worker.instructions"),
    *("worker.invariants", "worker.ledger", "worker.needs", "worker.nested", "worker.said"),
    *("demand", "losses", "queueing", "worker.occupancy", "attached"),
    *(f"pods.kubernetes.{name}" for name in ("capacity", "labels", "manifests", "placement")),
    *(f"pods.kubernetes.{name}" for name in ("room", "roster", "stories")),
)
IMPURE = (
    *("_thread", "concurrent", "queue", "threading"),  # threads, locks and Futures
    *("asyncio", "multiprocessing", "select", "selectors", "subprocess"),
    *("datetime", "time"),  # clocks: `now` is an argument
    *("pika", "socket", "socketserver", "ssl"),
)
SHELLS = (
    "amqp",
    "broker",
    "cli",
    "cli_image",
    "cli_pool",
    "container_tools",
    "demo",
    "executor",
    "image",
)
SHELLS += ("image", "manager", "pods")
FUTURE_SETTERS = ("set_exception", "set_result", "set_running_or_notify_cancel")
LONGEST_MODULE = 450


class Module:
    """One module's name (without the package's), source and syntax tree."""

    def __init__(self, name: str, source: str, *, is_package: bool = False) -> None:
        self.name = name
        self.source = source
        self.tree = ast.parse(source)
        self.is_package = is_package

    def __repr__(self) -> str:
        return self.name or "__init__"

    def imports(self) -> Iterator[str]:
        """Yields the full name of each module imported, and of each name taken from one."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = self._absolute(node)
                yield base
                yield from (f"{base}.{alias.name}" for alias in node.names)

    def _absolute(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        here = [PACKAGE, *filter(None, self.name.split("."))]
        up = node.level - self.is_package  # a package's own folder is where it already is
        above = here[: len(here) - up]
        return ".".join([*above, *filter(None, [node.module])])

    def imports_any(self, *names: str) -> list[str]:
        return sorted({i for i in self.imports() if any(within(i, name) for name in names)})

    def imports_any_of_ours(self, *names: str) -> list[str]:
        return self.imports_any(*(f"{PACKAGE}.{name}" for name in names))

    def where(self, node: ast.AST) -> str:
        return f"{self!r}:{getattr(node, 'lineno', 1)}"


def within(name: str, parent: str) -> bool:
    return name == parent or name.startswith(f"{parent}.")


def read_modules() -> Iterator[Module]:
    for path in sorted(FOLDER.rglob("*.py")):
        parts = path.relative_to(FOLDER).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        yield Module(name, path.read_text(encoding="utf-8"), is_package=is_package)


MODULES = {module.name: module for module in read_modules()}
every_module = pytest.mark.parametrize("module", MODULES.values(), ids=repr)
every_pure_module = pytest.mark.parametrize(
    "module", [MODULES[name] for name in PURE_CORE if name in MODULES], ids=repr
)


def reachable(module: Module) -> dict[str, str]:
    """Every module of ours that this one imports, directly or not, with the way there.

    The package's own ``__init__`` is left out: it is there for users, and each import runs it.
    """
    ways = {module.name: repr(module)}
    todo = [module]
    while todo:
        importer = todo.pop()
        for name in importer.imports():
            imported = MODULES.get(name.removeprefix(f"{PACKAGE}."))
            if imported and imported.name and imported.name not in ways:
                ways[imported.name] = f"{ways[importer.name]} -> {imported!r}"
                todo.append(imported)
    return ways


def swallows_everything(handler: ast.ExceptHandler) -> bool:
    """Whether it is a bare ``except:``, or one that takes any exception and does nothing."""
    if handler.type is None:
        return True
    caught = {node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)}
    idle = all(
        isinstance(line, ast.Pass)
        or (isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant))
        for line in handler.body
    )
    return idle and not caught.isdisjoint({"Exception", "BaseException"})


def calls_sleep(module: Module) -> list[str]:
    found = [
        module.where(node)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "time.sleep"
    ]
    return found + module.imports_any("time.sleep")


def sets_futures(module: Module) -> list[str]:
    return [
        f"{module.where(node)} {node.attr}"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute) and node.attr in FUTURE_SETTERS
    ]


@every_module
def test_only_amqp_imports_pika(module: Module) -> None:
    assert module.name == "amqp" or not module.imports_any("pika")


@every_module
def test_only_one_module_imports_the_client_of_kubernetes(module: Module) -> None:
    assert module.name == "pods.kubernetes.library" or not module.imports_any("kubernetes")


@every_pure_module
def test_the_pure_core_imports_nothing_impure(module: Module) -> None:
    assert not module.imports_any(*IMPURE)


@every_pure_module
def test_the_pure_core_reaches_no_shell(module: Module) -> None:
    shells = {*SHELLS, "worker.agent", "worker.__main__"} - {"pods", "image"}
    shells |= {"pods.local", "pods.selection"}
    shells |= {f"pods.kubernetes.{name}" for name in ("api", "explaining", "jobs", "source")}
    shells |= {f"pods.kubernetes.{name}" for name in ("survey", "watcher")}
    ways = reachable(module)
    assert not [ways[name] for name in ways if any(within(name, shell) for shell in shells)]


@every_module
def test_a_pod_never_imports_the_client(module: Module) -> None:
    if within(module.name, "worker"):
        client = [shell for shell in SHELLS if shell != "amqp"]
        ways = reachable(module)
        assert not module.imports_any_of_ours(*client)
        assert not [ways[name] for name in ways if any(within(name, part) for part in client)]


@every_module
def test_only_the_manager_resolves_futures(module: Module) -> None:
    assert module.name == "manager" or within(module.name, "testing") or not sets_futures(module)


@every_module
def test_no_exception_is_swallowed(module: Module) -> None:
    handlers = [node for node in ast.walk(module.tree) if isinstance(node, ast.ExceptHandler)]
    assert not [module.where(handler) for handler in handlers if swallows_everything(handler)]


@every_module
def test_nothing_sleeps(module: Module) -> None:
    assert not calls_sleep(module)


@every_module
def test_modules_have_a_size_and_a_name_that_says_something(module: Module) -> None:
    assert not {"util", "utils"}.intersection(module.name.split("."))
    assert len(module.source.splitlines()) <= LONGEST_MODULE


@pytest.mark.parametrize(
    "statement", ["import k8sfutures", "from k8sfutures import K8sRabbitExecutor"]
)
def test_importing_the_package_loads_nothing_heavy(statement: str) -> None:
    heavy = {"dill", "kubernetes", "matplotlib", "numpy"}
    program = f"import sys; {statement}; print(*sys.modules)"
    # -P: nothing in the working directory comes in between.
    run = subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert heavy.isdisjoint(run.stdout.split())


class TestTheReader:
    """The rules above can fail: what they look for is found in a source that has it."""

    SOURCE = """
import pika.adapters as adapters
from . import manager
from .. import _version
from ..pods.kubernetes import Cluster

def late():
    from time import sleep
    try:
        time.sleep(1)
        future.set_result(None)
    except:
        raise
    try: ...
    except (ValueError, Exception):
        pass
    try: ...
    except ValueError:
        pass
"""

    @pytest.fixture
    def module(self) -> Module:
        return Module("worker.agent", self.SOURCE)

    def test_imports(self, module: Module) -> None:
        assert set(module.imports()) == {
            "pika.adapters",
            *("k8sfutures.worker", "k8sfutures.worker.manager"),
            *("k8sfutures", "k8sfutures._version"),
            *("k8sfutures.pods.kubernetes", "k8sfutures.pods.kubernetes.Cluster"),
            *("time", "time.sleep"),
        }
        assert module.imports_any("pika", "pik") == ["pika.adapters"]
        assert module.imports_any_of_ours("pods")

    @pytest.mark.parametrize(
        ("name", "is_package", "statement", "imported"),
        [
            ("worker", True, "from .cpus import allot", "k8sfutures.worker.cpus.allot"),
            ("worker", True, "from .. import amqp", "k8sfutures.amqp"),
            ("", True, "from .executor import K8sRabbitExecutor", "k8sfutures.executor"),
            ("manager", False, "from . import scheduler as core", "k8sfutures.scheduler"),
            ("manager", False, "from k8sfutures import amqp", "k8sfutures.amqp"),
        ],
    )
    def test_relative_imports(
        self, name: str, is_package: bool, statement: str, imported: str
    ) -> None:
        assert imported in set(Module(name, statement, is_package=is_package).imports())

    def test_faults(self, module: Module) -> None:
        assert calls_sleep(module) == ["worker.agent:10", "time.sleep"]
        assert sets_futures(module) == ["worker.agent:11 set_result"]
        handlers = [node for node in ast.walk(module.tree) if isinstance(node, ast.ExceptHandler)]
        assert [swallows_everything(handler) for handler in handlers] == [True, True, False]

    def test_indirect_imports(self, monkeypatch: pytest.MonkeyPatch) -> None:
        chain = [
            Module("worker.agent", "from .. import helper"),
            Module("helper", "from k8sfutures.manager import Manager"),
            Module("manager", ""),
        ]
        for module in chain:
            monkeypatch.setitem(MODULES, module.name, module)
        assert reachable(chain[0])["manager"] == "worker.agent -> helper -> manager"

    def test_modules_were_found(self) -> None:
        assert "errors" in MODULES
