"""Settings: where they come from, what each may be, and what is said of one that is wrong."""

import contextlib
import dataclasses
import datetime as dt
import json
import math
import pickle
import typing
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k8sfutures import K8sRabbitExecutor, config
from k8sfutures.address import parse_amqp_url
from k8sfutures.config import (
    Settings,
    load_settings,
    pool_name,
    resolve_pods,
)
from k8sfutures.errors import SettingTypeError, SettingValueError
from k8sfutures.keywords import Keywords

NAMES = [item.name for item in dataclasses.fields(Settings)]


def test_type_checkers_know_the_keywords():
    hints = typing.get_type_hints(K8sRabbitExecutor.__init__)
    assert typing.get_args(hints["settings"]) == (Keywords,)
    assert list(typing.get_type_hints(Keywords)) == NAMES


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project" / "sub" / "folder"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def load(home: Path, project: Path):
    def load(environ=None, **keywords):
        return load_settings(keywords, environ=environ or {}, start=project, home=home)

    return load


def write_users_file(home: Path, text: str) -> Path:
    path = home / ".config" / "k8sfutures" / "k8sfutures.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


class TestOrigins:
    def test_every_field_is_a_setting_and_every_setting_a_field(self) -> None:
        assert list(config._SETTINGS) == NAMES

    def test_nothing_given(self, load) -> None:
        assert load() == Settings()

    def test_keyword_before_environment_before_project_before_user(
        self, load, home: Path, project: Path
    ) -> None:
        write_users_file(home, "retries = 1\nworker_processes = 1\nwarm_for = 1\ncpu = 1")
        (project.parent / "k8sfutures.toml").write_text(
            "retries = 2\nworker_processes = 2\nwarm_for = 2"
        )
        environ = {"K8SFUTURES_RETRIES": "4", "K8SFUTURES_WORKER_PROCESSES": "4"}
        settings = load(environ, retries=5)
        assert (settings.retries, settings.worker_processes) == (5, 4)
        assert (settings.warm_for, settings.cpu) == (2.0, 1)

    def test_only_the_nearest_file_upwards_counts(self, load, project: Path) -> None:
        (project / "k8sfutures.toml").write_text("retries = 1")
        (project.parent / "k8sfutures.toml").write_text("retries = 2\nwarm_for = 2")
        assert load() == Settings(retries=1)

    def test_xdg_config_home(self, load, tmp_path: Path, home: Path) -> None:
        write_users_file(home, "retries = 1")
        (tmp_path / "xdg" / "k8sfutures").mkdir(parents=True)
        (tmp_path / "xdg" / "k8sfutures" / "k8sfutures.toml").write_text("retries = 2")
        assert load({"XDG_CONFIG_HOME": str(tmp_path / "xdg")}).retries == 2
        assert load({"XDG_CONFIG_HOME": "relative"}).retries == 1

    def test_none_and_empty_variables_count_as_not_given(self, load) -> None:
        environ = {"K8SFUTURES_RETRIES": "7", "K8SFUTURES_POOL": ""}
        assert load(environ, retries=None, pool=None) == Settings(retries=7)

    def test_defaults_are_this_process(
        self, monkeypatch: pytest.MonkeyPatch, project: Path
    ) -> None:
        monkeypatch.chdir(project)
        monkeypatch.setenv("K8SFUTURES_POOL", "mine")
        (project / "k8sfutures.toml").write_text("retries = 9")
        settings = load_settings({})
        assert (settings.pool, settings.retries) == ("mine", 9)


TOLERATIONS = [{"key": "gpu", "operator": "Exists"}]
TEMPLATE = {"spec": {"hostNetwork": True, "priority": 3, "x": [None, 1.5, "y"]}}
GOOD = {
    "amqp_url": ["amqp://h", "amqps://u:p%2F@[::1]:1/v?heartbeat=5"],
    "pod_amqp_url": ["amqp://h"],
    "tls_ca": ["/etc/ca.pem", "-----BEGIN CERTIFICATE-----\nx"],
    "tls_certificate": ["/etc/cert.pem"],
    "tls_key": ["/etc/key.pem", "-----BEGIN PRIVATE KEY-----\nx"],
    "pods": ["kubernetes", "local"],
    "pool": ["a", "A-b_c.9", "x" * 100],
    "worker_processes": [1, 512],
    "image": ["registry.example/k8sfutures:1"],
    "image_pull_policy": ["Always", "IfNotPresent", "Never"],
    "registry_server": ["registry.example"],
    "registry_user": ["ada"],
    "registry_password": [" p w "],
    "kubeconfig": ["/etc/kubeconfig"],
    "context": ["kind-kind"],
    "namespace": ["a", "team-1"],
    "cpu": [2, 0.5, "500m", "4", "1.5"],
    "memory": [1, "512Mi", "16G", "1e9", "0.5Gi"],
    "node_selector": [{}, {"disktype": "ssd"}],
    "tolerations": [[], TOLERATIONS],
    "pod_template": [{}, TEMPLATE],
    "warm_for": [0.0, 3.5],
    "retries": [0, 7],
    "startup_timeout": [0.1, 600.0],
    "secret": ["s3cret"],
    "flush_window": [0.0, 0.01],
    "output": ["marked", "plain", "off"],
    "ship": [[], ["pytest_timeout", str(Path(__file__).parent)]],
    "environment": [{}, {"MODE": "fast", "EMPTY": ""}],
}
WRONG_VALUES = {
    "amqp_url": ["", "h:5672", "http://h", "amqp://", "amqp://h:0", "amqp://h:x", "amqp://h:70000"],
    "pod_amqp_url": ["amqp://h/a/b", "amqp://h#f", "amqp://h o", "amqp://[::1", "amqp://h\n"],
    "tls_ca": ["", " "],
    "tls_certificate": ["", "\n"],
    "tls_key": ["", " "],
    "pods": ["", "Local", "k8s"],
    "pool": ["", "a b", "a/b", "x" * 101, "ü", "a\n"],
    "worker_processes": [0, -1],
    "image": ["", " x", "x\n", "a\x00b"],
    "image_pull_policy": ["always"],
    "registry_server": [""],
    "registry_user": [""],
    "registry_password": [""],
    "kubeconfig": ["", " "],
    "context": [""],
    "namespace": ["", "A", "-a", "a" * 64, "a.b", "a\n"],
    "cpu": [0, -1, math.nan, math.inf, "", "0", "0m", "-1", "1 Gi", "x"],
    "memory": [0, -1, "", "0Gi", "16GB", "lots"],
    "node_selector": [{"a": 1}, {1: "a"}],
    "tolerations": [["x"], [1], [{"a": {1}}]],
    "pod_template": [{"a": math.nan}, {"a": b""}, {"a": dt.date(2020, 1, 1)}],
    "warm_for": [-1, -0.1, math.nan, math.inf, 1e12],
    "retries": [-1],
    "startup_timeout": [0, -1, math.nan],
    "secret": [""],
    "flush_window": [-0.001, math.nan, -math.inf],
    "output": ["", "Marked", "none"],
    "ship": [["no_such_module"], [""], [1], ["./missing"], ["json"], ["msgpack"]],
    "environment": [
        *({"A": 1}, {1: "x"}, {"": "x"}, {"A=B": "x"}, {"A": "\0"}, {"A": "x" * 131_072}),
        {f"A{number}": "x" * 100_000 for number in range(11)},
    ],
}
WRONG_TYPES = {
    **{name: [1, b"x", ["x"]] for name in ["amqp_url", "pod_amqp_url", "pods", "pool", "image"]},
    "output": [1, False, ["off"]],
    **{name: [True, 1, b"x"] for name in ["image_pull_policy", "registry_server", "registry_user"]},
    **{
        name: [1, b"x", object()]
        for name in ["registry_password", "secret", "context", "namespace"]
    },
    **{name: [1, b"x", object()] for name in ["tls_ca", "tls_certificate", "tls_key"]},
    "kubeconfig": [1, b"x"],
    "worker_processes": [True, 1.0, "1"],
    "cpu": [True, b"1", [1]],
    "memory": [True, 1.5, b"1"],
    "node_selector": ["a=b", [("a", "b")], True],
    "tolerations": ["x", {"key": "gpu"}, 1],
    "pod_template": ["x", [], 1],
    "retries": [True, False, 3.0, "3"],
    **{name: [True, "5", [1]] for name in ["warm_for", "startup_timeout", "flush_window"]},
    "ship": ["helpers", {"a": "b"}, True],
    "environment": ["A=B", [("A", "B")], True],
}


def cases(table):
    return [
        pytest.param(name, value, id=f"{name}-{value!r}"[:40])
        for name, values in table.items()
        for value in values
    ]


class TestValues:
    def test_the_tables_cover_every_setting(self) -> None:
        assert set(GOOD) == set(WRONG_VALUES) == set(WRONG_TYPES) == set(NAMES)

    @pytest.mark.parametrize(("name", "value"), cases(GOOD))
    def test_good_keyword(self, load, name: str, value: object) -> None:
        assert getattr(load(**{name: value}), name) == value

    @pytest.mark.parametrize(("name", "value"), cases(GOOD))
    def test_good_variable(self, load, name: str, value: object) -> None:
        text = value if isinstance(value, str) else json.dumps(value)
        kept = getattr(load({f"K8SFUTURES_{name.upper()}": text}), name)
        # A quantity stays the text that it is.
        assert kept == value or (name in {"cpu", "memory"} and kept == text)

    @pytest.mark.parametrize(
        ("name", "value"),
        [case for case in cases(GOOD) if not isinstance(case.values[1], dict | list)],
    )
    def test_good_line_of_a_file(self, load, project: Path, name: str, value: object) -> None:
        (project / "k8sfutures.toml").write_text(f"{name} = {json.dumps(value)}")
        assert getattr(load(), name) == value

    def test_tables_of_a_file(self, load, project: Path) -> None:
        (project / "k8sfutures.toml").write_text(
            '[[tolerations]]\nkey = "gpu"\noperator = "Exists"\n[node_selector]\ndisktype = "ssd"'
        )
        settings = load()
        assert settings.tolerations == TOLERATIONS
        assert settings.node_selector == {"disktype": "ssd"}

    @pytest.mark.parametrize(("name", "value"), cases(WRONG_VALUES))
    def test_wrong_value(self, load, name: str, value: object) -> None:
        with pytest.raises(SettingValueError, match=rf"{name}=.*\(keyword argument\): {name} must"):
            load(**{name: value})

    @pytest.mark.parametrize(("name", "value"), cases(WRONG_TYPES))
    def test_wrong_type(self, load, name: str, value: object) -> None:
        with pytest.raises(SettingTypeError, match=rf"{name}=.*\(keyword argument\): {name} must"):
            load(**{name: value})

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("retries", "many"),
            ("retries", "1.5"),
            ("retries", "-1"),
            ("warm_for", "nan"),
            ("warm_for", "soon"),
            ("flush_window", "inf"),
            ("pods", "both"),
            ("node_selector", "disktype=ssd"),
            ("node_selector", "[]"),
            ("tolerations", "{}"),
            ("pod_template", "NaN"),
        ],
    )
    def test_wrong_variable(self, load, name: str, text: str) -> None:
        variable = f"K8SFUTURES_{name.upper()}"
        with pytest.raises(SettingValueError) as caught:
            load({variable: text})
        message = str(caught.value)
        assert message.startswith(f"{name}={text!r} (environment variable {variable}): {name} must")

    def test_wrong_line_of_a_file(self, load, project: Path) -> None:
        path = project / "k8sfutures.toml"
        path.write_text("retries = -3")
        with pytest.raises(SettingValueError) as caught:
            load()
        assert (
            str(caught.value) == f"retries=-3 ({path}): retries must be a whole number, 0 or more"
        )

    def test_wrong_type_in_a_file(self, load, home: Path) -> None:
        path = write_users_file(home, 'warm_for = "long"')
        with pytest.raises(SettingTypeError, match="seconds") as caught:
            load()
        assert f"({path})" in str(caught.value)

    def test_errors_are_the_standard_ones_too(self, load) -> None:
        with pytest.raises(ValueError, match="retries"):
            load(retries=-1)
        with pytest.raises(TypeError, match="retries"):
            load(retries="3")

    def test_what_the_caller_changes_later_changes_nothing(self, load) -> None:
        template = {"spec": {"a": [1]}}
        settings = load(pod_template=template)
        template["spec"]["a"].append(2)
        assert settings.pod_template == {"spec": {"a": [1]}}

    def test_what_is_shipped_can_be_modules_and_paths(self, load, project: Path) -> None:
        (project / "data.csv").touch()
        settings = load(ship=[pytest, "pytest_timeout", project / "data.csv"])
        assert settings.ship == ["pytest", "pytest_timeout", str(project / "data.csv")]

    def test_kubeconfig_can_be_a_path_and_begin_with_a_tilde(
        self, load, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HOME", "/home/ada")
        assert load(kubeconfig=Path("~/k")).kubeconfig == "/home/ada/k"

    @given(st.integers(min_value=0, max_value=10**6))
    def test_integers_survive_the_environment(self, number: int) -> None:
        environ = {"K8SFUTURES_RETRIES": str(number)}
        loaded = load_settings({}, environ=environ, start=Path("/"), home=Path("/none"))
        assert loaded.retries == number

    @given(st.floats())
    def test_durations_are_finite_and_not_negative(self, number: float) -> None:
        def load():
            return load_settings({"warm_for": number}, environ={}, start=Path("/"), home=Path("/-"))

        if 0 <= number <= 366 * 24 * 3600:
            assert load().warm_for == number
        else:
            with pytest.raises(SettingValueError):
                load()


class TestAddresses:
    @pytest.mark.parametrize("url", ["localhost:5672", "broker.example:5672/prod", "10.0.0.1:5671"])
    def test_a_missing_scheme_is_named(self, load, url: str) -> None:
        with pytest.raises(SettingValueError) as caught:
            load(amqp_url=url)
        assert str(caught.value).startswith(f"amqp_url={url!r} (keyword argument): ")
        assert f"this AMQP URL has no scheme: write amqp://{url}, or" in str(caught.value)

    @pytest.mark.parametrize(
        "url", ["me:hunter2@localhost:5672", "localhost:hunter2", "me:hunter2"]
    )
    def test_what_may_be_a_password_is_not_shown(self, load, url: str) -> None:
        with pytest.raises(SettingValueError) as caught:
            load(amqp_url=url)
        assert "hunter2" not in str(caught.value)


class TestNames:
    def test_unknown_keyword(self, load) -> None:
        with pytest.raises(
            SettingTypeError, match=r"unexpected keyword argument 'retires'.*'retries'"
        ):
            load(retires=3)

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("max_worker", "Did you mean 'max_workers'?"),
            ("workers", "Did you mean 'max_workers'?"),
            ("initialiser", "Did you mean 'initializer'?"),
            ("init_args", "Did you mean 'initargs'?"),
            ("mpcontext", "Did you mean 'mp_context'?"),
            ("max_task_per_child", "Did you mean 'max_tasks_per_child'?"),
            (
                "timeout",
                "ex.options(timeout=...); how long calls wait for the first pod is startup",
            ),
            ("retry_on", "ex.options(retry_on=...)"),
            ("chunksize", "It is an argument of map."),
        ],
    )
    def test_what_the_executor_takes_beside_settings_is_known(self, name: str, words: str) -> None:
        with pytest.raises(SettingTypeError) as caught:
            K8sRabbitExecutor(**{name: 1})
        assert f"unexpected keyword argument {name!r}." in str(caught.value)
        assert words in str(caught.value)

    def test_an_argument_of_the_executor_is_no_setting_in_a_file(self, load, project: Path) -> None:
        (project / "k8sfutures.toml").write_text("max_workers = 3")
        with pytest.raises(SettingValueError, match="is an argument of K8sRabbitExecutor, and no"):
            load()

    def test_unknown_keyword_that_is_like_nothing(self, load) -> None:
        with pytest.raises(SettingTypeError, match="There are: amqp_url, "):
            load(zzzzzz=None)

    def test_unknown_name_in_a_file(self, load, project: Path) -> None:
        path = project / "k8sfutures.toml"
        path.write_text("worker_process = 3")
        with pytest.raises(SettingValueError) as caught:
            load()
        assert str(path) in str(caught.value)
        assert "Did you mean 'worker_processes'?" in str(caught.value)

    @pytest.mark.parametrize("text", [b"retries = 1\nretries =", b"x", b"\xff"])
    def test_not_toml(self, load, project: Path, text: bytes) -> None:
        path = project / "k8sfutures.toml"
        path.write_bytes(text)
        with pytest.raises(SettingValueError) as caught:
            load()
        assert f"{path} is not valid TOML" in str(caught.value)

    def test_a_syntax_error_names_the_line(self, load, project: Path) -> None:
        (project / "k8sfutures.toml").write_text("retries = 1\nwarm_for = = 3")
        with pytest.raises(SettingValueError, match="line 2"):
            load()

    def test_a_file_that_cannot_be_read(
        self, load, project: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (project / "k8sfutures.toml").write_text("")

        def refuse(*_args, **_keywords):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "read_text", refuse)
        with pytest.raises(SettingValueError, match=r"cannot be read.*Permission denied"):
            load()


PASSWORDS = ["hunter2", "hun/ter2", "hun@ter2", "hun:ter2", "hun#ter2", "hun?ter2", "hun ter2"]


class TestSecrets:
    def test_repr(self, load) -> None:
        settings = load(
            amqp_url="amqp://ada:hunter2@h/v",
            pod_amqp_url="amqps://ada:hunter2@h",
            registry_password="hunter2",
            secret="hunter2",
            retries=9,
        )
        assert repr(settings) == (
            "Settings(amqp_url='amqp://ada@h:5672/v', pod_amqp_url='amqps://ada@h:5671/%2F', "
            "registry_password='***', retries=9, secret='***')"
        )

    @pytest.mark.parametrize("password", PASSWORDS)
    @pytest.mark.parametrize("form", ["amqp://ada:{}@h:99999", "ada:{}@h", "http://ada:{}@h"])
    @pytest.mark.parametrize("name", ["amqp_url", "pod_amqp_url"])
    def test_no_password_in_an_error(self, load, name: str, form: str, password: str) -> None:
        with pytest.raises(SettingValueError) as caught:
            load(**{name: form.format(password)})
        assert "ter2" not in str(caught.value)
        # Nor in another that a traceback would show before it.
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None

    @pytest.mark.parametrize("name", ["amqp_url", "secret", "registry_password", "tls_key"])
    def test_no_secret_of_another_type_in_an_error(self, load, name: str) -> None:
        with pytest.raises(SettingTypeError) as caught:
            load(**{name: b"amqp://ada:hunter2@h"})
        assert "hunter2" not in str(caught.value)
        assert f"{name}=<bytes>" in str(caught.value)

    def test_a_url_that_lacks_its_host(self, load) -> None:
        with pytest.raises(SettingValueError) as caught:
            load(amqp_url="amqp://ada:hunter2")
        assert "hunter2" not in str(caught.value)

    def test_no_value_of_a_variable_for_calls(self, load) -> None:
        assert repr(load(environment={"TOKEN": "hunter2"})) == "Settings(environment=<dict>)"
        for wrong in ({"TOKEN": "hunter2\0"}, {"TOKEN": "hunter2" * 20_000}, {"a": b"hunter2"}):
            with pytest.raises(SettingValueError) as caught:
                load(environment=wrong)
            assert "hunter2" not in str(caught.value)
            assert repr(next(iter(wrong))) in str(caught.value)
        for text in ('{"TOKEN": "hunter2"', '["hunter2"]', '{"TOKEN": ["hunter2"]}'):
            with pytest.raises(SettingValueError) as caught:
                load({"K8SFUTURES_ENVIRONMENT": text})
            assert "hunter2" not in str(caught.value)
            assert caught.value.__context__ is None

    def test_a_variable_is_masked_too(self, load) -> None:
        with pytest.raises(SettingValueError) as caught:
            load({"K8SFUTURES_AMQP_URL": "amqp://ada:hunter2@h:x"})
        assert "hunter2" not in str(caught.value)
        assert "'amqp://ada:***@h:x'" in str(caught.value)


HEARTBEATS = (("heartbeat", "5"), ("b", ""), ("heartbeat", "6"))


class TestAmqpUrl:
    @pytest.mark.parametrize(
        ("url", "expected"),
        [
            ("amqp://h", ("amqp", "h", 5672, "guest", "guest", "/", ())),
            ("amqps://h", ("amqps", "h", 5671, "guest", "guest", "/", ())),
            ("amqp://h/", ("amqp", "h", 5672, "guest", "guest", "/", ())),
            ("amqp://u:@h:1/%2F", ("amqp", "h", 1, "u", "", "/", ())),
            ("amqp://u@h/v", ("amqp", "h", 5672, "u", "guest", "v", ())),
            ("amqp://a%40:b%2F@[::1]:9/c%2Fd", ("amqp", "::1", 9, "a@", "b/", "c/d", ())),
            ("AMQP://Host", ("amqp", "host", 5672, "guest", "guest", "/", ())),
            (
                "amqp://h/v?heartbeat=5&b=&heartbeat=6",
                ("amqp", "h", 5672, "guest", "guest", "v", HEARTBEATS),
            ),
        ],
    )
    def test_parts(self, url: str, expected: tuple) -> None:
        assert dataclasses.astuple(parse_amqp_url(url)) == expected

    @pytest.mark.parametrize("url", [u for u in WRONG_VALUES["amqp_url"] if u] + ["amqp://:5/v"])
    def test_wrong(self, url: str) -> None:
        with pytest.raises(ValueError, match=r"AMQP URL|host or port"):
            parse_amqp_url(url)

    @pytest.mark.parametrize(
        "options",
        [
            *("x=y", "heartbeat=abc", "heartbeat=-5", "heartbeat=1.5", "heartbeat=5&heartbeat=6"),
            *("socket_timeout=0", "socket_timeout=nan", "frame_max=1", "frame_max=1000000"),
        ],
    )
    def test_options_that_pika_would_refuse_later(self, options: str) -> None:
        with pytest.raises(SettingValueError, match=options.split("=", maxsplit=1)[0]):
            load_settings({"amqp_url": f"amqp://h/v?{options}"})

    def test_safe(self) -> None:
        address = parse_amqp_url("amqps://a%40:pw@[::1]:9/c%2Fd?cert=pw")
        assert address.safe == "amqps://a%40@[::1]:9/c%2Fd"
        assert "pw" not in repr(address)

    def test_it_pickles(self) -> None:
        address = parse_amqp_url("amqp://h")
        assert pickle.loads(pickle.dumps(address)) == address

    @given(st.text(min_size=1), st.text(), st.text(min_size=1), st.integers(1, 65535))
    def test_what_is_percent_encoded_comes_back(
        self, user: str, password: str, vhost: str, port: int
    ) -> None:
        encoded = [quote(part, safe="") for part in (user, password, vhost)]
        url = f"amqp://{encoded[0]}:{encoded[1]}@h:{port}/{encoded[2]}"
        address = parse_amqp_url(url)
        assert (address.user, address.password) == (user, password)
        assert (address.virtual_host, address.port) == (vhost, port)
        again = parse_amqp_url(address.safe)
        assert (again.user, again.virtual_host, again.port) == (user, vhost, port)

    @given(st.text())
    def test_any_text_is_parsed_or_refused(self, text: str) -> None:
        for url in (text, f"amqp://{text}"):
            with contextlib.suppress(ValueError):
                assert parse_amqp_url(url).host


class TestPods:
    def test_as_set(self, home: Path) -> None:
        environ = {"KUBECONFIG": "/etc/hostname"}
        assert resolve_pods(Settings(pods="local"), environ, home=home) == "local"
        assert resolve_pods(Settings(pods="kubernetes"), {}, home=home) == "kubernetes"

    def test_nothing_found(self, home: Path) -> None:
        assert resolve_pods(Settings(), {}, home=home) == "local"

    def test_kubeconfig_setting(self, home: Path) -> None:
        assert resolve_pods(Settings(kubeconfig="/missing"), {}, home=home) == "kubernetes"

    def test_kubeconfig_variable(self, home: Path, tmp_path: Path) -> None:
        (home / ".kube").mkdir()
        (home / ".kube" / "config").touch()
        (tmp_path / "k").touch()
        two = {"KUBECONFIG": f"/missing:{tmp_path / 'k'}"}
        assert resolve_pods(Settings(), two, home=home) == "kubernetes"
        # Where it is missing, that is the error to show: not calls that run on this machine.
        assert resolve_pods(Settings(), {"KUBECONFIG": "/missing"}, home=home) == "kubernetes"

    def test_kubeconfig_in_the_home_folder(self, home: Path) -> None:
        (home / ".kube").mkdir()
        (home / ".kube" / "config").touch()
        assert resolve_pods(Settings(), {}, home=home) == "kubernetes"

    def test_in_a_pod(self, home: Path, tmp_path: Path) -> None:
        environ, token = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, tmp_path / "token"
        assert resolve_pods(Settings(), environ, home=home, token=token) == "local"
        token.touch()
        assert resolve_pods(Settings(), environ, home=home, token=token) == "kubernetes"
        assert resolve_pods(Settings(), {}, home=home, token=token) == "local"

    def test_warm_for(self) -> None:
        assert Settings().warm_for_seconds("kubernetes") == 600
        assert Settings().warm_for_seconds("local") == 60
        assert Settings(warm_for=0.0).warm_for_seconds("local") == 0


class TestPoolName:
    def test_as_set(self) -> None:
        assert pool_name(Settings(pool="mine"), "local") == "mine"

    def test_derived(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("getpass.getuser", lambda: "ada")
        monkeypatch.setattr("platform.python_version_tuple", lambda: ("3", "12", "1"))
        name = pool_name(Settings(), "local")
        assert name.startswith("local-py3.12-ada-")
        assert name == pool_name(Settings(retries=9, warm_for=3.0, secret="x"), "local")
        assert config._POOL.fullmatch(name)

    @pytest.mark.parametrize(
        "changed",
        [
            {"worker_processes": 2},
            {"image": "x"},
            {"cpu": 2},
            {"memory": "1Gi"},
            {"node_selector": {"a": "b"}},
            {"tolerations": TOLERATIONS},
            {"pod_template": TEMPLATE},
        ],
        ids=lambda changed: next(iter(changed)),
    )
    @pytest.mark.parametrize("pods", ["local", "kubernetes"])
    def test_what_shapes_a_pod_changes_it(self, pods, changed: dict) -> None:
        assert pool_name(Settings(**changed), pods) != pool_name(Settings(), pods)

    @pytest.mark.parametrize("changed", [{"context": "c"}, {"namespace": "n"}])
    def test_the_cluster_counts_on_kubernetes_only(self, changed: dict) -> None:
        settings = Settings(**changed)
        assert pool_name(settings, "local") == pool_name(Settings(), "local")
        assert pool_name(settings, "kubernetes") != pool_name(Settings(), "kubernetes")

    def test_the_order_of_a_mapping_does_not_count(self) -> None:
        one = Settings(node_selector={"a": "1", "b": "2"})
        other = Settings(node_selector={"b": "2", "a": "1"})
        assert pool_name(one, "local") == pool_name(other, "local")

    def test_versions_count(self, monkeypatch: pytest.MonkeyPatch) -> None:
        before = pool_name(Settings(), "local")
        monkeypatch.setattr("k8sfutures.messages.PROTOCOL", 10**6)
        assert pool_name(Settings(), "local") != before

    def test_any_user(self, monkeypatch: pytest.MonkeyPatch) -> None:
        names = set()
        for user in ["DOM\\ada", "ada lovelace", "ä" * 300]:
            monkeypatch.setattr("getpass.getuser", lambda user=user: user)
            names.add(pool_name(Settings(), "kubernetes"))
        assert len(names) == 3
        assert all(config._POOL.fullmatch(name) for name in names)

    def test_no_such_user(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def unknown():
            raise KeyError("getpwuid(): uid not found")

        monkeypatch.setattr("getpass.getuser", unknown)
        assert "-uid" in pool_name(Settings(), "local")


def test_settings_pickle_and_are_frozen() -> None:
    settings = Settings(retries=4, node_selector={"a": "b"})
    assert pickle.loads(pickle.dumps(settings)) == settings
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.retries = 5
