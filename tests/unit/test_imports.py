"""What code imports, read from its source or its bytecode."""

import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k8sfutures.imports import imports, imports_of_code, likely_imports, note_imports, take_noted


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import a", {"a"}),
        ("import a.b.c as d, e", {"a.b.c", "e"}),
        ("import a, \\\n    b", {"a", "b"}),
        ("x = 1; import a", {"a"}),
        ("if x: import a", {"a"}),
        ("def f():\n    import a", {"a"}),
        ("try:\n    import a\nexcept ImportError:\n    import b", {"a", "b"}),
        ("from a import b, c", {"a", "a.b", "a.c"}),
        ("from a.b import (\n    c,\n    d as e,\n)", {"a.b", "a.b.c", "a.b.d"}),
        ("from a \\\n    import b", {"a", "a.b"}),
        ("from . import b", {"pkg.sub", "pkg.sub.b"}),
        ("from .a import b", {"pkg.sub.a", "pkg.sub.a.b"}),
        ("from .. import b", {"pkg", "pkg.b"}),
        ("from ... import b", set()),
        ("importlib.import_module('a.b')", {"a.b"}),
        ("import_module('a')", {"a"}),
        ("__import__('a')", {"a"}),
        ("import_module(name)", set()),
        ('"""\nimport a\nfrom b import c\n"""', set()),
        ("# import a", set()),
        ("if TYPE_CHECKING:\n    import a\nelse:\n    import b", {"b"}),
        ("if typing.TYPE_CHECKING:\n    from a import b", set()),
        ("not Python", set()),
        ("\0", set()),
    ],
)
def test_imports_of_a_source(source: str, names: set[str]) -> None:
    assert imports(source.encode(), "pkg.sub") == names


NAMES = st.from_regex(r"\A[a-z]{1,4}(\.[a-z]{1,4}){0,2}\Z")
SPACE = st.sampled_from([" ", "  ", "\t", " \\\n "])


@st.composite
def statements(draw):
    gap = draw(SPACE)
    names = draw(st.lists(NAMES, min_size=1, max_size=3))
    plain = f"import{gap}" + f"{gap},{gap}".join(names)
    taken = draw(st.sampled_from(["", ".", ".."])) + names[0]
    return draw(
        st.sampled_from(
            [
                plain,
                f"x=1;{plain}",
                f"if x:{plain}",
                f"def f():\n\t{plain}",
                f"from{gap}{taken}{gap}import{gap}x",
                f"import_module('{names[0]}')",
            ]
        )
    )


@given(st.lists(statements(), max_size=4))
def test_likely_imports_miss_none(lines: list[str]) -> None:
    source = "\n".join(lines).encode()
    likely = likely_imports(source)
    tops = {name.partition(".")[0] for name in likely if not name.startswith(".")}
    assert {name.partition(".")[0] for name in imports(source, "")} <= tops


def test_likely_imports_know_relative_ones() -> None:
    assert likely_imports(b"from . import a\nfrom ..b import c") == {".", "..b"}


def test_imports_of_code() -> None:
    def function():
        import collections.abc
        from os import path

        def inner():
            import json  # noqa: F401

        return collections, path, inner

    assert imports_of_code(function.__code__) == {"collections.abc", "os", "os.path"}
    assert imports_of_code((lambda: 1).__code__) == set()


def test_imports_of_code_with_many_names() -> None:
    lines = "".join(f"x.name{number}\n" for number in range(300))
    code = compile(textwrap.dedent(lines) + "import last", "<test>", "exec")
    assert imports_of_code(code) == {"last"}


def test_noted_imports_are_taken_once() -> None:
    take_noted()
    note_imports(compile("import a", "<test>", "exec"))
    note_imports(compile("import b", "<test>", "exec"))
    assert take_noted() == {"a", "b"}
    assert take_noted() == set()
