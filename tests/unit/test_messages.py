"""The wire: what is sent comes back, and nothing else ever comes out of a decoder."""

import dataclasses
import hmac
import pickle
import tracemalloc
from pathlib import Path

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k8sfutures import messages
from k8sfutures.chunks import AT_FIRST, Assembly
from k8sfutures.codec import Codec, derive_key
from k8sfutures.errors import MessageError
from k8sfutures.lanes import Bulk
from k8sfutures.messages import (
    CHUNK_SIZE,
    LARGEST,
    PROTOCOL,
    Attach,
    Cancel,
    Chunk,
    Credit,
    Detach,
    Goodbye,
    Group,
    Held,
    Hello,
    Left,
    NotInitialized,
    Occupied,
    Printed,
    Recall,
    Renew,
    Results,
    Returned,
    Versions,
    Yield,
)

ROOT = Path(__file__).parents[2]
KEY = b"k" * 32
MAGIC = b"k8f" + bytes([PROTOCOL])
ATTACH = Attach(("3.11", PROTOCOL, "3.1"), 0, 60.0, None, None)
quick = settings(deadline=None, derandomize=True, database=None, max_examples=150)

ints = st.integers(0, (1 << 64) - 1)
sizes = st.integers(0, LARGEST)
texts = st.text(max_size=10)
bodies = st.binary(max_size=40)
calls = st.lists(st.tuples(ints, ints, ints, bodies | st.none()), max_size=3)
versions = st.tuples(texts, ints, texts)
MESSAGES = {
    Attach: st.builds(
        Attach,
        *(versions, ints, st.floats(0, 1e9) | ints),
        *(bodies | st.none(), ints | st.none(), bodies | st.none(), bodies | st.none()),
        st.tuples(texts, ints) | st.none(),
    ),
    Group: st.builds(
        Group,
        ints,
        st.dictionaries(ints, bodies, max_size=3),
        st.lists(ints),
        st.dictionaries(texts, st.tuples(ints, calls), max_size=3),
        st.dictionaries(ints, st.lists(ints, max_size=3), max_size=3),
        st.dictionaries(ints, st.floats(0, 1e9), max_size=3),
    ),
    Renew: st.builds(Renew, ints, ints, st.lists(ints), bodies | st.none()),
    Recall: st.builds(Recall, st.lists(ints)),
    Detach: st.builds(Detach, ints),
    Chunk: st.builds(Chunk, ints, st.integers(-1, 100), sizes, sizes, bodies),
    Hello: st.builds(
        Hello,
        texts,
        texts,
        ints,
        st.lists(ints),
        versions,
        st.booleans(),
        ints,
        st.lists(ints),
        ints,
        st.dictionaries(texts, texts, max_size=3),
        ints,
        st.lists(ints),
        texts,
    ),
    Results: st.builds(
        Results, ints, st.lists(st.tuples(ints, ints, ints, ints, bodies | st.none()), max_size=3)
    ),
    Returned: st.builds(Returned, st.lists(ints), st.booleans()),
    NotInitialized: st.builds(NotInitialized, ints, ints, bodies),
    Goodbye: st.builds(Goodbye, texts),
    Yield: st.builds(Yield, texts),
    Credit: st.builds(Credit, ints),
    Cancel: st.builds(Cancel, st.lists(ints)),
    Held: st.builds(Held),
    Left: st.just(Left()),
    Occupied: st.builds(
        Occupied, st.lists(st.tuples(texts, ints, st.floats(allow_nan=False)), max_size=3)
    ),
    Printed: st.builds(
        Printed,
        ints,
        st.lists(st.tuples(ints, ints, ints, ints, st.binary(max_size=9)), max_size=3),
    ),
}
any_message = st.one_of(*MESSAGES.values())
values = st.recursive(
    st.none() | st.booleans() | ints | st.floats() | texts | bodies,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(ints | texts, inner, max_size=3)
        | st.builds(msgpack.ExtType, st.integers(0, 127), bodies)
    ),
    max_leaves=12,
)


def sign(content: bytes, key: bytes = KEY) -> bytes:
    return hmac.digest(key, MAGIC + content, "sha256") + MAGIC + content


@pytest.fixture(autouse=True)
def nothing_is_unpickled(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("unpickled")

    monkeypatch.setattr(pickle, "loads", refuse)
    monkeypatch.setattr(pickle, "Unpickler", refuse)


class Exploding:
    def __reduce__(self):
        return exec, ("raise AssertionError('unpickled')",)


class TestRoundTrip:
    def test_every_message_is_tried(self):
        assert set(MESSAGES) == set(messages.Message.__args__)
        assert len({cls.kind for cls in MESSAGES}) == len(MESSAGES)

    @pytest.mark.parametrize("cls", MESSAGES, ids=lambda cls: cls.__name__)
    def test_what_is_sent_comes_back(self, cls):
        @quick
        @given(MESSAGES[cls], texts)
        def check(message, sender):
            envelope = Codec(KEY, "receiver").decode(Codec(KEY, sender).encode(message, "receiver"))
            assert envelope.sender == sender
            assert envelope.message == message
            for field in dataclasses.fields(message):
                sent, got = getattr(message, field.name), getattr(envelope.message, field.name)
                # A tail is not copied out of the message that it came in.
                assert type(sent) is type(got) or field.name == "tail"

        check()

    def test_pickles_inside_stay_bytes(self):
        body = pickle.dumps(Exploding())
        message = Group(1, {1: body}, [], {"pod": (1, [(1, 1, 0, body)])}, {1: [2]})
        assert Codec(KEY, "a").decode(Codec(KEY, "c").encode(message, "a")).message == message


class TestRefused:
    def refused(self, body, codec=None):
        with pytest.raises(MessageError) as caught:
            (codec or Codec(KEY, "pod")).decode(body)
        return str(caught.value)

    def test_another_key(self):
        assert "signature" in self.refused(Codec(b"x" * 32, "c").encode(Renew(1, 2, []), "pod"))

    def test_another_protocol(self):
        body = bytearray(Codec(KEY, "c").encode(Renew(1, 2, []), "pod"))
        body[35] += 1
        assert "signature" in self.refused(bytes(body)), "it may be anybody's"
        body[:32] = hmac.digest(KEY, bytes(body[32:]), "sha256")
        assert f"protocol {PROTOCOL + 1}" in self.refused(bytes(body))

    def test_repeated(self):
        codec, body = Codec(KEY, "pod"), Codec(KEY, "c").encode(Renew(1, 2, []), "pod")
        codec.decode(body)
        assert "repeats" in self.refused(body, codec)

    def test_older(self):
        codec, sender = Codec(KEY, "pod"), Codec(KEY, "c")
        first, second = sender.encode(Renew(1, 2, []), "pod"), sender.encode(Renew(1, 2, []), "pod")
        codec.decode(second)
        assert "precedes" in self.refused(first, codec)

    def test_counters_are_by_sender(self):
        codec = Codec(KEY, "pod")
        for name in ("a", "b"):
            codec.decode(Codec(KEY, name).encode(Renew(1, 2, []), "pod"))

    def test_what_was_refused_does_not_count_as_seen(self):
        codec, good = Codec(KEY, "pod"), Codec(KEY, "c").encode(Renew(1, 2, []), "pod")
        self.refused(sign(msgpack.packb([3, "c", "pod", 7, "wrong", 0])), codec)
        codec.decode(good)

    @pytest.mark.parametrize("position", range(60))
    def test_any_byte_altered(self, position):
        body = bytearray(Codec(KEY, "c").encode(Renew(123456, 2, []), "pod"))
        body[position % len(body)] ^= 1 + position
        self.refused(bytes(body))

    def test_a_tail_altered(self):
        body = Codec(KEY, "c").encode(Chunk(1, -1, 0, 4, b"tail"), "pod")
        self.refused(body[:-1] + b"L")

    def test_truncated_or_extended(self):
        body = Codec(KEY, "c").encode(Results(1, [(1, 0, 0, 5, b"body")]), "pod")
        for length in range(len(body)):
            self.refused(body[:length])
        self.refused(body + b"x")

    @quick
    @given(st.binary(max_size=200), st.sampled_from([b"", b"k" * 32, b"k" * 32 + MAGIC]))
    def test_random_bytes(self, data, prefix):
        self.refused(prefix + data)

    @quick
    @given(values)
    def test_signed_content_that_is_no_message(self, content):
        self.refused_or_message(sign(msgpack.packb(content)))

    @settings(quick, max_examples=600)
    @given(
        st.integers(0, 15),
        texts,
        ints | st.integers(-5, 5),
        st.lists(values | ints | st.just([["3.13", 1, "3"]]), max_size=8),
        st.binary(max_size=3),
    )
    def test_signed_messages_of_any_shape(self, kind, sender, counter, fields, tail):
        self.refused_or_message(sign(msgpack.packb([kind, sender, "pod", counter, *fields]) + tail))

    @quick
    @given(st.binary(max_size=100))
    def test_signed_random_bytes(self, data):
        self.refused_or_message(sign(data))

    @quick
    @given(any_message, st.data())
    def test_signed_messages_with_a_field_replaced(self, message, data):
        raw = bytearray(Codec(KEY, "c").encode(message, "pod")[36:])
        for _ in range(data.draw(st.integers(1, 3))):
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
        self.refused_or_message(sign(bytes(raw)))

    def refused_or_message(self, body):
        try:
            envelope = Codec(KEY, "pod").decode(body)
        except MessageError:
            return
        # If it is taken for a message, it can be sent as one: every field has its type.
        again = Codec(KEY, envelope.sender).encode(envelope.message, "pod")
        assert str(Codec(KEY, "pod").decode(again)) == str(envelope)

    def test_an_array_that_claims_to_be_huge_allocates_nothing(self):
        self.refused(sign(b"\x95\x03\xa1c\x01\xdd\x7f\xff\xff\xff"))
        self.refused(sign(b"\xdd\xff\xff\xff\xff"))
        self.refused(sign(b"\xc6\xff\xff\xff\xff"))
        self.refused(sign(b"\x91" * 100_000))

    def test_more_behind_a_message(self):
        assert "more behind" in self.refused(
            sign(msgpack.packb([3, "c", "pod", 1, 0, 0, []]) + b"x")
        )

    def test_the_text_shows_none_of_the_bytes_of_a_body(self):
        text = self.refused(sign(msgpack.packb([10, "c", "pod", 1, "secret", "secret"])))
        assert "secret" not in text


def chunks_of(subject, item, body):
    bulk = Bulk(subject, item, body)
    return list(iter(bulk.next, None))


class TestChunks:
    @quick
    @given(st.integers(0, 10_000), st.integers(1, 300))
    def test_cut_and_put_together(self, size, chunk_size):
        body = bytes(index % 251 for index in range(size))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("k8sfutures.lanes.CHUNK_SIZE", chunk_size)
            patch.setattr("k8sfutures.chunks.CHUNK_SIZE", chunk_size)
            chunks = chunks_of(7, 2, body)
            assert all(len(chunk.tail) <= chunk_size for chunk in chunks)
            assembly = Assembly()
            complete = [assembly.add(chunk) for chunk in chunks]
        assert complete == [False] * (len(chunks) - 1) + [True]
        assert assembly.take(7, 2) == body
        assert assembly.take(7, 2) is None

    def test_a_big_body(self):
        body = b"01234567" * (CHUNK_SIZE // 4)
        chunks = chunks_of(1, 0, body)
        assert [len(chunk.tail) for chunk in chunks] == [CHUNK_SIZE, CHUNK_SIZE]
        sender, receiver, assembly = Codec(KEY, "c"), Codec(KEY, "pod"), Assembly()
        for chunk in chunks:
            assembly.add(receiver.decode(sender.encode(chunk, "pod")).message)
        assert assembly.take(1, 0) == body

    @pytest.fixture
    def tiny(self, monkeypatch):
        monkeypatch.setattr("k8sfutures.chunks.CHUNK_SIZE", 2)

    @pytest.mark.usefixtures("tiny")
    def test_bodies_do_not_mix(self):
        assembly = Assembly()
        for item in (0, 1, 2):
            assembly.add(Chunk(1, item, 0, 4, b"a%d" % item))
        for item in (0, 1, 2):
            assembly.add(Chunk(1, item, 1, 4, b"b%d" % item))
        assert assembly.take(1, 1) == b"a1b1"
        assert assembly.take(1, 2) == b"a2b2"
        assert assembly.take(1, 0) == b"a0b0"

    @pytest.mark.usefixtures("tiny")
    @pytest.mark.parametrize(
        ("indices", "whole"),
        [
            ([0, 1, 2], True),
            ([0, 1, 0, 1, 2], True),  # sent again from its start
            ([0, 2], False),
            ([1, 2], False),
            ([0, 1], False),  # the rest was lost
            ([0, 1, 1, 2], False),
            ([0, 1, 2, 3], False),
            ([0, 1, 5, 0, 1, 2], True),
            ([0, 1, -1, 2], False),
        ],
    )
    def test_order(self, indices, whole):
        assembly = Assembly()
        for index in indices:
            assembly.add(Chunk(1, 0, index, 6, b"%02d" % (index % 100)))
        assert assembly.take(1, 0) == (b"000102" if whole else None)

    @pytest.mark.parametrize("size", [AT_FIRST - 1, AT_FIRST, AT_FIRST + 5, 3 * AT_FIRST + 1])
    def test_memory_for_more_comes_when_it_is_needed(self, monkeypatch, size):
        monkeypatch.setattr("k8sfutures.lanes.CHUNK_SIZE", AT_FIRST // 2 - 3)
        monkeypatch.setattr("k8sfutures.chunks.CHUNK_SIZE", AT_FIRST // 2 - 3)
        body = bytes(range(251)) * (size // 251) + bytes(size % 251)
        assembly = Assembly()
        for chunk in chunks_of(1, 0, body):
            assembly.add(chunk)
        assert assembly.take(1, 0) == body

    def test_a_size_is_only_a_claim(self):
        assembly = Assembly()
        tracemalloc.start()
        try:
            assert not assembly.add(Chunk(1, 0, 0, LARGEST, b"x"))
            assert tracemalloc.get_traced_memory()[1] < 2 * AT_FIRST
        finally:
            tracemalloc.stop()

    @pytest.mark.parametrize(("index", "size"), [(0, -1), (0, LARGEST + 1), (-1, 5), (0, 1 << 63)])
    def test_sizes_that_cannot_be(self, index, size):
        with pytest.raises(MessageError, match="wrong shape"):
            Codec(KEY, "pod").decode(Codec(KEY, "c").encode(Chunk(1, 0, index, size, b""), "pod"))

    def test_none_came(self):
        assert Assembly().take(1, 0) is None


class TestReceivers:
    """Whoever can publish at the broker may send again whatever it has seen there."""

    @pytest.fixture
    def pod(self):
        return Codec(KEY, "pod")

    def attached(self, pod, client, address):
        """The client attaches, and hears its address."""
        pod.decode(client.encode(ATTACH))
        client.learn("pod", pod.admit("c", address))

    def refused(self, codec, body):
        with pytest.raises(MessageError) as caught:
            codec.decode(body)
        return caught.value

    @pytest.mark.parametrize(
        "message", [Recall([1]), Cancel([1]), Chunk(1, -1, 0, 1, b"x"), Credit(1)]
    )
    def test_what_is_for_one_is_for_no_other(self, message):
        body = Codec(KEY, "c").encode(message, "pod")
        assert "another receiver" in str(self.refused(Codec(KEY, "other"), body))
        assert "without a receiver" in str(
            self.refused(Codec(KEY, "other"), Codec(KEY, "c").encode(message))
        )

    def test_another_client_takes_no_results(self):
        body = Codec(KEY, "pod").encode(Results(1, [(1, 0, 0, 5, b"body")]), "client-1")
        self.refused(Codec(KEY, "client-2"), body)
        Codec(KEY, "client-1").decode(body)

    def test_what_we_sent_to_all_is_not_for_us(self):
        client = Codec(KEY, "c")
        assert "our own" in str(self.refused(client, client.encode(ATTACH)))

    def test_a_group_has_each_share_under_its_pods_address(self, pod):
        client = Codec(KEY, "c")
        self.attached(pod, client, "address")
        group = Group(1, {}, [], {"pod": (1, []), "unknown": (2, [])}, {})
        got = pod.decode(client.encode(group)).message
        assert got.shares == {"address": (1, []), "unknown": (2, [])}
        assert group.shares.keys() == {"pod", "unknown"}, "the client's own is as it was"

    def test_what_was_sent_before_a_client_left_is_of_no_use_after_it(self, pod):
        client = Codec(KEY, "c")
        self.attached(pod, client, "first")
        captured = [
            client.encode(message, to)
            for message, to in (
                (Group(1, {}, [], {"pod": (1, [(1, 1, 0, b"")])}, {}), "pod"),
                (Group(2, {}, [], {"pod": (1, [(2, 1, 0, b"")]), "p2": (1, [])}, {}), ""),
                (Recall([1]), "pod"),
                (Cancel([1]), "pod"),
                (Chunk(1, -1, 0, 1, b"x"), "pod"),
            )
        ]
        pod.retain([])
        for body in captured:
            try:
                share = pod.decode(body).message.shares.get(pod.given("c"))
            except MessageError:
                continue
            assert share is None, "a broadcast can be read, and has nothing for this pod"
        pod.retain([])
        self.attached(pod, Codec(KEY, "c", 100), "second")
        for body in captured:
            self.refused(pod, body)

    def test_an_address_stays_while_the_client_is_known(self, pod):
        assert pod.admit("c", "first") == "first"
        assert pod.admit("c", "second") == "first"
        pod.retain(["c", "d"])
        assert pod.given("c") == "first"
        pod.retain(["d"])
        assert pod.given("c") == ""

    def test_a_client_learns_whether_it_is_another(self):
        client = Codec(KEY, "c")
        assert [client.learn("pod", text) for text in ("a", "a", "b")] == [True, False, True]

    def test_one_that_was_forgotten_without_its_knowledge_is_told_apart(self, pod):
        client = Codec(KEY, "c")
        self.attached(pod, client, "first")
        assert pod.decode(client.encode(Renew(1, 1, []), "pod")).sender == "c"
        pod.retain([])
        assert self.refused(pod, client.encode(Renew(1, 1, []), "pod")).stranger == "c"
        assert self.refused(pod, client.encode(Recall([]), "pod")).stranger is None
        pod.decode(client.encode(ATTACH, "pod"))
        pod.admit("c", "second")
        late = self.refused(pod, client.encode(Renew(1, 1, []), "pod"))
        assert late.stranger is None, "it is told its address already"

    def test_an_attach_is_always_by_name(self, pod):
        client = Codec(KEY, "c")
        client.learn("pod", "of long ago")
        assert type(pod.decode(client.encode(ATTACH, "pod")).message) is Attach
        self.refused(Codec(KEY, "other"), client.encode(ATTACH, "pod"))

    def test_one_that_begins_anew_under_its_name_is_heard(self, pod):
        pod.decode(Codec(KEY, "c", 1_000_000_000).encode(ATTACH))
        pod.decode(Codec(KEY, "c", 2_000_000_000).encode(ATTACH))

    def test_nothing_is_remembered_of_those_that_left(self, pod):
        for number in range(100):
            client = Codec(KEY, f"c{number}")
            pod.decode(client.encode(ATTACH))
            client.learn("pod", pod.admit(f"c{number}", f"address {number}"))
            pod.decode(client.encode(Chunk(1, -1, 0, 1, b"x"), "pod"))
        pod.retain(["c7"])
        remembered = [pod._newest, pod._given, pod._tags]
        assert [list(known) for known in remembered] == [["c7"]] * 3

    def test_the_keys_of_tails_are_few(self, monkeypatch, pod):
        monkeypatch.setattr("k8sfutures.codec._CIPHERS", 3)
        for number in range(10):
            pod.decode(Codec(KEY, f"c{number}").encode(Chunk(1, -1, 0, 1, b"x"), "pod"))
        assert len(pod._tags) <= 3


class TestKeysAndVersions:
    def test_a_key_depends_on_the_secret_alone(self):
        assert derive_key("a") == derive_key("a")
        assert derive_key("a") != derive_key("b")
        assert len(derive_key("")) == 32

    def test_only_what_a_person_may_have_thought_of_is_stretched(self, monkeypatch):
        stretched = []

        def scrypt(text, **_parameters):
            stretched.append(text.decode())
            return bytes(32)

        monkeypatch.setattr("hashlib.scrypt", scrypt)
        derive_key.cache_clear()
        for secret in ("a" * 47, "a" * 48, "a" * 49, "A" * 48, "g" * 48, "a" * 48 + "\n"):
            derive_key(secret)
        derive_key.cache_clear()
        assert stretched == ["a" * 47, "a" * 49, "A" * 48, "g" * 48, "a" * 48 + "\n"]

    def test_the_documentation_says_what_stretching_costs(self, monkeypatch):
        costs = []

        def scrypt(_text, *, n, r, p, **_parameters):
            costs.append(f"N={n}, r={r}, p={p}: {128 * n * r >> 20} MiB")
            return bytes(32)

        monkeypatch.setattr("hashlib.scrypt", scrypt)
        derive_key.__wrapped__("a")
        assert costs[0] in (ROOT / "docs" / "security.md").read_text("utf-8")

    def test_versions_for_people(self):
        assert str(Versions("3.13", 1, "3.1")) == (
            "Python 3.13, k8sfutures protocol 1, cloudpickle 3.1"
        )
        assert Versions.ours().protocol == PROTOCOL

    def test_bodies_are_in_no_repr_of_a_chunk(self):
        assert "secret" not in repr(Chunk(1, 0, 0, 1, b"secret"))
