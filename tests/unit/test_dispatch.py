"""What the dispatcher promises, by example."""

import msgpack
import pytest

from k8sfutures.bulk_memory import MOST_KEPT
from k8sfutures.messages import (
    CRASHED,
    EXCEPTION,
    GROUP_LIMIT,
    INLINE_LIMIT,
    RESULT,
    Attach,
    Group,
    Hello,
    Left,
    NotInitialized,
    Printed,
    Recall,
    Renew,
    Results,
    Returned,
)
from k8sfutures.worker import frames as kinds
from k8sfutures.worker.dispatch import SIGINT, SIGKILL, Dispatcher
from k8sfutures.worker.instructions import Feed, Kill, Retire, Send, Steal
from k8sfutures.worker.shared_memory import Shared

F = 1
TEMPLATE = Hello("pod", "node", 1, [0], ("3", 1, "3"), False, 0, [], 0, {}, 0, [])


class Play:
    """A dispatcher, and processes that run nothing before they are told to."""

    def __init__(self, cpus=1):
        self.dispatcher = Dispatcher(list(range(cpus)))
        self.pipes = {cpu_id: [] for cpu_id in range(cpus)}
        self.rows = {}
        self.fed, self.sent, self.others = [], [], []
        self.groups = {}
        for cpu_id in range(cpus):
            self.dispatcher.ready(cpu_id)

    def attach(self, name="c", initializer=None, max_tasks=None, now=0.0):
        message = Attach(("3", 1, "3"), 0, 15.0, initializer, max_tasks, b"reporting")
        self.dispatcher.attach(name, message, now)
        return self

    def group(self, calls, name="c", limit=9, released=()):
        """Calls are (id, items)."""
        number = self.groups[name] = self.groups.get(name, 0) + 1
        share = (limit, [(call_id, F, items, b"") for call_id, items in calls])
        message = Group(number, {F: b"f"}, list(released), {}, {})
        self.dispatcher.group(name, message, share, 0.0)
        return self.go()

    def go(self):
        """Carries everything out; returns the call ids that each process was given."""
        given = {}
        while instructions := self.dispatcher.take():
            for one in instructions:
                if isinstance(one, Feed):
                    self.fed.append(one)
                    for frame in one.frames:
                        if frame[0] == kinds.JOBS:
                            for token, *row in frame[2]:
                                self.rows[token] = row
                    self.pipes[one.cpu_id] += one.tokens
                    given.setdefault(one.cpu_id, []).extend(one.tokens)
                elif isinstance(one, Steal):
                    pipe = self.pipes[one.cpu_id]
                    taken = pipe[: one.count]
                    del pipe[: one.count]
                    self.dispatcher.stolen(one.cpu_id, taken)
                elif isinstance(one, Send):
                    self.sent.append(one.message)
                else:
                    self.others.append(one)
        self.dispatcher.validate()
        return {cpu_id: len(tokens) for cpu_id, tokens in given.items() if tokens}

    def start(self, cpu_id=0):
        return self.pipes[cpu_id].pop(0)

    def run(self, cpu_id=0, count=1, micros=10, status=RESULT, items=None):
        said = []
        for index in range(count):
            token = self.start(cpu_id)
            row = self.rows[token]
            said.append((token, row[2] + (items or index if row[1] else 0), status, micros, b"r"))
            if row[1]:
                row[2] += 1
                said[-1] = (token, row[2] - 1, status, micros, b"r")
        self.dispatcher.frames(cpu_id, said)
        return self.go()

    def learn(self, micros=10, name="c"):
        self.group([(900, 0)], name)
        self.run(micros=micros)

    def messages(self, *types):
        return [message for message in self.sent if isinstance(message, types)]

    def flush(self):
        self.dispatcher.flush()
        self.go()
        return [outcome for results in self.messages(Results) for outcome in results.outcomes]


class TestRuns:
    def test_one_by_one_until_a_duration_is_known(self):
        play = Play(2).attach()
        assert play.group([(1, 0), (2, 0), (3, 0)]) == {0: 1, 1: 1}
        assert play.run(0, micros=1_000_000) == {0: 1}

    def test_short_ones_in_runs(self):
        play = Play().attach()
        play.learn(micros=100)
        assert play.group([(number, 0) for number in range(1, 200)]) == {0: 50}

    def test_items_of_a_range_too_and_on_all_processes(self):
        play = Play(2).attach()
        play.learn(micros=1_000)
        assert play.group([(1, 8)]) == {0: 5, 1: 3}

    def test_topped_up_at_half(self):
        play = Play().attach()
        play.learn(micros=100)
        play.group([(number, 0) for number in range(1, 200)])
        assert play.run(count=24, micros=100) == {}
        assert sum(play.run(count=2, micros=100).values()) > 20

    def test_topped_up_as_well_where_the_limit_leaves_processes_idle(self):
        play = Play(2).attach()
        play.learn(micros=100)
        assert play.group([(number, 0) for number in range(1, 200)], limit=1) == {0: 50}
        assert sum(play.run(count=26, micros=100).values()) > 20

    def test_what_waits_behind_a_long_one_moves_to_an_idle_process(self):
        play = Play(2).attach()
        play.learn(micros=10)
        play.group([(1, 0)])
        play.group([(2, 0)])
        assert [len(pipe) for pipe in play.pipes.values()] == [1, 1]
        play.group([(3, 0), (4, 0), (5, 0)])  # behind call 1
        play.start(0)  # call 1 runs for long
        assert play.run(1) == {1: 2}
        assert len(play.pipes[0]) == 1

    def test_what_is_taken_back_keeps_its_order(self):
        play = Play(2).attach()
        play.learn(micros=10)
        assert play.group([(number, 0) for number in range(1, 9)]) == {0: 8, 1: 4}
        jobs = play.dispatcher._slots[1].jobs
        assert [jobs[token].part.call[0] for token in play.pipes[1]] == [1, 2, 3, 4]


class TestFairness:
    def test_clients_take_turns(self):
        play = Play().attach("a").attach("b")
        play.group([(1, 0), (2, 0)], "a")
        play.group([(1, 0), (2, 0)], "b")
        names = []
        for _ in range(4):
            token = play.pipes[0][0]
            names.append(play.dispatcher._slots[0].jobs[token].client.name)
            play.run(micros=1_000_000)
        assert names == ["a", "b", "a", "b"]

    def test_a_run_that_takes_longer_than_thought_is_cut_short_for_others(self):
        play = Play().attach("a").attach("b")
        play.learn(micros=10, name="a")
        play.group([(number, 0) for number in range(1, 100)], "a")
        play.group([(1, 0)], "b")
        assert len(play.pipes[0]) == 99
        play.run(micros=1_000_000)
        assert len(play.pipes[0]) == 1

    def test_no_client_gets_more_processes_than_its_limit(self):
        play = Play(3).attach("a").attach("b")
        assert play.group([(number, 0) for number in range(1, 9)], "a", limit=2) == {0: 1, 1: 1}
        assert play.group([(1, 0)], "b", limit=1) == {2: 1}


class TestSlowClients:
    @staticmethod
    def bulky(play, size, cpu_id=0):
        """A call ends whose outcome is a file in memory."""
        body = Shared(b"s")
        body.memory = range(size)
        play.fed.clear()
        play.dispatcher.frames(cpu_id, [(play.start(cpu_id), 0, RESULT, 10, body)])
        play.go()
        return [frame[0] for feed in play.fed for frame in feed.frames]

    def test_an_outcome_that_is_larger_than_all_that_may_be_kept_passes(self):
        play = Play().attach()
        play.group([(1, 0), (2, 0)])
        assert self.bulky(play, 3 * MOST_KEPT) == []
        assert play.pipes == {0: []}
        play.flush()
        play.dispatcher.renew("c", Renew(1, 1, []), 0.0)
        assert play.go() == {0: 1}
        assert play.fed[-1].frames[0][0] == kinds.GO_ON

    def test_what_a_process_was_given_ahead_is_taken_back(self):
        play = Play(2).attach()
        play.learn(micros=10)
        play.group([(number, 0) for number in range(1, 50)])
        self.bulky(play, MOST_KEPT)
        assert play.pipes[0] == []
        play.run(1)
        assert len(play.pipes[1]) <= 1, "one at most, which may run already"

    def test_a_process_goes_on_while_there_is_room(self):
        play = Play().attach()
        play.learn(micros=10)
        play.group([(number, 0) for number in range(1, 50)])
        assert self.bulky(play, MOST_KEPT // 2) == [kinds.GO_ON]
        assert len(play.pipes[0]) == 48

    def test_others_have_all_processes(self):
        play = Play(2).attach("slow").attach("other")
        play.group([(number, 0) for number in range(1, 9)], "slow")
        for cpu_id in play.pipes:
            self.bulky(play, MOST_KEPT, cpu_id)
        assert play.group([(1, 0), (2, 0)], "other") == {0: 1, 1: 1}
        assert play.fed[-1].frames[0][0] == kinds.GO_ON

    def test_a_pod_that_drains_returns_what_has_not_started(self):
        play = Play().attach()
        play.learn(micros=10)
        play.group([(number, 0) for number in range(1, 50)])
        play.dispatcher.drain()
        play.go()
        self.bulky(play, MOST_KEPT)
        play.flush()
        returned = play.messages(Returned)
        assert sum(len(message.calls) for message in returned) == 48

    def test_one_that_leaves_leaves_no_process_waiting(self):
        play = Play().attach("slow").attach("other")
        play.group([(1, 0), (2, 0)], "slow")
        self.bulky(play, MOST_KEPT)
        play.dispatcher.drop("slow", 0)
        assert play.group([(1, 0)], "other") == {0: 1}
        assert play.fed[-1].frames[0][0] == kinds.GO_ON


class TestOutcomes:
    def test_kept_until_confirmed_and_sent_again(self):
        play = Play().attach()
        play.group([(1, 0)])
        play.run()
        assert play.flush() == [(1, 0, RESULT, 10, b"r")]
        assert play.dispatcher.busy
        play.sent.clear()
        play.dispatcher.hello("c", TEMPLATE)
        play.go()
        hello, results = play.sent
        assert (hello.reply, hello.group, hello.holding, hello.results) == (True, 1, [1], 0)
        assert results.number == 1
        play.dispatcher.renew("c", Renew(1, 1, []), 0.0)
        assert not play.dispatcher.busy

    def test_large_ones_are_spread_over_messages(self):
        play = Play().attach()
        play.learn(micros=10)
        play.flush()
        play.sent.clear()
        play.group([(number, 0) for number in range(1, 31)])
        body = b"x" * INLINE_LIMIT
        while play.pipes[0]:
            play.dispatcher.frames(0, [(play.start(), 0, RESULT, 10, body)])
            play.go()
        assert len(play.flush()) == 30
        assert [results.number for results in play.messages(Results)] == [2, 3]
        assert GROUP_LIMIT // INLINE_LIMIT < 30

    def test_large_ones_take_up_what_may_be_kept(self):
        play = Play().attach()
        play.learn(micros=10)
        body = b"x" * INLINE_LIMIT
        play.group([(number, 0) for number in range(1, 2000)])
        while play.pipes[0]:
            play.dispatcher.frames(0, [(play.start(), 0, RESULT, 10, body)])
            play.go()
        most = 1 + MOST_KEPT // INLINE_LIMIT
        assert len(play.flush()) == most + 1, "one that may run already"

    def test_what_calls_print(self):
        play = Play().attach()
        play.group([(1, 0)])
        play.dispatcher.frames(0, [(play.pipes[0][0], 0, kinds.PRINTED, 2, b"caf\xc3\xa9 \xff")])
        assert play.dispatcher.has_outcomes()
        play.flush()
        assert play.messages(Printed) == [Printed(1, [(1, 0, 0, 2, b"caf\xc3\xa9 \xff")])]

    def test_what_calls_print_comes_again_until_it_is_confirmed(self):
        play = Play().attach()
        play.group([(1, 0)])
        token = play.pipes[0][0]
        play.dispatcher.frames(0, [(token, 0, kinds.PRINTED, 2, b"a\n")])
        play.flush()
        play.dispatcher.frames(0, [(token, 0, RESULT, 5, b"r")])
        play.flush()
        said, done = Printed(1, [(1, 0, 0, 2, b"a\n")]), Results(2, [(1, 0, RESULT, 5, b"r")])
        assert play.sent == [said, done]
        for confirmed, again in ((0, [said, done]), (1, [done]), (2, [])):
            play.dispatcher.renew("c", Renew(1, confirmed, []), 0.0)
            play.sent.clear()
            play.attach()  # the connection was lost
            play.dispatcher.hello("c", TEMPLATE)
            play.go()
            hello, *rest = play.sent
            assert (hello.results, rest) == (confirmed, again)


class TestLastWords:
    def test_a_client_that_leaves_with_sigint_hears_its_calls_to_their_end(self):
        play = Play().attach()
        play.group([(1, 0), (2, 0)])
        token = play.start()
        play.dispatcher.drop("c", SIGINT)
        play.go()
        assert play.others == [Kill(0, SIGINT)]
        assert play.sent == []
        play.dispatcher.frames(0, [(token, 0, kinds.PRINTED, 1, b"bye\n")])
        assert play.dispatcher.has_outcomes()
        play.flush()
        play.dispatcher.frames(0, [(token, 0, EXCEPTION, 5, b"e")])
        play.go()
        assert play.sent == [Printed(1, [(1, 0, 0, 1, b"bye\n")]), Left()]
        assert not play.dispatcher.has_outcomes()
        assert play.dispatcher.clients == []

    @pytest.mark.parametrize(("number", "told"), [(SIGINT, [Left()]), (SIGKILL, []), (0, [])])
    def test_one_of_which_nothing_runs_is_told_so(self, number, told):
        play = Play().attach()
        play.dispatcher.drop("c", number)
        play.go()
        assert play.sent == told


class TestFaults:
    def test_only_what_ran_has_crashed(self):
        play = Play().attach()
        play.learn(micros=10)
        play.group([(1, 0), (2, 0), (3, 4)])
        play.start()
        play.dispatcher.died(0, [], play.pipes[0], {"pid": 5})
        play.pipes[0] = []
        play.go()
        story = msgpack.packb({"pid": 5, "output": "", "stack": "", "seconds": 0.0})
        assert play.flush()[1:] == [(1, 0, CRASHED, 0, story)]
        play.dispatcher.ready(0)
        assert play.go() == {0: 5}

    def test_the_last_words_of_a_process_count(self):
        play = Play().attach()
        play.group([(1, 0), (2, 0)])
        token = play.start()
        play.dispatcher.died(0, [(token, 0, RESULT, 10, b"r")], [], {})
        assert play.go() == {}, "nothing is given to a dead process"
        assert play.flush() == [(1, 0, RESULT, 10, b"r")]

    def test_a_group_that_comes_twice(self):
        play = Play().attach()
        play.group([(1, 0)])
        play.groups["c"] = 0
        assert play.group([(1, 0)]) == {}

    def test_a_call_that_is_still_held_is_not_run_twice(self):
        play = Play(2).attach()
        assert play.group([(1, 0)]) == {0: 1}
        assert play.group([(1, 0)]) == {}

    def test_a_call_whose_function_is_not_known_goes_back(self):
        play = Play().attach()
        share = (1, [(1, 77, 0, b"")])
        play.dispatcher.group("c", Group(1, {}, [], {}, {}), share, 0.0)
        play.go()
        assert play.sent == [Returned([1], False)]

    def test_a_lease_that_ends(self):
        play = Play().attach()
        play.group([(1, 0)])
        play.start()
        play.dispatcher.postpone(5.0)
        play.dispatcher.tick(19.0)
        assert play.dispatcher.clients == ["c"]
        play.dispatcher.tick(21.0)
        play.go()
        assert play.dispatcher.clients == []
        assert play.others == [Kill(0, SIGKILL)]

    def test_what_ran_before_the_lease_ended_is_not_told_to_the_client_that_is_back(self):
        play = Play().attach()
        play.group([(1, 0)])
        play.start()
        play.dispatcher.tick(100.0)
        play.attach(now=100.0)
        play.dispatcher.died(0, [], [], {})
        play.go()
        assert play.flush() == []

    def test_nothing_is_known_of_strangers(self):
        play = Play()
        play.dispatcher.group("x", Group(1, {}, [], {}, {}), (1, [(1, F, 0, b"")]), 0.0)
        play.dispatcher.renew("x", Renew(1, 1, []), 0.0)
        play.dispatcher.recall("x", Recall([1]))
        play.dispatcher.drop("x", 9)
        assert play.go() == {}
        assert not play.sent

    def test_a_failed_initializer_is_told_once(self):
        play = Play(2).attach(initializer=b"init")
        play.group([(1, 0), (2, 0), (3, 0)])
        assert play.fed[0].frames[:2] == [
            (kinds.REPORTING, "c", b"reporting"),
            (kinds.INITIALIZE, "c", b"init"),
        ]
        play.run(0, status=kinds.INITIALIZER_RAISED)
        play.run(1, status=kinds.INITIALIZER_RAISED)
        assert play.messages(NotInitialized) == [NotInitialized(0, EXCEPTION, b"r")]
        assert play.group([(4, 0)]) == {}


class TestLeaving:
    def test_what_waits_is_dropped_and_what_runs_may_end(self):
        play = Play().attach()
        play.group([(1, 0), (2, 0)])
        token = play.start()
        play.dispatcher.drop("c", 0)
        assert play.go() == {}
        play.dispatcher.frames(0, [(token, 0, RESULT, 10, b"r")])
        play.go()
        assert play.others == []
        assert not play.sent
        assert any(frame[0] == kinds.LEAVE for feed in play.fed for frame in feed.frames)

    def test_an_initialized_process_is_replaced(self):
        play = Play().attach(initializer=b"init")
        play.group([(1, 0)])
        play.run()
        play.dispatcher.drop("c", 0)
        play.go()
        assert play.others == [Retire(0)]

    def test_max_tasks_per_child(self):
        play = Play().attach(max_tasks=2)
        play.learn(micros=10)
        assert play.group([(1, 0), (2, 0)]) == {0: 1}
        play.run()
        assert play.others == [Retire(0)]
        play.dispatcher.ready(0)
        assert play.go() == {0: 1}

    def test_functions_are_kept_that_a_call_needs_which_waits_for_a_blob(self):
        """Its client had given this pod up, and so knows of no call that has them."""
        play = Play().attach()
        share = (9, [(1, F, 0, b"")])
        play.dispatcher.group("c", Group(1, {F: b"f"}, [], {}, {1: [7]}), share, 0.0)
        play.dispatcher.group("c", Group(2, {}, [F], {}, {}), (0, []), 0.0)
        play.dispatcher.arrived("c", 7)
        assert play.go() == {0: 1}

    def test_functions_are_kept_of_calls_that_may_be_taken_back(self):
        play = Play().attach("c").attach("other")
        play.learn(micros=10)
        play.group([(number, 0) for number in range(1, 50)])
        play.dispatcher.group("c", Group(9, {}, [F], {}, {}), (0, []), 0.0)
        play.group([(1, 0)], "other")
        play.run(micros=1_000_000)
        assert len(play.pipes[0]) == 1, "they have been taken back, as another client waits"
        play.run()
        play.run()
        assert len(play.flush()) == 4
        assert play.pipes[0], "they are given anew"

    def test_calls_of_unknown_functions_leave_nothing(self):
        play = Play().attach()
        share = (9, [(1, 99, 0, b"")])
        play.dispatcher.group("c", Group(1, {}, [], {}, {1: [7]}), share, 0.0)
        play.go()
        assert play.messages(Returned)[-1].calls == [1]
        assert not play.dispatcher._clients["c"].needs

    def test_functions_are_released(self):
        play = Play().attach()
        play.learn()
        play.group([], released=[F])
        assert play.fed[-1].frames == [(kinds.RELEASE, "c", [F])]


class TestInitializers:
    def test_that_one_has_raised_is_told_again(self):
        """As often as the client asks: the message may have been lost with a connection."""
        play = Play().attach(initializer=b"i")
        play.group([(1, 0)])
        play.dispatcher.frames(0, [(play.start(), 0, kinds.INITIALIZER_RAISED, 0, b"e")])
        play.go()
        play.dispatcher.hello("c", TEMPLATE)
        play.go()
        assert play.messages(NotInitialized) == [NotInitialized(0, EXCEPTION, b"e")] * 2


class TestGivingBack:
    def test_recall(self):
        play = Play().attach()
        play.group([(1, 0), (2, 0), (3, 5)])
        play.dispatcher.recall("c", Recall([1, 2, 3, 4]))
        play.go()
        assert play.sent == [Returned([2, 3], False)]

    def test_drain_gives_back_what_has_not_started(self):
        play = Play().attach()
        play.learn(micros=10)
        play.group([(1, 0), (2, 0), (3, 0)])
        play.start()
        play.dispatcher.drain()
        play.go()
        returned = [call for message in play.messages(Returned) for call in message.calls]
        assert returned == [2, 3]
        play.group([(4, 0)])
        assert play.sent[-1] == Returned([4], True)

    @pytest.mark.parametrize("done", [0, 1])
    def test_drain_tells_the_outcomes_of_a_range_before_it_gives_back_the_rest(self, done):
        play = Play().attach()
        play.group([(1, 5)])
        if done:
            play.run(micros=10**6)
        play.start()
        play.dispatcher.drain()
        play.go()
        assert play.messages(Returned) == [Returned([], True)]
        play.dispatcher.frames(0, [(max(play.rows), done, RESULT, 10, b"r")])
        play.go()
        *_, results, returned = play.sent
        assert [outcome[1] for outcome in results.outcomes] == list(range(done + 1))
        assert returned == Returned([1], True)
        play.dispatcher.renew("c", Renew(1, 9, []), 0.0)
        assert not play.dispatcher.busy
