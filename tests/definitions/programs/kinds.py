"""Every kind of definition, in the `__main__` of a program whose source no pod can find.

`tests/definitions` runs this as a script, with -c, with -m, in a REPL and in a notebook. Each case
gets an executor on one CPU process, so that calls follow each other there, and is reported on a
line of its own.
"""

import abc
import collections
import collections.abc
import concurrent.futures
import contextlib
import copyreg
import dataclasses
import enum
import functools
import inspect
import json
import logging
import multiprocessing
import operator
import os
import os.path as paths
import pickle
import re
import sys
import threading
import time
import traceback
import typing
import xml.dom.minidom
from typing import Generic, NamedTuple, Protocol, TypedDict, TypeVar

from k8sfutures import K8sRabbitExecutor

CASES = []
WAIT = 60


def case(function):
    CASES.append(function)
    return function


def run(ex, function, /, *args, **kwargs):
    return ex.submit(function, *args, **kwargs).result(WAIT)


def raised(ex, function, /, *args, **kwargs):
    error = ex.submit(function, *args, **kwargs).exception(WAIT)
    assert error is not None, "nothing was raised"
    return error


# --- functions

FACTOR = 3


def scaled(value):
    return times(value)


def times(value):
    return value * FACTOR


def factorial(n):
    return 1 if n < 2 else n * factorial(n - 1)


def is_even(n):
    return n == 0 or is_odd(n - 1)


def is_odd(n):
    return n != 0 and is_even(n - 1)


@case
def the_pod_does_not_know_this_program(ex):
    def look():
        return [name for name in sys.modules if name.endswith("kinds")], "kinds" in str(sys.path)

    assert run(ex, look) == ([], False)


@case
def functions_and_lambdas(ex):
    assert run(ex, scaled, 2) == 6
    assert run(ex, lambda x: x + FACTOR, 2) == 5
    assert list(ex.map(lambda x, y: x * y, [1, 2], [3, 4])) == [3, 8]


@case
def closures(ex):
    def outer(n):
        def inner(x):
            return x + n

        return inner

    assert run(ex, outer(3), 4) == 7
    add = run(ex, outer, 5)
    assert add(1) == 6
    assert run(ex, add, 2) == 7


@case
def closures_that_assign(ex):
    def counter():
        n = 0

        def count():
            nonlocal n
            n += 1
            return n

        return count

    count = counter()

    def twice():
        return count(), count()

    assert run(ex, twice) == (1, 2)
    assert count() == 1


@case
def closures_that_share_a_variable(ex):
    total = 0

    def add(n):
        nonlocal total
        total += n

    def look():
        return total

    def use():
        add(2)
        return look()

    assert run(ex, use) == 2
    plus, see = run(ex, lambda both: both, (add, look))
    plus(5)
    assert (see(), look()) == (5, 0)


@case
def nested_and_recursive_functions(ex):
    assert run(ex, factorial, 5) == 120
    assert run(ex, is_even, 10)

    def local_factorial(n):
        return 1 if n < 2 else n * local_factorial(n - 1)

    assert run(ex, local_factorial, 5) == 120

    def ping(n):
        return "ping" if n == 0 else pong(n - 1)

    def pong(n):
        return "pong" if n == 0 else ping(n - 1)

    assert run(ex, ping, 3) == "pong"


def traced(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return [function.__name__, function(*args, **kwargs)]

    return wrapper


@traced
def decorated(x):
    return x + FACTOR


class Repeated:
    def __init__(self, function):
        functools.update_wrapper(self, function)
        self.function = function
        self.calls = 0

    def __call__(self, *args):
        self.calls += 1
        return [self.function(*args)] * 2


@Repeated
def repeated(x):
    return x * FACTOR


def with_arguments(prefix, *, suffix):
    def decorate(function):
        @functools.wraps(function)
        def wrapper(*args):
            return f"{prefix}{function(*args)}{suffix}"

        return wrapper

    return decorate


@with_arguments("<", suffix=">")
def bracketed(text):
    """Its documentation."""
    return text


@contextlib.contextmanager
def doubled(value):
    yield 2 * value


@case
def decorated_functions(ex):
    assert run(ex, decorated, 1) == ["decorated", 4]
    assert run(ex, repeated, 2) == [6, 6]
    assert run(ex, lambda: repeated(1)) == [3, 3]
    assert run(ex, bracketed, "text") == "<text>"
    assert run(ex, lambda: (bracketed.__name__, bracketed.__doc__)) == (
        "bracketed",
        "Its documentation.",
    )

    def use():
        with doubled(4) as value:
            return value

    assert run(ex, use) == 8


@case
def partials(ex):
    assert run(ex, functools.partial(times, 4)) == 12
    assert run(ex, functools.partial(functools.partial(pow, 2), 5)) == 32
    assert run(ex, functools.partial(lambda a, *, b: a - b, b=1), 3) == 2
    back = run(ex, lambda p: p, functools.partial(times, 2))
    assert back() == 6
    assert type(back) is functools.partial


@functools.lru_cache(maxsize=32)
def fibonacci(n):
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)


@functools.cache
def measured(n):
    return times(n)


@case
def cached_functions(ex):
    assert run(ex, fibonacci, 50) == 12586269025
    assert run(ex, lambda: fibonacci(10)) == 55
    assert run(ex, lambda: fibonacci.cache_parameters()) == {"maxsize": 32, "typed": False}
    assert run(ex, lambda: fibonacci.cache_info().currsize) > 0, "one cache for each process"
    assert run(ex, measured, 2) == 6
    assert fibonacci.cache_info().currsize == 0
    assert run(ex, lambda: fibonacci) is fibonacci

    @functools.lru_cache(typed=True)
    def local(x):
        """Its documentation."""
        return x * FACTOR

    local.note = "kept"
    assert run(ex, local, 2) == 6
    assert run(ex, lambda: (local.__name__, local.__doc__, local.note)) == (
        "local",
        "Its documentation.",
        "kept",
    )
    assert run(ex, lambda: local.cache_parameters()["typed"])


class Cached:
    def __init__(self, base):
        self.base = base

    @functools.lru_cache  # noqa: B019
    def plus(self, n):
        return self.base + n

    @functools.cached_property
    def double(self):
        """Its documentation."""
        return 2 * self.base

    @staticmethod
    @functools.cache
    def square(n):
        return n * n


@case
def cached_methods_and_properties(ex):
    assert run(ex, lambda c: (c.plus(1), c.plus(1), c.double, c.double), Cached(3)) == (4, 4, 6, 6)
    assert run(ex, Cached(2).plus, 1) == 3
    assert run(ex, Cached.square, 5) == 25
    it = Cached(4)
    assert it.double == 8
    assert run(ex, lambda c: vars(c), it) == {"base": 4, "double": 8}
    assert run(ex, lambda: Cached.double.__doc__) == "Its documentation."
    assert type(run(ex, Cached, 1)) is Cached


@functools.singledispatch
def described(value):
    return f"object {value}"


@described.register
def _(value: int):
    return f"int {value}"


@described.register(list)
def _(value):
    return [described(item) for item in value]


@described.register(collections.abc.Mapping)
def _(value):
    return {key: described(item) for key, item in value.items()}


class Formatter:
    @functools.singledispatchmethod
    def format(self, value):
        return f"object {value}"

    @format.register
    def _(self, value: int):
        return f"int {value}"


@case
def single_dispatch(ex):
    assert run(ex, described, 1) == "int 1"
    assert run(ex, described, [1, "a", [2]]) == ["int 1", "object a", ["int 2"]]
    assert run(ex, described, {"a": 1}) == {"a": "int 1"}

    def more():
        described.register(bytes, lambda value: "bytes")
        return described(b""), bytes in described.registry

    assert run(ex, more) == ("bytes", True)
    assert bytes not in described.registry
    assert run(ex, Formatter().format, 1) == "int 1"
    assert run(ex, lambda: Formatter().format("a")) == "object a"
    assert run(ex, lambda: described) is described


class Account:
    rate = 2

    def __init__(self, money):
        self.money = money

    def interest(self):
        return self.money * self.rate

    @classmethod
    def empty(cls):
        return cls(0)

    @staticmethod
    def currency():
        return "EUR"

    def __call__(self, more):
        return self.money + more

    def __eq__(self, other):
        return type(other) is type(self) and other.money == self.money

    __hash__ = None


class Savings(Account):
    rate = 3

    def interest(self):
        return super().interest() + 1


@case
def methods_and_callable_instances(ex):
    assert run(ex, Account(5).interest) == 10
    assert run(ex, Account.interest, Account(4)) == 8
    assert run(ex, Savings(5).interest) == 16
    assert run(ex, Account.empty) == Account(0)
    assert type(run(ex, Savings.empty)) is Savings
    assert run(ex, Account.currency) == "EUR"
    assert run(ex, Account(5), 1) == 6
    assert run(ex, operator.methodcaller("interest"), Account(1)) == 2
    assert list(ex.map(Account.interest, [Account(1), Savings(1)])) == [2, 3]


def count_up(n):
    for i in range(n):
        yield i * FACTOR


@case
def what_generators_make_comes_back_as_a_list(ex):
    assert run(ex, count_up, 3) == [0, 3, 6]
    assert run(ex, lambda: (i for i in range(3))) == [0, 1, 2]
    assert list(ex.map(count_up, [1, 2])) == [[0], [0, 3]]

    def breaks():
        yield 1
        raise KeyError("in the generator")

    assert type(raised(ex, breaks)) is KeyError


async def coroutine():
    return 1


async def asynchronous_generator():
    yield 1


class Asynchronous:
    async def method(self):
        return 1

    async def __call__(self):
        return 1


@case
def coroutines_are_refused(ex):
    for function in (
        coroutine,
        asynchronous_generator,
        functools.partial(coroutine),
        Asynchronous().method,
        Asynchronous(),
    ):
        error = raised(ex, function)
        assert type(error) is TypeError, error
        assert "asyncio.run" in str(error), error
    assert "asyncio.run(coroutine(...))" in str(raised(ex, coroutine))
    try:
        list(ex.map(coroutine, range(0)))
        list(ex.map(asynchronous_generator, range(1)))
    except TypeError as error:
        assert "asyncio.run" in str(error)
    else:
        raise AssertionError("nothing was raised")
    assert "coroutine" in str(raised(ex, lambda: coroutine()))


# --- data classes and their like


@dataclasses.dataclass
class Point:
    x: int
    y: int = 2
    tags: list = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Frozen:
    x: int
    name: str = "none"


@dataclasses.dataclass(kw_only=True, slots=True)
class Named:
    first: int
    second: "Point | None" = None
    ready: dataclasses.InitVar[int] = 0

    def __post_init__(self, ready):
        self.first += ready


@dataclasses.dataclass
class Point3(Point):
    z: int = 0


class Pair(NamedTuple):
    left: int
    right: "Point"

    def swapped(self):
        return Pair(self.right, self.left)


Old = collections.namedtuple("Old", ["a", "b"], defaults=[5])  # noqa: PYI024


class Options(TypedDict, total=False):
    depth: int


class MoreOptions(Options):
    width: int


@case
def data_classes(ex):
    for it in (Point(1), Frozen(1, "a"), Named(first=1, second=Point(2)), Point3(1, 2, ["t"], 4)):
        back = run(ex, lambda x: x, it)
        assert back == it
        assert type(back) is type(it)
        assert run(ex, isinstance, it, type(it))
    assert run(ex, Point, 1) == Point(1)
    assert run(ex, Named, first=1, ready=2) == Named(first=3)
    assert hash(run(ex, Frozen, 3)) == hash(Frozen(3))
    assert run(ex, lambda: dataclasses.replace(Frozen(1), x=2) < Frozen(3))
    assert run(ex, lambda: [f.name for f in dataclasses.fields(Point3)]) == ["x", "y", "tags", "z"]
    assert run(ex, lambda p: dataclasses.asdict(p), Point(1)) == {"x": 1, "y": 2, "tags": []}

    def derived():
        @dataclasses.dataclass
        class Here(Point):
            w: int = 9

        return dataclasses.asdict(Here(1)), Point.__dataclass_fields__["x"].default is (
            dataclasses.MISSING
        )

    assert run(ex, derived) == ({"x": 1, "y": 2, "tags": [], "w": 9}, True)
    try:
        run(ex, lambda f: setattr(f, "x", 2), Frozen(1))
    except dataclasses.FrozenInstanceError:
        pass
    else:
        raise AssertionError("it was not frozen")
    assert [type(p) for p in ex.map(Point, range(2))] == [Point, Point]


@case
def named_tuples_and_typed_dicts(ex):
    pair = Pair(1, Point(2))
    back = run(ex, lambda p: p, pair)
    assert back == pair
    assert type(back) is Pair
    assert type(run(ex, pair.swapped)) is Pair
    assert type(run(ex, Old, 1)) is Old
    assert run(ex, lambda: Old(1)._asdict()) == {"a": 1, "b": 5}
    assert run(ex, lambda: Old._fields) == ("a", "b")
    assert run(ex, lambda o: o["depth"], Options(depth=2)) == 2
    assert run(ex, lambda: Options(depth=1)) == {"depth": 1}
    assert run(ex, lambda: Options.__total__) is False
    assert run(ex, lambda: MoreOptions.__required_keys__) == {"width"}


# --- enumerations


class Colour(enum.Enum):
    RED = 1
    GREEN = 2
    CRIMSON = 1

    def describe(self):
        return f"{self.name} of {len(Colour)}"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = enum.auto()


class Word(enum.StrEnum):
    HELLO = enum.auto()
    WORLD = "w"


class Right(enum.Flag):
    READ = enum.auto()
    WRITE = enum.auto()
    BOTH = READ | WRITE


class Bits(enum.IntFlag):
    A = 1
    B = 2


class Planet(enum.Enum):
    MERCURY = (3.3e23, 2.4e6)
    EARTH = (6.0e24, 6.4e6)

    def __init__(self, mass, radius):
        self.mass = mass
        self.radius = radius

    @property
    def density(self):
        return self.mass / self.radius**3


class Coordinate(bytes, enum.Enum):
    def __new__(cls, value, label):
        it = bytes.__new__(cls, [value])
        it._value_ = value
        it.label = label
        return it

    PX = (7, "P.X")
    PY = (8, "P.Y")


class Lenient(enum.Enum):
    YES = "yes"
    NO = "no"

    @classmethod
    def _missing_(cls, value):
        return cls.NO


class Shape(enum.Enum):
    ROUND = "round"

    def __str__(self):
        return "a shape"


class Corner(tuple, enum.Enum):
    ONE = (1, 2)


class Action(enum.Enum):
    SCALE = enum.member(times)

    def __call__(self, *args):
        return self.value(*args)


def colour_of(colour=Colour.GREEN, *, also=Right.BOTH):
    return colour, also, colour is Colour.GREEN


def same_members(members):
    return members, [member is type(member)[member.name] for member in members]


@case
def enumerations(ex):
    members = [
        *(Colour.RED, Colour.CRIMSON, Level.HIGH, Word.HELLO, Right.READ, Right.BOTH, Bits.B),
        *(Planet.EARTH, Coordinate.PY, Lenient.NO, Shape.ROUND, Corner.ONE, Action.SCALE),
    ]
    back, same = run(ex, same_members, members)
    assert all(one is other for one, other in zip(back, members, strict=True)), back
    assert all(same), same
    again, _ = run(ex, same_members, back)
    assert all(one is other for one, other in zip(again, members, strict=True))


@case
def what_members_are_on_the_pod(ex):
    assert run(ex, Colour.RED.describe) == "RED of 2"
    assert run(ex, lambda: Colour.CRIMSON is Colour.RED)
    assert run(ex, lambda: Colour(2)) is Colour.GREEN
    assert run(ex, lambda: Colour["CRIMSON"]) is Colour.RED
    assert run(ex, lambda: list(Colour)) == list(Colour)
    assert run(ex, lambda: Level.HIGH + 1) == 3
    assert run(ex, lambda: f"{Word.HELLO}") == "hello"
    assert run(ex, lambda: Planet.EARTH.density) == Planet.EARTH.density
    assert run(ex, lambda: (Coordinate.PY.value, Coordinate.PY.label, bytes(Coordinate.PY))) == (
        8,
        "P.Y",
        b"\x08",
    )
    assert run(ex, Action.SCALE, 2) == 6
    assert run(ex, lambda: tuple(Corner.ONE)) == (1, 2)
    assert run(ex, lambda: Coordinate(7)) is Coordinate.PX
    assert run(ex, lambda: Lenient("other")) is Lenient.NO
    assert run(ex, str, Shape.ROUND) == "a shape"
    assert run(ex, lambda: Right.READ | Right.WRITE) is Right.BOTH
    assert run(ex, lambda r: Right.WRITE in r, Right.BOTH)
    assert run(ex, lambda: Bits.A | Bits.B) == 3
    assert type(run(ex, lambda: Bits.A | Bits.B)) is Bits
    assert run(ex, operator.invert, Right.READ) is Right.WRITE


@case
def members_in_containers_and_defaults(ex):
    table = {Colour.RED: [Level.LOW], "set": {Right.READ}}
    back = run(ex, lambda t: t, table)
    assert back == table
    assert next(iter(back)) is Colour.RED
    assert run(ex, colour_of) == (Colour.GREEN, Right.BOTH, True)
    assert run(ex, colour_of)[0] is Colour.GREEN
    assert run(ex, lambda p: p.x is Colour.RED, Point(Colour.RED))
    assert run(ex, lambda: table[Colour.RED]) == [Level.LOW]
    assert [c is Colour.RED for c in ex.map(lambda c: c, [Colour.RED, Colour.GREEN])] == [
        True,
        False,
    ]


# --- classes


class Base(abc.ABC):
    @abc.abstractmethod
    def area(self): ...

    def twice(self):
        return 2 * self.area()


class Square(Base):
    def __init__(self, side):
        self.side = side

    def area(self):
        return self.side**2


@Base.register
class Registered:
    pass


@typing.runtime_checkable
class HasArea(Protocol):
    def area(self) -> int: ...


@case
def abstract_classes_and_protocols(ex):
    assert run(ex, Square(3).twice) == 18
    both = lambda it: (isinstance(it, Base), isinstance(it, HasArea))
    assert run(ex, both, Square(1)) == (True, True)
    assert run(ex, lambda: (isinstance(1, Base), isinstance(1, HasArea))) == (False, False)
    assert run(ex, lambda: isinstance(Registered(), Base))
    error = raised(ex, lambda: Base())
    assert "abstract" in str(error), error
    back = run(ex, Square, 2)
    assert isinstance(back, Base)
    assert isinstance(back, HasArea)


class Slotted:
    __slots__ = ("__weakref__", "_hidden", "left", "unset")

    def __init__(self, left):
        self.left = left
        self._hidden = 1


class SlottedMore(Slotted):
    __slots__ = "right"  # noqa: PLC0205

    def __init__(self, left, right):
        super().__init__(left)
        self.right = right


class WithState:
    def __init__(self):
        self.lock = threading.Lock()
        self.value = 1

    def __getstate__(self):
        return {"value": self.value}

    def __setstate__(self, state):
        self.__init__()
        self.value = state["value"] + 1


class Reduced:
    def __init__(self, a, b):
        self.sum = a + b

    def __reduce__(self):
        return Reduced, (self.sum, 0)


class OnlyOne:
    def __reduce__(self):
        return "ONLY"


ONLY = OnlyOne()


class Foreign:
    def __init__(self, text):
        self.text = text
        self.lock = threading.Lock()


def make_foreign(text):
    return Foreign(text + "!")


copyreg.pickle(Foreign, lambda it: (make_foreign, (it.text,)))


class WithArguments:
    def __new__(cls, a, *, b):
        it = super().__new__(cls)
        it.made = (a, b)
        return it

    def __getnewargs_ex__(self):
        return (self.made[0],), {"b": self.made[1]}


@case
def slots_and_states(ex):
    back = run(ex, lambda s: s, SlottedMore(1, 2))
    assert (back.left, back.right, back._hidden, hasattr(back, "unset")) == (1, 2, 1, False)
    assert type(back) is SlottedMore
    assert run(ex, lambda s: hasattr(s, "__dict__"), Slotted(1)) is False
    assert run(ex, lambda w: w.value, WithState()) == 2
    assert run(ex, WithState).value == 2
    assert run(ex, lambda r: r.sum, Reduced(1, 2)) == 3
    assert run(ex, lambda f: f.text, Foreign("a")) == "a!"
    assert run(ex, lambda it: (it, it is ONLY), ONLY) == (ONLY, True)
    assert run(ex, lambda w: w, WithArguments(1, b=2)).made == (1, 2)


class Meta(type):
    made = []

    def __new__(mcs, name, bases, namespace, **keywords):
        cls = super().__new__(mcs, name, bases, namespace)
        cls.keywords = keywords
        mcs.made.append(name)
        return cls

    def __init__(cls, name, bases, namespace, **keywords):
        super().__init__(name, bases, namespace)

    def __len__(cls):
        return len(cls.keywords)

    @property
    def title(cls):
        return cls.__name__.upper()


class Made(metaclass=Meta, colour="red"):
    value = 1

    def name(self):
        return type(self).title


class Plugin:
    known = {}

    def __init_subclass__(cls, /, name=None, **keywords):
        super().__init_subclass__(**keywords)
        cls.known[name] = cls.__name__
        cls.plugin = name


class First(Plugin, name="first"):
    pass


class Indexed:
    def __class_getitem__(cls, item):
        return f"{cls.__name__} of {item}"


@case
def metaclasses_and_hooks(ex):
    assert run(ex, Made().name) == "MADE"
    assert run(ex, lambda: (len(Made), Made.title, Made.keywords, type(Made) is Meta)) == (
        *(1, "MADE", {"colour": "red"}, True),
    )
    assert type(run(ex, Made)) is Made
    assert run(ex, lambda: (First.plugin, First.known)) == ("first", {"first": "First"})
    assert First.plugin == "first"
    assert run(ex, lambda: Indexed[3]) == "Indexed of 3"
    assert run(ex, lambda: Meta.made) == ["Made"]
    assert Meta.made == ["Made"]


T = TypeVar("T")
N = TypeVar("N", int, float)
P = typing.ParamSpec("P")
Ts = typing.TypeVarTuple("Ts")
UserId = typing.NewType("UserId", int)
Points = list["Point"]


class Stack(Generic[T]):
    def __init__(self, items: list[T]) -> None:
        self.items = items

    def top(self) -> T:
        return self.items[-1]


class Numbers(Stack[N]):
    pass


class Ints(Numbers[int]):
    pass


def typed(function: typing.Callable[P, T], *rest: typing.Unpack[Ts]) -> UserId:
    return UserId(len(rest))


@case
def generic_classes(ex):
    assert run(ex, Stack[int]([1, 2]).top) == 2
    assert type(run(ex, Ints, [1])) is Ints
    assert run(ex, lambda: (Stack[int].__origin__ is Stack, Stack.__parameters__ == (T,)))
    assert run(ex, lambda: Stack[T].__args__[0] is T)
    assert run(ex, lambda x: x, T) is T
    assert run(ex, lambda x: x, P) is P
    assert run(ex, lambda x: x, Ts) is Ts
    assert run(ex, lambda x: x, Stack[int]) == Stack[int]
    assert run(ex, typed, None, 1, 2) == 2
    assert run(ex, lambda: UserId(3)) == 3
    assert run(ex, lambda: typing.get_args(Numbers[int])) == (int,)
    assert run(ex, lambda: Points) == Points


class Positive:
    def __set_name__(self, owner, name):
        self.name = f"_{name}"

    def __get__(self, instance, owner=None):
        return self if instance is None else getattr(instance, self.name)

    def __set__(self, instance, value):
        if value < 0:
            raise ValueError(self.name)
        setattr(instance, self.name, value)


class Checked:
    size = Positive()

    def __init__(self, size):
        self.size = size

    @property
    def area(self):
        """Its documentation."""
        return self.size**2

    @area.setter
    def area(self, value):
        self.size = int(value**0.5)

    def __getattr__(self, name):
        if name.startswith("virtual_"):
            return name
        raise AttributeError(name)


@case
def descriptors_and_properties(ex):
    def use(it):
        it.area = 16
        return it.size, it.area, it.virtual_x

    assert run(ex, use, Checked(1)) == (4, 16, "virtual_x")
    assert type(raised(ex, Checked, -1)) is ValueError
    assert run(ex, lambda: Checked.area.__doc__) == "Its documentation."
    assert type(run(ex, Checked, 1)) is Checked


class Tree:
    def __init__(self, *children):
        self.children = [Leaf(self, child) for child in children]


class Leaf:
    def __init__(self, tree, value):
        self.tree = tree
        self.value = value

    def sisters(self):
        return [leaf.value for leaf in self.tree.children if leaf is not self]

    def plant(self):
        return Tree(self.value)

    class Nested:
        class Deeper:
            value = 5

    own: "type[Leaf]"


Leaf.own = Leaf


@case
def classes_that_refer_to_each_other(ex):
    tree = run(ex, Tree, 1, 2)
    assert type(tree.children[0]) is Leaf
    assert run(ex, tree.children[0].sisters) == [2]
    assert type(run(ex, tree.children[0].plant)) is Tree
    assert run(ex, lambda: Leaf.Nested.Deeper().value) == 5
    assert type(run(ex, Leaf.Nested.Deeper)) is Leaf.Nested.Deeper
    assert run(ex, lambda: Leaf.own is Leaf)
    it = Account(1)
    it.me = it
    back = run(ex, lambda x: (x, x.me is x), it)
    assert back[1]
    assert back[0].me is back[0]


@case
def local_classes(ex):
    class Local:
        count = 1

        def __init__(self, value):
            self.value = value

        def again(self):
            return Local(self.value + self.count)

    class Derived(Local):
        def again(self):
            return super().again()

    assert run(ex, Local(1).again).value == 2
    assert type(run(ex, Local(1).again)) is Local
    assert type(run(ex, Derived(1).again)) is Local
    assert isinstance(run(ex, Derived, 1), Local)

    def make():
        class There:
            def number(self):
                return FACTOR

        return There()

    there = run(ex, make)
    assert there.number() == FACTOR
    back = run(ex, lambda x: x, there)
    assert type(back) is type(there), "a class that was made on a pod is one class here"


@case
def classes_derived_from_others(ex):
    class Text(str):
        __slots__ = ("extra",)

    class Numbered(dict):
        def __missing__(self, key):
            return len(self)

    class Thread(threading.Thread):
        def run(self):
            self.result = FACTOR

    class Json(json.JSONEncoder):
        def default(self, o):
            return "other"

    text = Text("a")
    text.extra = 1
    back = run(ex, lambda t: t, text)
    assert (back, back.extra, type(back)) == ("a", 1, Text)
    assert run(ex, lambda n: n["b"], Numbered(a=1)) == 1
    assert run(ex, lambda: json.dumps([object()], cls=Json)) == '["other"]'

    def in_a_thread():
        thread = Thread()
        thread.start()
        thread.join()
        return thread.result

    assert run(ex, in_a_thread) == FACTOR


# --- one class, and what is changed in it


class Settings:
    limit = 1
    names = []
    extra = "there"

    def read(self):
        return self.limit, FACTOR


def read_settings():
    return Settings.limit, list(Settings.names), getattr(Settings, "extra", None)


@case
def class_attributes_that_change(ex):
    assert run(ex, read_settings) == (1, [], "there")
    Settings.limit = 2
    assert run(ex, read_settings) == (2, [], "there")
    assert run(ex, Settings().read) == (2, FACTOR)
    Settings.limit, Settings.names = 3, ["a"]
    del Settings.extra
    assert run(ex, Settings().read)[0] == 3
    assert run(ex, read_settings) == (3, ["a"], None)
    assert [limit for limit, _ in ex.map(Settings.read, [Settings()])] == [3]
    Settings.describe = lambda self: f"limit {self.limit}"
    assert run(ex, lambda: Settings().describe()) == "limit 3"
    assert run(ex, Settings().describe) == "limit 3"


@case
def what_comes_back_changes_no_class_here(ex):
    future = ex.submit(lambda: (time.sleep(0.1), Settings())[1])
    Settings.limit = 50
    method = Settings.read
    assert type(future.result(WAIT)) is Settings
    assert Settings.limit == 50
    assert Settings.read is method
    assert Settings.read.__globals__ is globals()

    def change():
        Settings.limit = 99
        return Settings()

    assert run(ex, change).limit == 50


@case
def isinstance_holds_across_calls(ex):
    def remember(it):
        import builtins

        builtins.remembered = it
        return True

    def compare(it):
        import builtins

        before = builtins.remembered
        del builtins.remembered
        return type(before) is type(it), isinstance(before, Point), type(before) is Point

    assert run(ex, remember, Point(1))
    assert run(ex, compare, Point(2)) == (True, True, True)
    types = set(ex.map(type, [Point(1), Point(2), Point(3)]))
    assert types == {Point}
    assert run(ex, lambda cls: isinstance(Point(1), cls), Point)
    assert run(ex, lambda: Point) is Point


# --- globals

count = 0
shared_list = []
aliases = {"list": shared_list}
SENTINEL = object()
later = None


def increment():
    global count
    count += 1
    shared_list.append(count)
    return count


def look_at_count():
    return count, list(shared_list)


def is_sentinel(it=SENTINEL):
    return it is SENTINEL


def append_to(items=shared_list):
    return items is shared_list


@case
def functions_share_their_globals(ex):
    first = run(ex, increment)
    assert run(ex, look_at_count)[0] == first, "in one process, as in a process pool"
    assert run(ex, lambda: (increment(), look_at_count()[0])) == (first + 1, first + 1)
    assert (count, shared_list) == (0, [])
    assert run(ex, is_sentinel)
    assert run(ex, lambda: is_sentinel(SENTINEL))
    assert run(ex, append_to)
    assert run(ex, lambda: aliases["list"] is shared_list)


@case
def globals_that_are_rebound(ex):
    global later
    results = []
    for value in range(5):
        later = value
        results.append(ex.submit(lambda: later))
    assert [result.result(WAIT) for result in results] == [0, 1, 2, 3, 4]

    def read():
        return later

    later = "a"
    before = ex.submit(read)
    later = "b"
    after = ex.submit(read)
    assert (before.result(WAIT), after.result(WAIT)) == ("a", "b")
    later = {"a": 1}
    assert list(ex.map(lambda x: later["a"] + x, [1])) == [2]
    later["a"] = 5
    assert list(ex.map(lambda x: later["a"] + x, [1])) == [6], "changed in place, seen by map"
    later = lambda: FACTOR
    assert run(ex, lambda: later()) == FACTOR


def read_later():
    return later


class Reader:
    def read(self):
        return read_later()


@case
def what_methods_and_helpers_read_is_rebound(ex):
    global later
    later = 1
    assert run(ex, Reader().read) == 1
    later = 2
    assert run(ex, Reader().read) == 2
    assert run(ex, lambda: Reader().read()) == 2
    later = 3
    assert run(ex, lambda r: r.read(), Reader()) == 3
    assert list(ex.map(Reader.read, [Reader()])) == [3]


def reader():
    return later


@case
def globals_that_are_redefined(ex):
    global later, reader
    later = "first"
    call = lambda: reader()
    assert run(ex, call) == "first"

    def reader():
        return f"anew {later}"

    assert run(ex, call) == "anew first"


prepared = None
resources = {}


def prepare(value):
    global prepared, made_by_the_initializer
    prepared = value
    made_by_the_initializer = [value]
    resources["value"] = value


def use_prepared():
    return prepared, made_by_the_initializer, resources


@case
def what_an_initializer_prepares(ex):
    with K8sRabbitExecutor(1, initializer=prepare, initargs=(Point(1),)) as prepared_executor:
        point = Point(1)
        assert run(prepared_executor, use_prepared) == (point, [point], {"value": point})
        assert run(prepared_executor, lambda: (prepared, resources["value"].x)) == (point, 1)
        assert next(prepared_executor.map(lambda x: prepared.x + x, [1])) == 2
    assert prepared is None
    assert run(ex, lambda: (prepared, resources)) == (None, {})


@case
def modules_under_other_names(ex):
    assert run(ex, lambda: paths.join("a", "b")) == "a/b"
    assert run(ex, lambda: xml.dom.minidom.parseString("<a/>").documentElement.tagName) == "a"
    assert run(ex, lambda: re.sub("a", "b", "a")) == "b"
    assert run(ex, lambda m: m.getcwd() is not None, os)
    assert run(ex, logging.getLogger, "a").name == "a"


@case
def the_main_module_of_a_call(ex):
    def look():
        import __main__

        return __main__.FACTOR, __name__, scaled.__module__, pickle.loads(pickle.dumps(scaled))(1)

    assert run(ex, look) == (FACTOR, "__main__", "__main__", 3)
    assert run(ex, lambda: pickle.loads(pickle.dumps(Point(1))) == Point(1))


@case
def processes_that_a_call_starts(ex):
    def start():
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return pool.apply(abs, (-1,))

    assert run(ex, start) == 1


def scaled_twice(x):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.map(scaled, [scaled(x)]) + pool.map(Point, [x])


def in_processes(method, function, *args):
    context = multiprocessing.get_context(method)
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *args).result(30)


@case
def definitions_in_processes_that_a_call_starts_anew(ex):
    for method in ("fork", "spawn", "forkserver"):
        assert run(ex, in_processes, method, scaled, 1) == 3
        assert run(ex, in_processes, method, Point, 1) == Point(1)
        assert run(ex, in_processes, method, scaled_twice, 1) == [9, Point(1)]


def with_a_lock(x):
    return (x, lock)


def with_what_cannot_come_along():
    global lock
    lock = threading.Lock()
    assert in_processes("spawn", scaled, 1) == 3
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=with_a_lock, args=(1,))
    process.start()
    process.join()
    return process.exitcode


@case
def what_cannot_come_along_to_them_takes_nothing_else_with_it(ex):
    assert run(ex, with_what_cannot_come_along) == 1


def hinted(point: "Point", colours: "list[Colour] | None" = None) -> "Frozen":
    return Frozen(point.x)


def hinted_plainly(point: Point, colour: Colour = Colour.RED) -> Frozen:
    return Frozen(point.x)


class OnlyInAnnotations:
    pass


def annotated(x: OnlyInAnnotations, *, y: "OnlyInAnnotations | None" = None) -> OnlyInAnnotations:
    value: OnlyInAnnotations = x
    return value


@case
def type_hints(ex):
    assert run(ex, hinted, Point(1)) == Frozen(1)
    assert run(ex, hinted_plainly, Point(1)) == Frozen(1)
    assert run(ex, annotated, 5) == 5
    assert run(ex, lambda: typing.get_type_hints(hinted)["return"] is Frozen)
    assert run(ex, lambda: typing.get_type_hints(hinted_plainly)["point"] is Point)
    assert run(ex, lambda: typing.get_type_hints(Named)["second"]) == (Point | None)
    assert run(ex, lambda: list(inspect.signature(hinted).parameters)) == ["point", "colours"]
    assert run(ex, lambda: typing.get_type_hints(Pair)["right"] is Point)


def defaults(a, b=[1], /, c=FACTOR, *args, d=Account(1), e=None, **kwargs):  # noqa: B006, B008
    return a, b, c, args, d, e, kwargs


@case
def default_arguments(ex):
    assert run(ex, defaults, 0) == (0, [1], 3, (), Account(1), None, {})
    assert run(ex, defaults, 0, [], 1, 2, d=3, f=4) == (0, [], 1, (2,), 3, None, {"f": 4})


def strategy_one():
    return 1


def strategy_two():
    return 2


NAMES = {strategy_one: "one", strategy_two: "two", Point: "point"}


@case
def functions_and_classes_are_themselves(ex):
    assert run(ex, lambda f: (f is strategy_one, NAMES[f], f()), strategy_one) == (True, "one", 1)
    assert run(ex, lambda f: NAMES[f], Point) == "point"
    assert run(ex, lambda: [strategy_two, Account.interest]) == [strategy_two, Account.interest]
    assert run(ex, lambda f: f is decorated, decorated)
    assert run(ex, lambda: decorated) is decorated
    assert list(ex.map(lambda f: f is strategy_two, [strategy_two])) == [True]


# --- exceptions


class Plain(Exception):
    pass


class TwoArguments(Exception):
    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")
        self.first, self.second = first, second


class KeywordsOnly(ValueError):
    def __init__(self, *, code, colour=Colour.RED):
        super().__init__(f"code {code}")
        self.code, self.colour = code, colour


class WithItems(KeyError):
    def __init__(self, items):
        self.items = items

    def __str__(self):
        return f"{len(self.items)} items"


class NotThere(OSError):
    def __init__(self, path):
        super().__init__(2, "not there", path)
        self.path = path


class Many(ExceptionGroup):
    def derive(self, excs):
        return Many(self.message, excs)


def fail(error, cause=None):
    raise error from cause


@case
def exceptions_with_constructors_of_their_own(ex):
    error = raised(ex, fail, Plain("a"))
    assert (type(error), error.args) == (Plain, ("a",))
    error = raised(ex, fail, TwoArguments(1, Point(2)))
    assert (type(error), error.second, str(error)) == (TwoArguments, Point(2), f"1 and {Point(2)}")
    error = raised(ex, lambda: fail(KeywordsOnly(code=5, colour=Colour.GREEN)))
    assert (type(error), error.code) == (KeywordsOnly, 5)
    assert error.colour is Colour.GREEN
    error = raised(ex, lambda: fail(WithItems([1, 2])))
    assert (type(error), error.items, str(error)) == (WithItems, [1, 2], "2 items")
    error = raised(ex, lambda: fail(Plain("a"), TwoArguments(1, 2)))
    assert type(error.__cause__) is TwoArguments
    back = run(ex, lambda e: e, TwoArguments(1, 2))
    assert (type(back), back.first) == (TwoArguments, 1)
    for back in (run(ex, lambda e: e, NotThere("p")), raised(ex, fail, NotThere("p"))):
        assert (type(back), back.errno, back.filename, back.path) == (NotThere, 2, "p", "p")
        assert str(back) == str(NotThere("p"))


@case
def exception_groups(ex):
    def several():
        raise ExceptionGroup("several", [TwoArguments(1, 2), KeywordsOnly(code=3)])

    error = raised(ex, several)
    assert [type(one) for one in error.exceptions] == [TwoArguments, KeywordsOnly]
    assert error.exceptions[1].code == 3
    error = raised(ex, lambda: fail(Many("many", [Plain("a")])))
    assert type(error) is Many
    try:
        fail(error)
    except* Plain as caught:
        assert type(caught) is Many


# --- the report


def report(write):
    with K8sRabbitExecutor(1) as ex:
        for one in CASES:
            try:
                one(ex)
            except BaseException:
                told = traceback.format_exc()
            else:
                told = None
            write(json.dumps({"case": one.__name__, "error": told}) + "\n")


if "K8SFUTURES_TEST_REPORT" in os.environ:
    with open(os.environ["K8SFUTURES_TEST_REPORT"], "w", encoding="utf-8") as stream:
        report(stream.write)
