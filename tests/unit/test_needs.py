from k8sfutures.bodies import with_parts
from k8sfutures.worker.needs import Needs

CALL, OTHER = (1, 7, 0, b""), (2, 8, 0, b"")


def needs_of(groups, calls=(CALL, OTHER), initializer=None):
    needs = Needs(initializer)
    needs.note(groups, calls)
    return needs


class TestParking:
    def test_who_needs_nothing_never_waits(self):
        needs = needs_of({})
        assert not needs
        assert not needs.park(CALL)

    def test_a_call_waits_until_all_is_there(self):
        needs = needs_of({1: [10, 11]})
        assert needs
        assert needs.park(CALL)
        assert not needs.park(OTHER)
        assert needs.arrived(11) == []
        assert needs.arrived(10) == [CALL]
        assert not needs.parked

    def test_what_is_there_before_the_call_counts(self):
        needs = needs_of({1: [10, 11]})
        assert needs.arrived(10) == []
        assert needs.park(CALL)
        assert needs.arrived(11) == [CALL]

    def test_a_call_needs_what_its_function_needs(self):
        needs = needs_of({-7: [10], 1: [11]})
        assert needs.of(CALL) == [10, 11]
        assert needs.of(OTHER) == []
        needs.forget_functions([7])
        assert needs.of(CALL) == [11]

    def test_a_part_that_is_needed_twice_is_one(self):
        needs = needs_of({-7: [10], 1: [10, 10]})
        assert needs.park(CALL)
        assert needs.arrived(10) == [CALL]

    def test_every_call_needs_what_the_initializer_needs(self):
        needs = needs_of({}, initializer=with_parts([10], []))
        assert needs
        assert needs.park(CALL)
        assert needs.park(OTHER)
        assert needs.arrived(10) == [CALL, OTHER]

    def test_a_small_initializer_needs_nothing(self):
        assert not needs_of({}, initializer=b"\x80pickle")

    def test_a_call_that_was_taken_back_does_not_run(self):
        needs = needs_of({1: [10]})
        needs.park(CALL)
        needs.finished(1)
        assert needs.arrived(10) == []

    def test_a_call_that_was_taken_back_may_come_again(self):
        needs = needs_of({1: [10]})
        needs.park(CALL)
        needs.finished(1)
        needs.note({1: [10]}, [CALL])
        needs.park(CALL)
        assert needs.arrived(10) == [CALL]

    def test_what_has_not_arrived_will_not(self):
        needs = needs_of({1: [10], 2: [11]})
        needs.arrived(11)
        assert needs.park(CALL)
        assert not needs.park(OTHER)
        assert needs.begin_anew() == [1]
        assert needs.arrived(10) == []
        assert needs.have == {10, 11}


class TestRelease:
    def test_what_no_call_here_needs_goes(self):
        needs = needs_of({})
        needs.arrived(10)
        assert needs.release([10], []) == [10]
        assert not needs.have

    def test_what_a_call_here_needs_goes_later(self):
        needs = needs_of({1: [10], 2: [11]})
        needs.arrived(11)
        needs.park(CALL)
        assert needs.release([10, 11], [OTHER]) == []
        needs.finished(2)
        assert needs.release([], []) == [11]
        assert needs.arrived(10) == [CALL]
        needs.finished(1)
        assert needs.release([], []) == [10]
        assert needs.release([], []) == []
