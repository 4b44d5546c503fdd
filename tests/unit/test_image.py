"""The pods' image: its name, the wheel that goes into it, and how the tools are called.

The tools here are small scripts that note how they were called; tests/kubernetes/test_image.py
builds a real one.
"""

import configparser
import hashlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from base64 import urlsafe_b64encode
from pathlib import Path

import pytest

from k8sfutures import __version__, cli, container_tools, image, image_name
from k8sfutures.config import Settings, load_settings
from k8sfutures.errors import ImageError, SettingValueError

ROOT = Path(__file__).parents[2]
TAG = f"{__version__}-py{sys.version_info.major}.{sys.version_info.minor}"
SECRET = "s3cr3t-passw0rd"


class TestTheName:
    def test_by_default_it_is_one_that_nobody_else_can_serve(self):
        assert image.default_image(Settings()) == f"localhost/k8sfutures-worker:{TAG}"

    def test_the_setting_comes_first(self):
        settings = Settings(image="ghcr.io/ada/w:1", registry_server="r.example")
        assert image.default_image(settings) == "ghcr.io/ada/w:1"

    @pytest.mark.parametrize(
        ("server", "user", "place"),
        [
            ("registry.example:5000", None, "registry.example:5000/k8sfutures"),
            ("registry.example", "ada", "registry.example/ada"),
            ("https://Registry.example/v2/", "Ada", "registry.example/ada"),
            ("registry.example", "robot$ci", "registry.example/k8sfutures"),
            (
                "europe-docker.pkg.dev/project/repo",
                "_json_key",
                "europe-docker.pkg.dev/project/repo",
            ),
            *(
                (hub, "ada", "docker.io/ada")
                for hub in (
                    *("docker.io", "index.docker.io", "https://index.docker.io/v1/"),
                    *("https://registry-1.docker.io", "https://index.docker.io/v1"),
                )
            ),
        ],
    )
    def test_in_a_registry(self, server, user, place):
        settings = Settings(registry_server=server, registry_user=user)
        assert image.default_image(settings) == f"{place}/k8sfutures-worker:{TAG}"

    @pytest.mark.parametrize("server", ["https://index.docker.io/v1/", "ghcr.io", "quay.io"])
    @pytest.mark.parametrize("user", [None, "ada@example.org"])
    def test_without_an_owner_a_public_one_would_be_a_strangers(self, server, user):
        with pytest.raises(SettingValueError, match="registry_user"):
            image.default_image(Settings(registry_server=server, registry_user=user))

    def test_for_another_python(self):
        assert image.default_image(Settings(), "3.14").endswith(f":{__version__}-py3.14")

    def test_a_version_that_cannot_be_a_tag(self, monkeypatch):
        monkeypatch.setattr(image_name, "__version__", "1.0.dev3+abc")
        assert ":1.0.dev3-abc-py" in image.default_image(Settings())


def test_it_is_imported_without_what_a_client_needs_besides():
    program = "import sys, k8sfutures.image; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True
    )
    assert {"pika", "kubernetes", "cloudpickle", "dill", "msgpack"}.isdisjoint(run.stdout.split())


def test_a_pod_needs_every_dependency_but_the_cluster_client():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    names = {line.split(">")[0] for line in setup["options"]["install_requires"].split()}
    assert names - {"kubernetes", "pyyaml", "urllib3"} == set(image.DEPENDENCIES)
    # For those who build by hand.
    assert " ".join(image.DEPENDENCIES) in (ROOT / "worker" / "Dockerfile").read_text()


class TestTheWheel:
    @pytest.fixture
    def wheel(self, tmp_path):
        return image.write_wheel(tmp_path)

    def test_it_has_the_code_that_runs(self, wheel):
        folder = Path(image.__file__).parent
        with zipfile.ZipFile(wheel) as archive:
            packed = {name for name in archive.namelist() if ".dist-info/" not in name}
            assert packed >= {"k8sfutures/py.typed", "k8sfutures/worker/__main__.py"}
            assert packed >= {
                path.relative_to(folder.parent).as_posix() for path in folder.rglob("*.py")
            }
            assert not [name for name in packed if "__pycache__" in name or name.endswith(".pyc")]
            for name in packed:
                assert archive.read(name) == (folder.parent / name).read_bytes()

    def test_its_record_is_right(self, wheel):
        with zipfile.ZipFile(wheel) as archive:
            (record,) = [name for name in archive.namelist() if name.endswith("/RECORD")]
            lines = archive.read(record).decode().splitlines()
            assert len(lines) == len(archive.namelist())
            for line in lines:
                name, digest, size = line.split(",")
                if name != record:
                    data = archive.read(name)
                    right = urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
                    assert (digest, int(size)) == (f"sha256={right}", len(data))

    def test_the_same_code_makes_the_same_bytes(self, wheel, tmp_path):
        (tmp_path / "again").mkdir()
        again = image.write_wheel(tmp_path / "again")
        assert again.read_bytes() == wheel.read_bytes()
        assert again.name == wheel.name == f"k8sfutures-{__version__}-py3-none-any.whl"

    def test_pip_installs_it(self, wheel, tmp_path):
        target = tmp_path / "site"
        pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--no-compile"]
        subprocess.run([*pip, "--quiet", "--target", target, wheel], check=True)
        (installed,) = importlib.metadata.distributions(name="k8sfutures", path=[str(target)])
        assert installed.version == __version__
        ours = [file for file in installed.files if file.parts[0].startswith("k8sfutures")]
        assert all(file.locate().is_file() for file in ours)

    def test_its_version_is_the_codes_and_not_that_of_an_old_installation(
        self, tmp_path, monkeypatch
    ):
        monkeypatch.setattr(image, "__version__", "9.8.7")
        with zipfile.ZipFile(image.write_wheel(tmp_path)) as archive:
            metadata = archive.read("k8sfutures-9.8.7.dist-info/METADATA").decode()
        assert "\nVersion: 9.8.7\n" in metadata
        assert f"\nVersion: {__version__}\n" not in metadata

    def test_code_that_is_not_installed_makes_one_too(self, tmp_path, monkeypatch):
        def missing(name):
            raise importlib.metadata.PackageNotFoundError(name)

        monkeypatch.setattr(importlib.metadata, "distribution", missing)
        with zipfile.ZipFile(image.write_wheel(tmp_path)) as archive:
            metadata = archive.read(f"k8sfutures-{__version__}.dist-info/METADATA").decode()
        assert metadata.splitlines()[1:] == ["Name: k8sfutures", f"Version: {__version__}"]

    def test_what_editors_and_python_leave_behind_stays_out(self, tmp_path, monkeypatch):
        package = tmp_path / "k8sfutures"
        for name in ("a.py", ".a.py.swp", "a.py~", "#a.py#", "__pycache__/a.pyc", ".git/b.py"):
            (package / name).parent.mkdir(parents=True, exist_ok=True)
            (package / name).touch()
        monkeypatch.setattr(image, "__file__", str(package / "image.py"))
        with zipfile.ZipFile(image.write_wheel(tmp_path)) as archive:
            packed = [name for name in archive.namelist() if ".dist-info/" not in name]
        assert packed == ["k8sfutures/a.py"]


class TestShippedFiles:
    def test_in_a_clone_they_are_the_clones(self):
        assert image.shipped_file("Dockerfile") == ROOT / "worker" / "Dockerfile"

    def test_a_missing_one(self):
        with pytest.raises(ImageError, match=r"nothing\.yaml is not there.*Install"):
            image.shipped_file("nothing.yaml")

    @pytest.mark.slow
    def test_an_installed_wheel_has_them(self, tmp_path):
        source = tmp_path / "source"  # So that no build folder appears in the clone.
        source.mkdir()
        for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, source)
        for name in ("src", "worker"):
            unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(ROOT / name, source / name, ignore=unwanted)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
        subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", tmp_path, source], check=True)
        (wheel,) = tmp_path.glob("*.whl")

        venv.create(tmp_path / "venv")
        python = tmp_path / "venv" / "bin" / "python"
        install = ["install", "--no-deps", "--no-index", wheel]
        subprocess.run([*pip, "--python", python, *install], check=True)
        program = (
            "import json, pathlib, sys; from k8sfutures import image;"
            "files = [image.shipped_file(name) for name in ('Dockerfile', 'role.yaml')];"
            "files += [image.write_wheel(pathlib.Path(sys.argv[1]))];"
            "print(json.dumps([*map(str, files)]))"
        )
        (tmp_path / "again").mkdir()
        run = subprocess.run(
            [python, "-I", "-c", program, tmp_path / "again"],
            capture_output=True,
            text=True,
            check=True,
        )
        *shipped, again = map(Path, json.loads(run.stdout))
        for path in shipped:
            assert path == tmp_path.resolve() / "venv" / "share" / "k8sfutures" / path.name
            assert path.read_bytes() == (ROOT / "worker" / path.name).read_bytes()
        with zipfile.ZipFile(wheel) as built, zipfile.ZipFile(again) as assembled:
            ours = [name for name in assembled.namelist() if ".dist-info/" not in name]
            assert ours == sorted(n for n in built.namelist() if n.startswith("k8sfutures/"))
            assert [assembled.read(name) for name in ours] == [built.read(name) for name in ours]


class FakeTools:
    """Scripts on an otherwise empty PATH; each notes its arguments, and what else a test asks."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        (folder / "bin").mkdir()
        monkeypatch.setenv("PATH", str(folder / "bin"))
        self.lines: list[str] = []

    def add(self, name: str, **actions: str) -> None:
        """Adds a tool with shell code for some of its actions; the others do nothing, well."""
        cases = "\n".join(f"{action}) {code} ;;" for action, code in actions.items())
        script = self.folder / "bin" / name
        script.write_text(
            f'#!/bin/sh\nfolder="{self.folder}"\n'
            'for word in "$0" "$@"; do printf "%s\\037" "$word"; done >>"$folder/calls"\n'
            'printf "\\n" >>"$folder/calls"\n'
            f'case "$1" in\n{cases}\nesac\n'
        )
        script.chmod(0o755)

    @property
    def calls(self) -> list[list[str]]:
        """Tool and arguments of each call."""
        lines = (self.folder / "calls").read_text().splitlines()
        called = [line.removesuffix("\x1f").split("\x1f") for line in lines]
        return [[Path(program).name, *arguments] for program, *arguments in called]

    def log(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture
def tools(tmp_path, monkeypatch):
    return FakeTools(tmp_path, monkeypatch)


NO_ENGINE = "echo 'Client: 28'; echo 'Cannot connect to the Docker daemon' >&2; exit 1"


class TestTheTool:
    def test_docker_comes_first(self, tools):
        for name in ("buildah", "podman", "docker"):
            tools.add(name)
        assert container_tools.find_tool(None, tools.log) == "docker"
        assert tools.calls == [["docker", "version", "--format", "{{.Server.Version}}"]]
        assert tools.lines == []

    def test_a_client_without_its_engine_is_passed_over_and_named(self, tools):
        tools.add("docker", version=NO_ENGINE)
        tools.add("buildah")
        assert container_tools.find_tool(None, tools.log) == "buildah"
        assert tools.lines == ["docker does not work here: Cannot connect to the Docker daemon"]

    def test_a_forced_one_is_the_only_one_tried(self, tools):
        tools.add("docker", version=NO_ENGINE)
        tools.add("buildah")
        with pytest.raises(ImageError, match="docker: Cannot connect to the Docker daemon"):
            container_tools.find_tool("docker", tools.log)
        assert container_tools.find_tool("buildah", tools.log) == "buildah"

    def test_none(self, tools):
        tools.add("docker", version=NO_ENGINE)
        tools.add("podman", info="exit 3")
        with pytest.raises(ImageError) as caught:
            container_tools.find_tool(None, tools.log)
        for part in (
            *("docker: Cannot connect", "podman: it fails", "buildah: it is not installed"),
            "apt-get install buildah",
        ):
            assert part in str(caught.value)

    def test_one_that_hangs(self, tools, monkeypatch):
        monkeypatch.setattr(container_tools, "_PROBE_SECONDS", 0.2)
        tools.add("docker", version="exec /bin/sleep 60")
        with pytest.raises(ImageError, match="docker: it did not answer within"):
            container_tools.find_tool("docker", tools.log)

    def test_an_unknown_one(self, tools):
        with pytest.raises(ImageError, match="'kaniko' must be one of docker, podman, buildah"):
            container_tools.find_tool("kaniko", tools.log)


# A build whose context is kept.
KEEP = 'for last; do :; done; /bin/cp -r "$last" "$folder/context"; echo STEP 1'


class TestBuild:
    def build(self, tools, settings=None, **kwargs):
        return image.build_image(settings or Settings(), log=tools.log, **kwargs)

    def test_what_the_tool_is_given(self, tools):
        tools.add("docker", build=KEEP)
        name = self.build(tools, arguments=["--network", "host"])
        assert name == f"localhost/k8sfutures-worker:{TAG}"
        *command, context = tools.calls[-1]
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        assert command == [
            *("docker", "build", "--tag", name, "--file", f"{context}/worker/Dockerfile"),
            *("--build-arg", f"PYTHON={python}"),
            *("--build-arg", f"BASE=docker.io/library/python:{python}-slim-bookworm"),
            *("--network", "host"),
        ]
        assert not Path(context).exists()
        assert tools.lines[-1] == "STEP 1"

    def test_the_context(self, tools, tmp_path):
        tools.add("buildah", build=KEEP)
        (tmp_path / "mine.txt").write_text("scipy\n# and\npandas")
        self.build(tools, requirements=["six==1.17"], requirements_files=[tmp_path / "mine.txt"])
        context = tmp_path / "context"
        found = {p.relative_to(context).as_posix() for p in context.rglob("*") if p.is_file()}
        assert found == {
            f"dist/k8sfutures-{__version__}-py3-none-any.whl",
            *("worker/Dockerfile", "worker/constraints.txt", "worker/requirements.txt"),
        }
        pins = (context / "worker/constraints.txt").read_text().split()
        assert pins == [f"{n}=={importlib.metadata.version(n)}" for n in image.DEPENDENCIES]
        own = (context / "worker/requirements.txt").read_text()
        assert own == "six==1.17\nscipy\n# and\npandas\n"
        assert (context / "worker/Dockerfile").read_bytes() == (
            ROOT / "worker/Dockerfile"
        ).read_bytes()

    def test_buildah_is_told_to_keep_layers_and_no_containers(self, tools):
        tools.add("buildah")
        self.build(tools)
        assert {"--layers", "--force-rm"} <= set(tools.calls[-1])

    def test_name_base_and_python_can_be_given(self, tools):
        tools.add("docker")
        name = self.build(tools, name="r.example/w:2", base="mine:1", python="3.12")
        assert name == "r.example/w:2"
        assert {"r.example/w:2", "BASE=mine:1", "PYTHON=3.12"} <= set(tools.calls[-1])

    @pytest.mark.parametrize("python", ["3.10", "4.0", "3", "3.12.1", "three"])
    def test_a_python_that_cannot_be(self, tools, python):
        with pytest.raises(ImageError, match=r"minor version from 3\.11 on"):
            self.build(tools, python=python)

    def test_requirements_that_cannot_be_read(self, tools, tmp_path):
        with pytest.raises(ImageError, match=r"none\.txt cannot be read"):
            self.build(tools, requirements_files=[tmp_path / "none.txt"])

    def test_a_dependency_that_is_not_installed(self, tools, monkeypatch):
        tools.add("docker")
        monkeypatch.setattr(image, "DEPENDENCIES", ("cloudpickle", "no-such-thing"))
        with pytest.raises(ImageError, match="no-such-thing is not installed here"):
            self.build(tools)

    def test_a_failure_shows_the_last_lines_and_what_to_try(self, tools):
        tools.add("docker", build="for i in 1 2 3; do echo line $i; done; echo broken >&2; exit 7")
        with pytest.raises(ImageError) as caught:
            self.build(tools)
        text = str(caught.value)
        assert "docker build ended with exit code 7" in text
        assert "line 2\nline 3\nbroken\n" in text
        assert "--network host" in text

    @pytest.mark.parametrize("has", ["Python 3.10", "no Python"])
    def test_a_base_with_another_python(self, tools, has):
        said = f"#8 0.1 k8sfutures: this base image has {has}, not Python 3.11"
        tools.add("docker", build=f"echo '{said}'; echo more; exit 1")
        with pytest.raises(ImageError) as caught:
            self.build(tools, base="mine:1")
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        assert f"base image mine:1 has {has}, and must have Python {python}, as this client" in str(
            caught.value
        )
        with pytest.raises(
            ImageError, match=rf"3\.19, as was asked for \(this client has {python}"
        ):
            self.build(tools, base="mine:1", python="3.19")

    def test_our_settings_are_not_the_tools_business(self, tools, monkeypatch):
        monkeypatch.setenv("K8SFUTURES_REGISTRY_PASSWORD", SECRET)
        monkeypatch.setenv("SOMETHING_ELSE", "kept")
        tools.add("docker", build="/usr/bin/env")
        self.build(tools, load_settings({}))
        assert "SOMETHING_ELSE=kept" in tools.lines
        assert SECRET not in "\n".join(tools.lines)


LOGIN = '/bin/cat >"$folder/stdin"; echo "$DOCKER_CONFIG" >"$folder/config"'


class TestPush:
    SETTINGS = Settings(
        registry_server="https://index.docker.io/v1/",
        registry_user="ada",
        registry_password=SECRET,
    )

    def push(self, tools, settings=SETTINGS, **kwargs):
        try:
            return image.push_image(settings, log=tools.log, **kwargs)
        finally:
            everything = f"{tools.lines} {(tools.folder / 'calls').read_text()}"
            assert SECRET not in everything

    def test_docker_logs_in_for_this_push_alone(self, tools, monkeypatch):
        theirs = tools.folder / "docker"
        (theirs / "contexts").mkdir(parents=True)
        config = {"currentContext": "colima", "auths": {"r": {}}, "credsStore": "desktop"}
        (theirs / "config.json").write_text(json.dumps(config))
        monkeypatch.setenv("DOCKER_CONFIG", str(theirs))
        keep = '/bin/cp -r "$DOCKER_CONFIG" "$folder/kept"; '
        tools.add("docker", login=keep + LOGIN, push='echo "$DOCKER_CONFIG" >"$folder/pushed"')
        name = self.push(tools)
        assert name == f"docker.io/ada/k8sfutures-worker:{TAG}"
        assert tools.calls[1:] == [
            ["docker", "login", "--username", "ada", "--password-stdin", "docker.io"],
            ["docker", "push", name],
        ]
        assert (tools.folder / "stdin").read_text() == f"{SECRET}\n"
        used = (tools.folder / "config").read_text()
        assert used == (tools.folder / "pushed").read_text()
        assert not Path(used.strip()).exists()
        # Which engine docker talks to stays the same.
        kept = tools.folder / "kept"
        assert json.loads((kept / "config.json").read_text()) == {"currentContext": "colima"}
        assert (kept / "contexts").resolve() == theirs / "contexts"

    @pytest.mark.parametrize("tool", ["podman", "buildah"])
    def test_the_others_use_a_file_of_its_own(self, tools, tool):
        tools.add(tool, login=LOGIN)
        settings = Settings(
            registry_server="r.example:5000", registry_user="ada", registry_password=SECRET
        )
        name = self.push(tools, settings, arguments=["--tls-verify=false", "--quiet"])
        login, push = tools.calls[1:]
        authfile = login[login.index("--authfile") + 1]
        assert login == [
            *(tool, "login", "--username", "ada", "--password-stdin"),
            *("--authfile", authfile, "--tls-verify=false", "r.example:5000"),
        ]
        assert push == [tool, "push", "--authfile", authfile, "--tls-verify=false", "--quiet", name]
        assert (tools.folder / "stdin").read_text() == f"{SECRET}\n"
        assert not Path(authfile).parent.exists()

    @pytest.mark.parametrize("missing", ["registry_user", "registry_password"])
    def test_without_credentials_the_tools_own_count(self, tools, missing):
        tools.add("docker")
        given = {"registry_user": "ada", "registry_password": SECRET, missing: None}
        self.push(tools, Settings(registry_server="r.example", **given))
        assert [call[1] for call in tools.calls] == ["version", "push"]
        assert any("no login for r.example" in line for line in tools.lines)

    def test_another_registry_never_gets_the_password(self, tools):
        tools.add("docker")
        self.push(tools, name="elsewhere.example/w:1")
        assert [call[1] for call in tools.calls] == ["version", "push"]

    def test_a_refused_login(self, tools):
        tools.add("docker", login='read given; echo "denied: $given is wrong" >&2; exit 1')
        with pytest.raises(ImageError) as caught:
            self.push(tools)
        text = str(caught.value)
        assert "could not log in at docker.io as ada" in text
        assert "denied: *** is wrong" in text
        assert "registry_password" in text
        assert SECRET not in text

    def test_a_registry_that_does_not_answer(self, tools, monkeypatch):
        monkeypatch.setattr(container_tools, "_LOGIN_SECONDS", 0.2)
        tools.add("docker", login="exec /bin/sleep 60")
        with pytest.raises(ImageError, match=r"docker\.io did not answer a login") as caught:
            self.push(tools)
        assert caught.value.__cause__ is None

    def test_a_refused_push(self, tools):
        tools.add("docker", push="echo 'denied: requested access' >&2; exit 1")
        with pytest.raises(ImageError, match=r"(?s)exit code 1.*denied: requested.*image build"):
            self.push(tools)

    @pytest.mark.parametrize("name", [None, "worker:1", "ada/worker:1"])
    def test_a_name_without_a_registry(self, tools, name):
        (tools.folder / "calls").touch()
        with pytest.raises(ImageError, match="registry_server"):
            self.push(tools, Settings(), name=name)

    def test_docker_settings_that_cannot_be_read(self, tools, monkeypatch):
        (tools.folder / "config.json").write_text("{not JSON")
        monkeypatch.setenv("DOCKER_CONFIG", str(tools.folder))
        tools.add("docker")
        with pytest.raises(ImageError, match=r"config\.json cannot be read"):
            self.push(tools)


class TestTheCommandLine:
    @pytest.fixture(autouse=True)
    def nothing_set(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
        for name in [name for name in os.environ if name.startswith("K8SFUTURES_")]:
            monkeypatch.delenv(name)

    def test_build(self, tools, capfd, tmp_path):
        tools.add("docker", version=NO_ENGINE)
        tools.add("buildah", build=KEEP)
        (tmp_path / "more.txt").write_text("scipy\n")
        status = cli.main([
            *("image", "build", "--requirement", "six==1.17", "--requirement", "pandas"),
            *("--requirements-file", "more.txt", "--python", "3.12", "--base", "mine:1"),
            *("--", "--network", "host", "--isolation", "chroot"),
        ])  # fmt: skip
        out, err = capfd.readouterr()
        assert status == 0
        assert out == f"localhost/k8sfutures-worker:{__version__}-py3.12\n"
        assert "docker does not work here: Cannot connect to the Docker daemon\n" in err
        assert "STEP 1\n" in err
        assert tools.calls[-1][-5:-1] == ["--network", "host", "--isolation", "chroot"]
        own = (tmp_path / "context/worker/requirements.txt").read_text()
        assert own == "six==1.17\npandas\nscipy\n"

    def test_build_with_nothing_else(self, tools, capfd):
        tools.add("docker")
        assert cli.main(["image", "build", "--", "--pull"]) == 0
        assert tools.calls[-1][-2] == "--pull"
        assert capfd.readouterr().out == f"localhost/k8sfutures-worker:{TAG}\n"

    def test_push(self, tools, capfd, monkeypatch):
        tools.add("podman", login=LOGIN)
        for name, value in (("SERVER", "r.example"), ("USER", "ada"), ("PASSWORD", SECRET)):
            monkeypatch.setenv(f"K8SFUTURES_REGISTRY_{name}", value)
        assert cli.main(["image", "push", "--tool", "podman", "--", "--quiet"]) == 0
        out, err = capfd.readouterr()
        assert out == f"r.example/ada/k8sfutures-worker:{TAG}\n"
        assert "logged in at r.example as ada\n" in err
        assert SECRET not in out + err
        assert tools.calls[-1][-2:] == ["--quiet", out.strip()]

    def test_a_failure_is_one_message(self, tools, capfd):
        assert cli.main(["image", "build"]) == 1
        out, err = capfd.readouterr()
        assert out == ""
        assert err.startswith("k8sfutures: no tool to build or push an image with works here")

    def test_a_name_in_the_wrong_place(self, tools, capfd):
        assert cli.main(["image", "build", "worker:1"]) == 1
        assert "--name" in capfd.readouterr().err
