"""When the client asks for more pods: once it may be that CPUs are missing, and not before."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k8sfutures.demand import AGAIN, ANSWER, LOOKS, NEVER, SETTLE, Demand
from k8sfutures.pods import Need

quick = settings(deadline=None, derandomize=True, database=None, max_examples=200)


def a_demand(cpus: int | None = None, *, eager: bool = False) -> Demand:
    return Demand(cpus, eager=eager)


def asks(demand: Demand, now: float, *, busy: bool = False) -> bool:
    return demand.take(now, busy=busy) is not None


# --- at first


def test_nothing_is_asked_before_the_broker_has_said_who_is_there() -> None:
    demand = a_demand()
    assert not asks(demand, 1000.0, busy=True)
    assert demand.deadline() == NEVER


def test_an_eager_client_asks_before_the_broker_has_said_who_is_there() -> None:
    assert a_demand(3, eager=True).take(0.0, busy=False) == Need(3)


def test_where_the_broker_is_anothers_it_is_reached_first() -> None:
    demand = Demand(3, eager=True, after_broker=True)
    assert demand.take(0.0, busy=True) is None
    assert demand.deadline() == NEVER
    demand.called(1.0)
    need = demand.take(1.0, busy=True)
    assert need is not None
    assert need.cpus == 3


def test_where_nobody_is_there_pods_are_asked_for_at_once() -> None:
    demand = a_demand(3)
    demand.called(0.0)
    demand.nobody()
    assert demand.take(0.0, busy=False) == Need(3, answering=False)
    assert demand.deadline() == NEVER


def test_an_eager_client_that_has_asked_does_not_ask_again_because_nobody_is_there() -> None:
    demand = a_demand(eager=True)
    assert asks(demand, 0.0)
    demand.called(0.1)
    demand.nobody()
    assert not asks(demand, 1000.0, busy=True)


def test_pods_that_are_called_have_a_while_to_answer() -> None:
    demand = a_demand(2)
    demand.called(10.0)
    assert demand.deadline() == 10.0 + ANSWER
    assert not asks(demand, 10.0 + ANSWER - 0.01, busy=True)
    assert demand.take(10.0 + ANSWER, busy=True) == Need(2, answering=True)


def test_pods_that_are_called_again_have_no_longer_to_answer() -> None:
    demand = a_demand()
    demand.called(10.0)
    demand.called(10.0 + ANSWER / 2)
    assert demand.deadline() == 10.0 + ANSWER


def test_an_eager_client_does_not_ask_again_because_pods_do_not_answer() -> None:
    demand = a_demand(eager=True)
    assert asks(demand, 0.0)
    demand.called(0.0)
    assert not asks(demand, 1000.0, busy=True)


# --- pods answer


def test_after_an_answer_that_is_not_enough_the_others_have_a_while() -> None:
    demand = a_demand(8)
    demand.called(0.0)
    demand.joined("a", 4, 0, 0.4)
    assert demand.deadline() == 0.4 + SETTLE
    assert not asks(demand, 0.4 + SETTLE - 0.01, busy=True)
    assert demand.take(0.4 + SETTLE, busy=True) == Need(8, {"a": 4}, frozenset("a"))


def test_each_answer_gives_the_others_another_while() -> None:
    demand = a_demand(8)
    demand.joined("a", 2, 0, 0.0)
    demand.joined("b", 2, 0, 0.2)
    assert demand.deadline() == 0.2 + SETTLE


@pytest.mark.parametrize(
    ("cpus", "complete"), [(4, 0), (3, 0), (4, 100), (None, 4), (None, 3)], ids=str
)
def test_once_there_is_enough_nothing_is_asked(cpus: int | None, complete: int) -> None:
    demand = a_demand(cpus)
    demand.called(0.0)
    demand.joined("a", 4, complete, 0.1)
    assert demand.deadline() == NEVER
    assert not asks(demand, 1000.0, busy=True)


def test_who_wants_all_cpus_asks_where_no_pod_knows_how_many_there_are() -> None:
    demand = a_demand(None)
    demand.joined("a", 4, 0, 0.0)
    assert demand.take(SETTLE, busy=False) == Need(None, {"a": 4}, frozenset("a"))


def test_who_wants_a_number_of_cpus_does_not_care_how_many_the_pool_has() -> None:
    demand = a_demand(8)
    demand.joined("a", 4, 4, 0.0)
    assert asks(demand, SETTLE)


def test_an_eager_client_is_content_with_the_pods_that_answer() -> None:
    demand = a_demand(8, eager=True)
    assert asks(demand, 0.0)
    demand.joined("a", 1, 0, 0.0)
    assert demand.deadline() == NEVER
    assert not asks(demand, 1000.0, busy=True)


def test_a_pod_that_answers_twice_counts_once() -> None:
    demand = a_demand(8)
    demand.joined("a", 4, 0, 0.0)
    demand.joined("a", 4, 0, 0.1)
    assert demand.have == 4
    assert asks(demand, 0.1 + SETTLE)


gaps = st.integers(0, int(64 * SETTLE)).map(lambda ticks: ticks / 64)  # sums are exact


@st.composite
def pools(draw: st.DrawFn) -> list[tuple[int, bool, float]]:
    """Pods: how many CPUs, whether it knows how many there are in all, how soon it answers."""
    sizes = draw(st.lists(st.integers(1, 64), min_size=1, max_size=6))
    knows = draw(st.lists(st.booleans(), min_size=len(sizes), max_size=len(sizes)))
    knows[draw(st.integers(0, len(sizes) - 1))] = True
    return [(size, know, draw(gaps)) for size, know in zip(sizes, knows, strict=True)]


@given(pools(), st.booleans())
@quick
def test_pods_that_answer_with_all_cpus_of_the_pool_never_lead_to_a_question(
    pool: list[tuple[int, bool, float]], busy: bool
) -> None:
    demand = a_demand(None)
    total = sum(size for size, _, _ in pool)
    now = 0.0
    demand.called(now)
    for number, (size, knows, gap) in enumerate(pool):
        now += gap
        assert not asks(demand, now, busy=busy)
        demand.joined(f"pod-{number}", size, total if knows else 0, now)
    demand.waiting(now)
    assert not asks(demand, now + 1000.0, busy=busy)
    assert demand.deadline() == NEVER


more = st.lists(
    st.tuples(
        st.sampled_from(["called", "joined", "waiting", "explained"]),
        st.floats(0, 20),
        st.booleans(),
    ),
    max_size=12,
)


@given(st.integers(1, 8), more)
@quick
def test_nothing_is_asked_while_nothing_is_missing(
    cpus: int, events: list[tuple[str, float, bool]]
) -> None:
    demand = a_demand(cpus)
    demand.called(0.0)
    demand.joined("first", cpus, 0, 0.1)
    now = 0.1
    for number, (kind, later, busy) in enumerate(events):
        now += later
        match kind:
            case "called":
                demand.called(now)
            case "joined":
                demand.joined(f"pod-{number}", 1, 0, now)
            case "waiting":
                demand.waiting(now)
            case "explained":
                demand.explained("another")
        assert not asks(demand, now, busy=busy)


# --- pods go


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("explained", [False, True])
def test_an_idle_client_does_not_replace_a_pod_before_it_is_busy(
    eager: bool, explained: bool
) -> None:
    demand = a_demand(4, eager=eager)
    demand.joined("a", 4, 0, 0.0)
    demand.take(0.0, busy=False)
    demand.left("a", explained=explained)
    assert not asks(demand, 1000.0, busy=False)
    assert asks(demand, 1000.0, busy=True)


def test_the_pods_that_an_idle_client_lost_are_asked_for_once() -> None:
    demand = a_demand(None)
    demand.joined("a", 4, 8, 0.0)
    demand.joined("b", 4, 8, 0.0)
    demand.left("a", explained=True)
    demand.left("b", explained=True)
    assert asks(demand, 1.0, busy=True)
    assert not asks(demand, 1000.0, busy=True)


def test_a_busy_client_asks_at_once_for_the_pod_that_it_lost() -> None:
    demand = a_demand(8)
    demand.joined("a", 4, 0, 0.0)
    demand.joined("b", 4, 0, 0.0)
    demand.left("a", explained=True)
    assert demand.take(0.1, busy=True) == Need(8, {"b": 4}, frozenset("ab"))


def a_demand_that_lost_a_pod() -> Demand:
    demand = a_demand(4)
    demand.joined("a", 4, 0, 0.0)
    demand.left("a", explained=False)
    assert asks(demand, 0.0, busy=True)
    return demand


def test_a_pod_that_does_not_come_back_is_called_once_more_and_then_to_be_ended() -> None:
    demand = a_demand_that_lost_a_pod()
    called = [demand.listen() for _ in range(LOOKS - 1)]
    assert called == [["a"] if look == LOOKS // 2 else [] for look in range(1, LOOKS)]
    assert not asks(demand, 1000.0, busy=True)
    assert demand.listen() == []
    assert not asks(demand, 1000.0), "an idle client does not need its CPUs"
    need = demand.take(1000.0, busy=True)
    assert need is not None
    assert need.silent == {"a"}
    demand.listen()
    assert not asks(demand, 1000.0, busy=True), "it is asked for once"


@pytest.mark.parametrize("what", ["it comes back", "it is known why", "nobody could be heard"])
def test_a_pod_is_not_ended_that_may_be_in_order(what: str) -> None:
    demand = a_demand_that_lost_a_pod()
    for _ in range(LOOKS - 1):
        demand.listen()
    match what:
        case "it comes back":
            demand.joined("a", 4, 0, 0.0)
        case "it is known why":
            demand.explained("a")
        case _:
            demand.called(0.0)  # the broker was away, or we were
    demand.listen()
    demand.ask()
    need = demand.take(1000.0, busy=True)
    assert need is not None
    assert need.silent == frozenset()


def test_a_pod_that_never_answered_is_not_missed_when_it_goes() -> None:
    demand = a_demand(4)
    demand.joined("a", 4, 0, 0.0)
    demand.left("stranger", explained=True)
    assert not asks(demand, 1000.0, busy=True)


def test_a_pod_that_goes_takes_its_cpus_along() -> None:
    demand = a_demand()
    demand.joined("a", 4, 6, 0.0)
    demand.joined("b", 2, 6, 0.0)
    demand.left("a", explained=True)
    assert demand.have == 2


def test_pods_that_were_to_come_and_will_not_are_asked_for_once_when_there_is_work() -> None:
    demand = a_demand(4)
    demand.ask()
    assert not asks(demand, 0.0)
    assert asks(demand, 0.0, busy=True)
    assert not asks(demand, 1000.0, busy=True)


# --- work waits


def test_while_work_waits_for_cpus_that_were_missing_they_are_looked_for_again() -> None:
    demand = a_demand(8)
    demand.joined("a", 4, 0, 0.0)
    assert asks(demand, SETTLE)
    demand.waiting(1.0)
    assert demand.deadline() == 1.0 + AGAIN
    assert not asks(demand, 1.0 + AGAIN - 0.01, busy=True)
    assert asks(demand, 1.0 + AGAIN, busy=True)


def test_work_that_goes_on_waiting_does_not_put_the_next_look_off() -> None:
    demand = a_demand(8)
    demand.joined("a", 4, 0, 0.0)
    assert asks(demand, SETTLE)
    demand.waiting(1.0)
    demand.waiting(1.0 + AGAIN / 2)
    assert demand.deadline() == 1.0 + AGAIN


def test_work_that_waits_does_not_put_off_the_look_after_an_answer() -> None:
    demand = a_demand(8)
    demand.joined("a", 4, 0, 0.0)
    demand.waiting(0.1)
    assert demand.deadline() == SETTLE


@pytest.mark.parametrize(
    ("cpus", "eager", "joins"),
    [(4, False, True), (8, True, True), (8, False, False)],
    ids=["nothing is missing", "an eager client", "no pod has answered"],
)
def test_waiting_work_leads_to_no_look(cpus: int, eager: bool, joins: bool) -> None:
    demand = a_demand(cpus, eager=eager)
    demand.take(0.0, busy=False)
    if joins:
        demand.joined("a", 4, 0, 0.0)
    demand.waiting(1.0)
    assert demand.deadline() == NEVER


# --- what a question says


@pytest.mark.parametrize(
    ("events", "answering"),
    [
        ([], False),
        (["called"], True),
        (["called", "nobody"], False),
        (["called", "joined"], False),
        (["joined"], False),
        (["called", "nobody", "called"], True),
    ],
    ids=str,
)
def test_a_question_tells_whether_pods_are_there_that_have_not_answered(
    events: list[str], answering: bool
) -> None:
    demand = a_demand(8)
    calls: dict[str, Any] = {
        "called": lambda: demand.called(0.0),
        "nobody": demand.nobody,
        "joined": lambda: demand.joined("a", 1, 0, 0.0),
    }
    for event in events:
        calls[event]()
    demand.ask()
    need = demand.take(0.0, busy=True)
    assert need is not None
    assert need.answering is answering


names = st.sampled_from("abc")
happenings = st.lists(
    st.one_of(
        st.tuples(st.just("joined"), names, st.integers(1, 4)),
        st.tuples(st.just("left"), names, st.booleans()),
        st.tuples(st.just("explained"), names),
        st.tuples(st.just("called")),
        st.tuples(st.just("nobody")),
        st.tuples(st.just("ask")),
        st.tuples(st.just("waiting")),
        st.tuples(st.just("listen"), st.integers(1, 2 * LOOKS)),
        st.tuples(st.just("time"), st.floats(0, 20)),
    ),
    max_size=25,
)


@given(st.none() | st.integers(1, 12), st.booleans(), happenings)
@quick
def test_a_question_tells_the_attached_and_the_unexplained_pods(
    cpus: int | None, eager: bool, events: list[tuple[Any, ...]]
) -> None:
    demand = Demand(cpus, eager=eager)
    attached: dict[str, int] = {}
    unexplained: dict[str, int] = {}
    now = 0.0
    for event in events:
        match event:
            case ("joined", name, size):
                demand.joined(name, size, 0, now)
                attached[name] = size
                unexplained.pop(name, None)
            case ("left", name, explained):
                demand.left(name, explained=explained)
                attached.pop(name, None)
                if not explained:
                    unexplained.setdefault(name, 0)
            case ("explained", name):
                demand.explained(name)
                unexplained.pop(name, None)
            case ("called",):
                demand.called(now)
                unexplained = dict.fromkeys(unexplained, 0)
            case ("listen", looks):
                for _ in range(looks):
                    demand.listen()
                unexplained = {name: count + looks for name, count in unexplained.items()}
            case ("nobody",):
                demand.nobody()
            case ("ask",):
                demand.ask()
            case ("waiting",):
                demand.waiting(now)
            case ("time", seconds):
                now += seconds
        assert demand.have == sum(attached.values())
        need = demand.take(now, busy=True)
        if need is not None:
            assert (need.cpus, need.attached) == (cpus, attached)
            assert need.unexplained == unexplained.keys()
            assert need.silent == {name for name, count in unexplained.items() if count >= LOOKS}


def test_a_question_does_not_change_with_what_happens_after_it() -> None:
    demand = a_demand(8)
    demand.joined("a", 4, 0, 0.0)
    demand.left("b", explained=False)
    need = demand.take(SETTLE, busy=False)
    demand.joined("b", 4, 0, 1.0)
    assert need == Need(8, {"a": 4}, frozenset("a"), frozenset("b"))


@given(st.none() | st.integers(1, 12), st.booleans(), happenings, st.floats(0, 1, exclude_max=True))
@quick
def test_nothing_is_asked_before_the_deadline_unless_something_happens(
    cpus: int | None, eager: bool, events: list[tuple[Any, ...]], part: float
) -> None:
    demand = Demand(cpus, eager=eager)
    now = 0.0
    for name, *values in events:
        match name:
            case "joined":
                demand.joined(*values, 0, now)
            case "left":
                demand.left(values[0], explained=values[1])
            case "called" | "waiting":
                getattr(demand, name)(now)
            case "listen":
                for _ in range(values[0]):
                    demand.listen()
            case "time":
                now += values[0]
            case _:
                getattr(demand, name)(*values)
        demand.take(now, busy=True)
        assert demand.deadline() > now
        before = now + part * (min(demand.deadline(), now + 1000.0) - now)
        if before < demand.deadline():
            assert not asks(demand, before, busy=True)
            now = before


def test_a_pod_that_has_drained_is_asked_for_again_when_it_is_gone() -> None:
    demand = a_demand(4)
    demand.joined("a", 4, 4, 0.0)
    demand.left("a", explained=True)  # it drains: its CPUs are not free yet
    assert asks(demand, 1.0, busy=True)
    assert not asks(demand, 2.0, busy=True)
    demand.left("a", explained=True)  # it is gone
    assert asks(demand, 31.0, busy=True)


@pytest.mark.parametrize("eager", [True, False])
def test_cpus_that_a_pod_frees_that_was_not_attached_are_asked_for_where_nobody_looks(eager):
    demand = a_demand(eager=eager)
    demand.joined("pod-1", 1, 1, 0.0)
    demand.take(100.0, busy=True)
    demand.freed()
    assert not asks(demand, 200.0)
    assert asks(demand, 200.0, busy=True) is eager
