"""pandas and Arrow: what travels of them is equal at the other end, and not copied into pickles."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from k8sfutures.messages import INLINE_LIMIT
from k8sfutures.serialization import split

pytestmark = pytest.mark.timeout(60)

SMALL = 100
BIG = 400_000  # rows; a byte of each makes more than INLINE_LIMIT


def numbers(rows: int) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "integer": np.arange(rows),
            "float": np.arange(rows) / 7,
            "small": np.arange(rows, dtype=np.int8),
            "truth": np.arange(rows) % 3 == 0,
        }
    )


def texts(rows: int) -> pd.DataFrame:
    return pd.DataFrame({"text": [f"ä{n}" for n in range(100)] * (rows // 100)})


def times(rows: int) -> pd.DataFrame:
    index = pd.date_range("2026-01-01", periods=rows, freq="min", tz="Europe/Berlin", name="when")
    return pd.DataFrame({"value": np.arange(rows, dtype=np.float32)}, index=index)


def categories(rows: int) -> pd.DataFrame:
    return pd.DataFrame({"kind": pd.Categorical.from_codes(np.arange(rows) % 3, ["a", "b", "c"])})


def levels(rows: int) -> pd.DataFrame:
    index = pd.MultiIndex.from_arrays([np.arange(rows) // 4, np.arange(rows) % 4], names=["a", "b"])
    return pd.DataFrame({"value": np.arange(rows)}, index=index)


def missing(rows: int) -> pd.DataFrame:
    values = pd.array(np.arange(rows), dtype="Int64")
    values[3] = pd.NA
    return pd.DataFrame({"whole": values, "half": np.where(np.arange(rows) % 2, np.nan, 1.5)})


def arrow_backed(rows: int) -> pd.DataFrame:
    return table(rows).select(["id", "text"]).to_pandas(types_mapper=pd.ArrowDtype)


def series(rows: int) -> pd.Series:
    return pd.Series(np.arange(rows) / 3, name="thirds")


def categorical(rows: int) -> pd.Categorical:
    return categories(rows)["kind"].array


def index(rows: int) -> pd.Index:
    return times(rows).index


def table(rows: int) -> pa.Table:
    ids = np.arange(rows)
    words = pa.array([None, *(f"ä{n}" for n in range(999))])
    return pa.table(
        {
            "id": pa.array(ids),
            "text": words.take(pa.array(ids % 1000)),
            "coded": pa.DictionaryArray.from_arrays(pa.array(ids % 2), ["x", "y"]),
            "list": pa.ListArray.from_arrays(pa.array(np.arange(rows + 1) // 2 * 2), ids),
        }
    ).replace_schema_metadata({"made": "by hand"})


def chunked(rows: int) -> pa.Table:
    return pa.concat_tables([table(rows // 2), table(rows // 2)])


def batch(rows: int) -> pa.RecordBatch:
    return table(rows).to_batches()[0]


def array(rows: int) -> pa.Array:
    return pa.array(np.arange(rows))


FRAMES = [numbers, texts, times, categories, levels, missing, arrow_backed]
KINDS = [*FRAMES, series, categorical, index, table, chunked, batch, array]
SIZES = pytest.mark.parametrize("rows", [SMALL, BIG])
ALL_KINDS = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)

GLOBAL = None  # what `use_global` uses


def assert_same(one: Any, other: Any) -> None:
    """Not by pandas.testing, which takes seconds for what is bulky."""
    assert type(one) is type(other)
    assert one.equals(other)
    if isinstance(one, pa.Table | pa.RecordBatch):
        assert one.schema.equals(other.schema, check_metadata=True)
    elif isinstance(one, pd.DataFrame):
        assert list(one.dtypes) == list(other.dtypes)
        assert_same(one.index, other.index)
    elif not isinstance(one, pa.Array):
        assert one.dtype == other.dtype
    if isinstance(one, pd.Index):
        assert one.names == other.names
        assert getattr(one, "freq", None) == getattr(other, "freq", None)


def blocks(thing: pd.DataFrame | pd.Series) -> list[np.ndarray]:
    """Its own arrays, as far as they are NumPy's; pandas gives others views that are read-only."""
    found = [block.values for block in thing._mgr.blocks]  # noqa: PD011
    return [values for values in found if isinstance(values, np.ndarray)]


def writable(thing: pd.DataFrame | pd.Series) -> list[bool]:
    return [values.flags.writeable for values in blocks(thing)]


def change(frame: pd.DataFrame) -> tuple[list[bool], Any, Any]:
    """Writability, the first value, and that value once it has been changed."""
    before, flags = frame.iloc[0, 0], writable(frame)
    frame.iloc[0, 0] = frame.iloc[1, 0]
    return flags, before, frame.iloc[0, 0]


def use_global() -> Any:
    return GLOBAL


@pytest.fixture(scope="module")
def ex(cluster):
    with cluster.executor(**cluster.data_settings()) as running:
        yield running


class TestThereAndBack:
    @SIZES
    @ALL_KINDS
    def test_arguments_and_results_are_equal(
        self, ex, kind: Callable[[int], object], rows: int
    ) -> None:
        thing = kind(rows)
        assert_same(ex.submit(lambda it: it, thing).result(), thing)

    @SIZES
    def test_all_of_them_in_a_map(self, ex, rows: int) -> None:
        things = [kind(rows) for kind in KINDS]
        for thing, back in zip(things, ex.map(lambda it: [it], things), strict=True):
            assert_same(back[0], thing)

    @SIZES
    @pytest.mark.parametrize("kind", [numbers, categories, table], ids=lambda kind: kind.__name__)
    def test_globals_are_equal_and_may_change(
        self, ex, monkeypatch, kind: Callable[[int], object], rows: int
    ) -> None:
        for more in (0, 2):
            thing = kind(rows + more)
            monkeypatch.setitem(globals(), "GLOBAL", thing)
            assert_same(ex.submit(use_global).result(), thing)

    @SIZES
    @pytest.mark.parametrize("kind", FRAMES, ids=lambda kind: kind.__name__)
    def test_frames_can_be_changed_as_those_of_the_standard_library(
        self, ex, kind: Callable[[int], pd.DataFrame], rows: int
    ) -> None:
        frame = kind(rows)
        theirs = writable(pickle.loads(pickle.dumps(frame)))
        for _ in range(2):  # what a call changes, no other one sees
            flags, before, after = ex.submit(change, frame).result()
            assert flags == theirs
            assert before == frame.iloc[0, 0]
            assert after == frame.iloc[1, 0]
        back = ex.submit(kind, rows).result()
        assert writable(back) == theirs
        back.iloc[0, 0] = back.iloc[1, 0]
        assert back.iloc[0, 0] == frame.iloc[1, 0]


@ALL_KINDS
def test_what_is_bulky_stays_out_of_the_pickle(kind: Callable[[int], object]) -> None:
    thing = kind(BIG)
    (pickled,), buffers = split(thing, INLINE_LIMIT)
    assert len(pickled) < INLINE_LIMIT
    apart = sum(buffer.raw().nbytes for buffer in buffers)
    assert len(pickled) + apart >= len(pickle.dumps(thing, 5)) * 0.99
