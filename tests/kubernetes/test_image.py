"""The real image, built with buildah on the local stand-in of the official one, and run.

A pod's root file system is read-only. Here the image's user stands for that: what it cannot write
to, it cannot compile into.
"""

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from k8sfutures import __version__, image
from k8sfutures.config import Settings
from k8sfutures.container_tools import find_tool
from k8sfutures.errors import ImageError

pytestmark = pytest.mark.kubernetes

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
OFFICIAL = f"docker.io/library/python:{PYTHON}-slim-bookworm"
PREFIX = f"localhost/k8sfutures-test-{os.getpid()}"
SANDBOX = ("--network", "host", "--isolation", "chroot")


def buildah(*arguments: str, check: bool = True) -> str:
    done = subprocess.run(
        ["buildah", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0 or not check, done.stdout
    return done.stdout.strip()


@pytest.fixture(scope="module")
def tool():
    try:
        find_tool("buildah", print)
    except ImageError as error:
        pytest.skip(str(error))
    if not buildah("images", "--quiet", OFFICIAL, check=False).isalnum():
        pytest.skip(f"{OFFICIAL} is not among buildah's images")
    yield "buildah"
    names = buildah("images", "--format", "{{.Name}}:{{.Tag}}").splitlines()
    for name in names:
        if name.startswith(PREFIX):
            buildah("rmi", name)


def build(name, log=print, *, layers=True, **kwargs):
    """Builds; without layers, one that fails leaves none of them behind."""
    return image.build_image(
        Settings(image=f"{PREFIX}-{name}:1"),
        tool="buildah",
        arguments=SANDBOX if layers else (*SANDBOX, "--layers=false"),
        log=log,
        **kwargs,
    )


def config_of(name):
    return json.loads(buildah("inspect", "--type", "image", name))["OCIv1"]


class Container:
    """A container of an image: not a pod, as its root file system is a copy of its own."""

    def __init__(self, name: str) -> None:
        self.name = buildah("from", "--pull-never", name)

    def run(self, *command: str) -> str:
        return buildah("run", "--isolation", "chroot", self.name, "--", *command)

    def python(self, program: str):
        """What a program prints, as JSON."""
        return json.loads(self.run("python", "-c", program))

    def remove(self) -> None:
        buildah("rm", self.name)


@pytest.fixture(scope="module")
def bare(tool):
    """The base as the official images are: without bytecode, even of the standard library."""
    name = f"{PREFIX}-base:1"
    container = buildah("from", "--pull-never", OFFICIAL)
    delete = "find /usr/lib/python3.* /usr/local/lib -name '*.pyc' -delete"
    buildah("run", "--isolation", "chroot", container, "--", "sh", "-c", delete)
    buildah("commit", "--quiet", "--rm", container, name)
    return name


@pytest.fixture(scope="module")
def built(bare):
    """The image, with two requirements of a user's own."""
    return build("worker", base=bare, requirements=["iniconfig==2.1.0", "sniffio"])


@pytest.fixture(scope="module")
def container(built):
    running = Container(built)
    yield running
    running.remove()


def test_it_runs_the_worker_as_a_user_with_a_home_and_a_name(container, built):
    config = config_of(built)["config"]
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["python", "-P", "-m", "k8sfutures.worker"]
    assert not config.get("Cmd")
    program = (
        "import getpass, json, os, pathlib, sys;"
        "print(json.dumps([os.getuid(), os.getgid(), getpass.getuser(), os.getcwd(),"
        "str(pathlib.Path.home()), os.access(os.path.dirname(os.__file__), os.W_OK)]))"
    )
    assert container.python(program) == [65532, 65532, "k8sfutures", "/tmp", "/tmp", False]


def test_it_has_this_very_code_and_the_clients_versions(container):
    program = (
        "import hashlib, importlib.metadata as m, json, pathlib, platform, k8sfutures;"
        "folder = pathlib.Path(k8sfutures.__file__).parent;"
        "code = {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()"
        " for p in folder.rglob('*.py')};"
        "from k8sfutures.messages import Versions;"
        "found = {d.metadata['Name']: d.version for d in m.distributions()};"
        "print(json.dumps([code, found, Versions.ours()]))"
    )
    code, found, versions = container.python(program)
    expected = f"from k8sfutures.messages import Versions as V; {program}"
    ours = subprocess.run([sys.executable, "-c", expected], capture_output=True, check=True)
    assert code == json.loads(ours.stdout)[0]
    assert versions == json.loads(ours.stdout)[2]
    assert found["k8sfutures"] == __version__
    assert {n: found.get(n) for n in image.DEPENDENCIES} == {
        n: version(n) for n in image.DEPENDENCIES
    }
    # The user's own.
    assert found["iniconfig"] == "2.1.0"
    assert "sniffio" in found
    assert {"kubernetes", "numpy"}.isdisjoint(found)


def test_all_that_a_pod_imports_is_compiled(container):
    program = (
        "import json, sys, dill, tblib.pickling_support, iniconfig, asyncio, sqlite3, csv;"
        "import k8sfutures.worker.__main__, k8sfutures.worker.program, k8sfutures.worker.zygote;"
        "cached = {n: m.__spec__.cached for n, m in list(sys.modules.items())"
        " if getattr(m, '__spec__', None) and m.__spec__.has_location"
        " and (m.__spec__.origin or '').endswith('.py')"
        # What Debian's own packages have there is the base's.
        " and not m.__spec__.origin.startswith('/usr/lib/python3/')};"
        "flags = {n: open(c, 'rb').read(8)[4] for n, c in cached.items()};"
        "print(json.dumps([sorted(sys.modules), flags]))"
    )
    imported, flags = container.python(program)
    assert {"kubernetes", "numpy"}.isdisjoint(imported)
    assert {"k8sfutures.worker.agent", "pika", "asyncio", "iniconfig"} <= set(flags)
    # By its hash, and unchecked (PEP 552): valid whatever becomes of the sources' times.
    assert {name: flag for name, flag in flags.items() if flag != 1} == {}


def test_nothing_of_the_build_is_left(container):
    assert container.run("ls", "-A", "/tmp") == ""


def test_only_what_has_changed_is_built_again(built, bare, tmp_path, monkeypatch):
    def layers_of(name):
        return config_of(name)["rootfs"]["diff_ids"]

    wanted = {"base": bare, "requirements": ["iniconfig==2.1.0", "sniffio"]}
    log = []
    same = build("same", log=log.append, **wanted)
    assert layers_of(same) == layers_of(built)
    assert not [line for line in log if "Collecting" in line or "Installing" in line]

    package = tmp_path / "k8sfutures"
    shutil.copytree(Path(image.__file__).parent, package)
    (package / "added.py").write_text("ADDED = True\n")
    dockerfile = image.shipped_file("Dockerfile")
    monkeypatch.setattr(image, "shipped_file", lambda _name: dockerfile)
    monkeypatch.setattr(image, "__file__", str(package / "image.py"))
    log = []
    edited = build("edited", log=log.append, **wanted)
    assert not [line for line in log if "Collecting" in line]
    layers = [layers_of(name) for name in (built, edited)]
    assert layers[0] != layers[1]
    # The wheel, and its installation.
    common = [a for a, b in zip(*layers, strict=True) if a == b]
    assert len(common) >= len(layers[0]) - 2
    running = Container(edited)
    try:
        assert running.python("import json, k8sfutures.added as a; print(json.dumps(a.ADDED))")
    finally:
        running.remove()


def test_a_base_with_another_python_is_refused(tool):
    with pytest.raises(ImageError) as caught:
        build("other", layers=False, base=OFFICIAL, python="3.99")
    assert str(caught.value).startswith(
        f"{PREFIX}-other:1 was not built: the base image {OFFICIAL} has Python {PYTHON}, and must "
        f"have Python 3.99, as was asked for (this client has {PYTHON})."
    )


def test_a_base_without_python_is_refused(tool):
    container = buildah("from", "--pull-never", OFFICIAL)
    delete = "rm /usr/local/bin/python* /usr/bin/python*"
    buildah("run", "--isolation", "chroot", container, "--", "sh", "-c", delete)
    buildah("commit", "--quiet", "--rm", container, f"{PREFIX}-none:1")
    with pytest.raises(ImageError, match=f"has no Python, and must have Python {PYTHON}, as this"):
        build("other", layers=False, base=f"{PREFIX}-none:1")


def test_a_base_of_ones_own(tool, built):
    """Only python3 on its PATH, another user, and an older installation of ours."""
    container = buildah("from", "--pull-never", built)
    change = (
        "rm -f /usr/local/bin/python; test ! -e /usr/bin/python;"
        "site=$(python3 -c 'import k8sfutures; print(*k8sfutures.__path__)');"
        "echo 'OLD = True' >>$site/errors.py"
    )
    run = ("run", "--isolation", "chroot", "--user", "0")
    buildah(*run, container, "--", "sh", "-ec", change)
    buildah("config", "--user", "1234", "--workingdir", "/usr", "--cmd", "sh", container)
    buildah("commit", "--quiet", "--rm", container, f"{PREFIX}-own:1")
    running = Container(build("upon-own", layers=False, base=f"{PREFIX}-own:1"))
    try:
        program = "import json, os, k8sfutures.errors as e;"
        program += "print(json.dumps([os.getuid(), os.getcwd(), hasattr(e, 'OLD')]))"
        assert running.python(program) == [65532, "/tmp", False]
    finally:
        running.remove()


def test_a_requirement_at_odds_with_the_client_is_refused(tool, bare):
    with pytest.raises(ImageError) as caught:
        build("odd", layers=False, base=bare, requirements=["cloudpickle<3"])
    assert f"cloudpickle=={version('cloudpickle')}" in str(caught.value)
