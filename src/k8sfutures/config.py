"""Settings: which there are, where they come from, and what each of them may be.

A setting comes from the first of these places that gives it:

1. a keyword argument;
2. the environment variable ``K8SFUTURES_<NAME>``;
3. ``k8sfutures.toml``, in the working directory or the nearest folder above it that has one;
4. ``k8sfutures/k8sfutures.toml`` in the user's config folder.

``_SETTINGS`` is the table of them, with what each may be. Errors name the setting, its value, where
it came from and what would be right; secrets never reach a text.
"""

from __future__ import annotations

import dataclasses
import getpass
import hashlib
import json
import os
import re
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, UnionType
from typing import Any, Final, Literal

from ._version import __version__
from .address import check_options, parse_amqp_url, without_password
from .environment import PREFIX, warn_of_strange_variables
from .errors import SettingTypeError, SettingValueError
from .machine import home_folder, is_file, working_folder
from .setting_values import are_variables, copied, is_amount, is_text
from .suggestions import suggestion
from .tls import PEM

Pods = Literal["kubernetes", "local"]
Output = Literal["marked", "plain", "off"]

FILE_NAME: Final = "k8sfutures.toml"

_WARM_FOR: Final[Mapping[Pods, float]] = {"kubernetes": 600.0, "local": 60.0}
_SERVICE_ACCOUNT_TOKEN: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
_SHAPING: Final = (
    *("worker_processes", "image", "cpu", "memory"),
    *("node_selector", "tolerations", "pod_template"),
)
_PLACING: Final = ("context", "namespace")
_LONGEST: Final = 366 * 24 * 3600.0
"""A longer duration is a mistake, and locks refuse time-outs that are much longer."""

_POOL: Final = re.compile(r"[A-Za-z0-9._-]{1,100}")
_NAMESPACE: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Settings:
    """The settings of an executor, as `load_settings` read and checked them.

    None stands for the default that is decided where the setting is used. Durations are in
    seconds. The ``repr`` shows what differs from the defaults, and no secret.
    """

    amqp_url: str | None = None
    pod_amqp_url: str | None = None
    tls_ca: str | None = None
    tls_certificate: str | None = None
    tls_key: str | None = None
    pods: Pods | None = None
    pool: str | None = None
    worker_processes: int | None = None
    image: str | None = None
    image_pull_policy: str | None = None
    registry_server: str | None = None
    registry_user: str | None = None
    registry_password: str | None = None
    kubeconfig: str | None = None
    context: str | None = None
    namespace: str | None = None
    cpu: float | str | None = None
    memory: int | str | None = None
    node_selector: Mapping[str, str] | None = None
    tolerations: Sequence[Mapping[str, Any]] | None = None
    pod_template: Mapping[str, Any] | None = None
    warm_for: float | None = None
    retries: int = 3
    startup_timeout: float = 120.0
    secret: str | None = None
    flush_window: float = 0.0
    output: Output = "marked"
    ship: Sequence[str] | None = None
    environment: Mapping[str, str] | None = None

    def __repr__(self) -> str:
        shown = (
            f"{item.name}={_shown(item.name, getattr(self, item.name))}"
            for item in dataclasses.fields(self)
            if getattr(self, item.name) != item.default
        )
        return f"Settings({', '.join(shown)})"

    def shape(self, pods: Pods) -> dict[str, str]:
        """What was given of all that shapes a pod, as texts; what was left out is not there.

        Args:
            pods: where they run.
        """
        names = _SHAPING if pods == "kubernetes" else ("worker_processes",)
        values = {name: getattr(self, name) for name in names}
        texts = {
            name: value if isinstance(value, str) else json.dumps(value, sort_keys=True)
            for name, value in values.items()
            if value is not None
        }
        if "pod_template" in texts:  # it may hold what is not for everyone
            texts["pod_template"] = hashlib.sha256(texts["pod_template"].encode()).hexdigest()[:12]
        return texts

    def warm_for_seconds(self, pods: Pods) -> float:
        """Seconds that an unused pod stays: ``warm_for``, or the default where such pods run."""
        return _WARM_FOR[pods] if self.warm_for is None else self.warm_for


def _is_amqp_url(url: str) -> bool:
    check_options(parse_amqp_url(url))  # Or its ValueError, which says more than False.
    return True


def _names_to_ship(entries: Sequence[object]) -> list[str]:
    return [getattr(entry, "__name__", None) or str(entry) for entry in entries]


def _can_be_shipped(entries: Sequence[object]) -> bool:
    if not all(isinstance(entry, str | Path | ModuleType) and str(entry) for entry in entries):
        return False
    from .shipping import check  # this module alone does not need it

    check(_names_to_ship(entries))
    return True


@dataclass(frozen=True, slots=True)
class _Setting:
    """How one setting is read.

    ``wanted`` is read after "must be". A value has one of ``kinds`` (a bool never counts as an int)
    and is ``valid``, which can raise a ValueError that says more. ``parse`` makes one of the text
    of an environment variable, ``keep`` makes of one what `Settings` holds, and ``mask`` what
    messages show of a secret one.
    """

    wanted: str
    kinds: type | UnionType
    valid: Callable[[Any], bool]
    parse: Callable[[str], object] = str
    keep: Callable[[Any], Any] = lambda value: value
    mask: Callable[[str], str] | None = None


def _one_of(*choices: str) -> _Setting:
    return _Setting(" or ".join(map(repr, choices)), str, choices.__contains__)


def _matching(pattern: re.Pattern[str], wanted: str) -> _Setting:
    return _Setting(wanted, str, lambda text: pattern.fullmatch(text) is not None)


def _whole_number(least: int) -> _Setting:
    return _Setting(f"a whole number, {least} or more", int, lambda n: n >= least, int)


def _seconds(wanted: str, valid: Callable[[float], bool]) -> _Setting:
    # NaN compares false with everything, and so is refused too.
    wanted = f"a number of seconds, {wanted} and at most {_LONGEST:.0f} (a year)"
    return _Setting(wanted, int | float, lambda n: valid(n) and n <= _LONGEST, float, float)


def _json(wanted: str, kinds: type | UnionType, valid: Callable[[Any], bool]) -> _Setting:
    wanted = f"{wanted} (JSON in the environment)"
    return _Setting(wanted, kinds, valid, json.loads, copied)


_URL: Final = _Setting(
    "amqp://user:password@host:port/virtual-host, or the same with amqps://",
    *(str, _is_amqp_url),
    mask=without_password,
)


def _pem(mask: Callable[[str], str]) -> _Setting:
    return _Setting(
        *(
            "the path of a PEM file, or a text in PEM form",
            str | Path,
            lambda value: bool(str(value).strip()),
        ),
        keep=lambda value: str(value) if PEM in str(value) else str(Path(value).expanduser()),
        mask=mask,
    )


_TEXT: Final = _Setting("a text, not empty, that neither begins nor ends in space", str, is_text)
_SECRET: Final = _Setting("a text that is not empty", str, bool, mask=lambda _: "***")

_SETTINGS: Final[Mapping[str, _Setting]] = {
    "amqp_url": _URL,
    "pod_amqp_url": _URL,
    "tls_ca": _pem(lambda text: "PEM" if PEM in text else text),
    "tls_certificate": _pem(lambda text: "PEM" if PEM in text else text),
    "tls_key": _pem(lambda _: "***"),
    "pods": _one_of("kubernetes", "local"),
    "pool": _matching(_POOL, "1 to 100 letters (a to z, A to Z), digits, or any of '-', '_', '.'"),
    "worker_processes": _whole_number(1),
    "image": _TEXT,
    "image_pull_policy": _one_of("Always", "IfNotPresent", "Never"),
    "registry_server": _TEXT,
    "registry_user": _TEXT,
    "registry_password": _SECRET,
    "kubeconfig": _Setting(
        *("the path of a kubeconfig file", str | Path, lambda path: is_text(str(path))),
        keep=lambda path: str(Path(path).expanduser()),
    ),
    "context": _TEXT,
    "namespace": _matching(_NAMESPACE, "a Kubernetes namespace: a to z, digits and '-'"),
    "cpu": _Setting(
        "CPUs, more than 0: a number such as 2 or 0.5, or a quantity such as '500m'",
        *(int | float | str, is_amount),
    ),
    "memory": _Setting(
        "bytes, more than 0: a whole number, or a quantity such as '512Mi' or '16Gi'",
        *(int | str, is_amount),
    ),
    "node_selector": _json(
        *("a dict of strings to strings, such as {'disktype': 'ssd'}", dict),
        lambda value: all(isinstance(text, str) for pair in value.items() for text in pair),
    ),
    "tolerations": _json(
        *("a list of dicts, such as [{'key': 'gpu', 'operator': 'Exists'}]", list | tuple),
        lambda value: all(isinstance(item, dict) for item in value),
    ),
    "pod_template": _json("a dict, a part of a pod's manifest", dict, lambda _value: True),
    "warm_for": _seconds("0 or more", lambda seconds: seconds >= 0),
    "retries": _whole_number(0),
    "startup_timeout": _seconds("more than 0", lambda seconds: seconds > 0),
    "secret": _SECRET,
    "flush_window": _seconds("0 or more", lambda seconds: seconds >= 0),
    "output": _one_of("marked", "plain", "off"),
    "ship": _Setting(
        "a list of modules, or names of modules, or paths of files and folders (JSON in the "
        "environment)",
        *(list | tuple, _can_be_shipped, json.loads, _names_to_ship),
    ),
    "environment": _Setting(
        "a dict of names of variables to their values, texts both (JSON in the environment)",
        *(Mapping, are_variables, json.loads, dict, lambda _: "***"),
    ),
}

SECRET_VARIABLES: Final = frozenset(
    PREFIX + name.upper() for name, setting in _SETTINGS.items() if setting.mask is not None
)
"""What the environment may have of ours, and nobody else is to see."""


def load_settings(
    keywords: Mapping[str, object],
    *,
    environ: Mapping[str, str] | None = None,
    start: Path | None = None,
    home: Path | None = None,
) -> Settings:
    """Gathers the settings from every place, and checks each of them.

    A keyword that is None and an environment variable that is empty count as not given. A variable
    with the prefix that is no setting is warned of.

    Args:
        keywords: what the caller gave, by name.
        environ: the environment, `os.environ` by default.
        start: the folder where the search for ``k8sfutures.toml`` begins, upwards; the working
            directory by default.
        home: the user's home folder, by default the one of this process.

    Returns:
        The settings.

    Raises:
        SettingTypeError: a setting has a value of the wrong type, or a keyword is unknown.
        SettingValueError: a setting has a value that cannot work, or a file cannot be read, is
            not TOML or sets something that is not a setting.
    """
    environ = os.environ if environ is None else environ
    if unknown := [name for name in keywords if name not in _SETTINGS]:
        name = unknown[0]
        hint = suggestion(name, _SETTINGS, keyword=True)
        raise SettingTypeError(f"got an unexpected keyword argument {name!r}.{hint}")
    values: dict[str, Any] = {}
    # The last one to set a value wins, so the weakest comes first.
    for path in _files(environ, start or working_folder(), home or home_folder()):
        for name, value in _read_file(path).items():
            values[name] = _checked(name, value, str(path))
    warn_of_strange_variables(environ, _SETTINGS)
    for name in _SETTINGS:
        variable = PREFIX + name.upper()
        if text := environ.get(variable):
            origin = f"environment variable {variable}"
            values[name] = _checked(name, text, origin, parse=True)
    for name, value in keywords.items():
        if value is not None:
            values[name] = _checked(name, value, "keyword argument")
    return Settings(**values)


def _files(environ: Mapping[str, str], start: Path | None, home: Path | None) -> Iterator[Path]:
    config: Path | None = Path(environ.get("XDG_CONFIG_HOME", ""))
    # The XDG specification has relative paths ignored.
    if not (config and config.is_absolute()):
        config = home and home / ".config"
    if config and is_file(users := config / "k8sfutures" / FILE_NAME):
        yield users
    if start is None:
        return
    start = start.absolute()
    for folder in (start, *start.parents):
        if is_file(folder / FILE_NAME):
            yield folder / FILE_NAME
            return


def _read_file(path: Path) -> dict[str, Any]:
    wrong = ""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingValueError(f"the settings in {path} cannot be read: {error}") from error
    except ValueError as error:  # TOMLDecodeError (with line and column), or not UTF-8.
        wrong = str(error)
    if wrong:  # Not in there: such an error holds the whole file, passwords included.
        raise SettingValueError(f"{path} is not valid TOML: {wrong}")
    if unknown := [name for name in table if name not in _SETTINGS]:
        name = unknown[0]
        hint = suggestion(name, _SETTINGS)
        raise SettingValueError(f"{path} sets {name!r}, which is no setting.{hint}")
    return table


def _checked(name: str, value: Any, origin: str, *, parse: bool = False) -> Any:
    """The value as it is kept; the text of an environment variable is parsed first."""
    setting = _SETTINGS[name]
    shown = _shown(name, value)
    of_its_kind = parse  # In the environment all is text: there the value is wrong, not the type.
    detail = ""
    try:
        value = setting.parse(value) if parse else value
        if isinstance(value, setting.kinds) and not isinstance(value, bool):
            of_its_kind = True
            if setting.valid(value):
                return setting.keep(value)
    except (TypeError, ValueError, RuntimeError) as error:  # too deep, or "~" of nobody
        detail = f"; {error}"
    wrong = SettingValueError if of_its_kind else SettingTypeError
    raise wrong(f"{name}={shown} ({origin}): {name} must be {setting.wanted}{detail}")


def _shown(name: str, value: object) -> str:
    mask = _SETTINGS[name].mask
    if mask is None:
        return repr(value)
    # Of another type, bytes say, it could hold the secret as well.
    return repr(mask(value)) if isinstance(value, str) else f"<{type(value).__name__}>"


def resolve_pods(
    settings: Settings,
    environ: Mapping[str, str],
    *,
    home: Path | None = None,
    token: Path = _SERVICE_ACCOUNT_TOKEN,
) -> Pods:
    """Decides where pods run: as set, or on Kubernetes where there is access to a cluster.

    Args:
        settings: the settings.
        environ: the environment.
        home: the user's home folder, by default the one of this process.
        token: where a pod's own service account keeps its token.

    Returns:
        ``settings.pods``, or else ``"kubernetes"`` where a kubeconfig is set or found or this
        process is itself in a pod with a service account, or else ``"local"``.
    """
    if settings.pods:
        return settings.pods
    if settings.kubeconfig:
        # Whether the file is there or not: where it is missing, that is the error to show.
        return "kubernetes"
    home = home or home_folder()
    named = [Path(name) for name in environ.get("KUBECONFIG", "").split(os.pathsep) if name]
    # One that was named and is not there is likewise the error to show.
    found = bool(named) or (home is not None and is_file(home / ".kube" / "config"))
    in_cluster = bool(environ.get("KUBERNETES_SERVICE_HOST")) and is_file(token)
    return "kubernetes" if found or in_cluster else "local"


def is_pool_name(text: str) -> bool:
    """Whether a text can be the name of a pool."""
    return _POOL.fullmatch(text) is not None


def pool_name(settings: Settings, pods: Pods) -> str:
    """The name of the warm pool: as set, or derived from all that shapes its pods.

    Args:
        settings: the settings.
        pods: where the pods run.

    Returns:
        ``settings.pool``, or a name such as ``local-py3.11-ada-1a2b3c4d``: the same for the same
        settings, user and versions (and, of local pods, installation and working directory).
    """
    if settings.pool:
        return settings.pool
    # This loads cloudpickle and msgpack, whose versions count; this module alone needs neither.
    from .messages import Versions

    versions = Versions.ours()
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # Not in the password file, as a container's user may be.
        user = f"uid{os.getuid()}"
    shaping = _SHAPING + (_PLACING if pods == "kubernetes" else ())
    shape = [pods, user, versions, {name: getattr(settings, name) for name in shaping}]
    if pods == "local":
        # Such pods run this very installation, and relative paths mean what they mean here.
        shape += [__version__, sys.prefix, str(working_folder())]
    digest = hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()
    readable = re.sub(r"[^A-Za-z0-9._-]", "_", user)[:40]
    return f"{pods}-py{versions.python}-{readable}-{digest[:8]}"
