"""Which of CPython's tests cannot say anything about `K8sRabbitExecutor`, and why: all of them.

The only good reason is that a test looks at what `ProcessPoolExecutor` keeps to itself; two that
are foreseen also demand a failure where this executor goes on. Where a test also shows something
that users rely on, ``shown_by`` names our own test of that, in
``tests/integration/test_standard_library.py``.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Exclusion:
    """One test that is not run.

    Attributes:
        test: class of CPython's that defines it for process pools, and its name.
        reason: why it cannot pass, whatever the executor does.
        shown_by: our own test of what it promises to users.
        since: the first Python that has it.
        foreseen: read in CPython's repository, not seen in a release that these tests ran on:
            it may be absent.
    """

    test: str
    reason: str
    shown_by: str | None = None
    since: tuple[int, int] = (3, 11)
    foreseen: bool = False


EXCLUSIONS = (
    Exclusion(
        test="ProcessPoolExecutorTest.test_killed_child",
        reason="takes the process to kill from _processes, and a killed process breaks the pool",
        shown_by="test_a_killed_process_fails_its_call_and_no_other",
    ),
    Exclusion(
        test="ProcessPoolExecutorTest.test_traceback",
        reason="the cause must be a _RemoteTraceback; here the frames are in the traceback itself",
        shown_by="test_the_remote_line_is_in_what_excepthook_prints",
    ),
    Exclusion(
        test="ProcessPoolExecutorTest.test_saturation",
        reason="counts _processes, and its calls fail to pickle a multiprocessing semaphore",
        shown_by="test_more_calls_than_cpus",
    ),
    Exclusion(
        test="ProcessPoolExecutorTest.test_idle_process_reuse_one",
        reason="counts _processes; here they were there before the executor",
    ),
    Exclusion(
        test="ProcessPoolExecutorTest.test_idle_process_reuse_multiple",
        reason="counts _processes; here they were there before the executor",
    ),
    Exclusion(
        test="ProcessPoolExecutorTest.test_max_tasks_per_child",
        reason="counts _processes",
        shown_by="test_max_tasks_per_child_replaces_the_process",
    ),
    Exclusion(
        test="ProcessPoolExecutorTest.test_max_tasks_per_child_defaults_to_spawn_context",
        reason="reads _mp_context; no start method is involved",
    ),
    Exclusion(
        test="ProcessPoolShutdownTest.test_processes_terminate",
        reason="counts _processes, and a pod's processes outlive the executor by design",
        shown_by="test_shutdown_waits_for_running_calls_and_leaves_no_thread",
    ),
    Exclusion(
        test="ExecutorDeadlockTest.test_gh105829_should_not_deadlock_if_wakeup_pipe_full",
        reason="replaces parts of _ExecutorManagerThread and _ThreadWakeup",
        shown_by="test_a_burst_of_submits_before_the_manager_runs",
        since=(3, 12),
    ),
    # Read in CPython's repository, for 3.14 and later.
    Exclusion(
        test="ProcessPoolExecutorTest.test_terminate_workers",
        reason="replaces _force_shutdown",
        shown_by="test_ending_the_workers_fails_what_runs_and_stops_the_executor",
        since=(3, 14),
        foreseen=True,
    ),
    Exclusion(
        test="ProcessPoolExecutorTest.test_kill_workers",
        reason="replaces _force_shutdown",
        shown_by="test_ending_the_workers_fails_what_runs_and_stops_the_executor",
        since=(3, 14),
        foreseen=True,
    ),
    Exclusion(
        test="ProcessPoolExecutorTest.test_force_shutdown_workers_invalid_op",
        reason="calls _force_shutdown",
        since=(3, 14),
        foreseen=True,
    ),
    Exclusion(
        test="ProcessPoolExecutorTest.test_force_shutdown_workers",
        reason="replaces methods of one of _processes",
        shown_by="test_ending_the_workers_fails_what_runs_and_stops_the_executor",
        since=(3, 14),
        foreseen=True,
    ),
    Exclusion(
        test="ProcessPoolExecutorTest.test_force_shutdown_workers_stops_pool",
        reason="takes a process from _processes",
        shown_by="test_ending_the_workers_fails_what_runs_and_stops_the_executor",
        since=(3, 14),
        foreseen=True,
    ),
    Exclusion(
        test="ProcessPoolExecutorTest.test_traceback_when_child_process_terminates_abruptly",
        reason="the cause must be a _RemoteTraceback; here the message itself has the exit code",
        shown_by="test_a_killed_process_fails_its_call_and_no_other",
        since=(3, 14),
        foreseen=True,
    ),
    Exclusion(
        test="ProcessPoolExecutorTest.test_broken_process_pool_traceback",
        reason="takes the process to kill from _processes",
        shown_by="test_futures_of_a_broken_executor_have_errors_of_their_own",
        since=(3, 14),
        foreseen=True,
    ),
    Exclusion(
        test="ProcessPoolExecutorTest.test_shutdown_no_wait_max_tasks_gh119592",
        reason="calls of a collected executor must fail, as the standard library cannot replace "
        "its processes any more; here they are finished",
        shown_by="test_an_abandoned_executor_finishes_its_calls",
        since=(3, 14),
        foreseen=True,
    ),
    Exclusion(
        test="ProcessPoolExecutorTest.test_gc_during_max_tasks_worker_exit_gh152967",
        reason="calls of a collected executor must fail, as the standard library cannot replace "
        "its processes any more; here they are finished",
        shown_by="test_an_abandoned_executor_finishes_its_calls",
        since=(3, 14),
        foreseen=True,
    ),
    Exclusion(
        test="ProcessPoolExecutorTest.test_force_shutdown_during_max_tasks_worker_exit",
        reason="sets _force_shutting_down",
        since=(3, 14),
        foreseen=True,
    ),
    Exclusion(
        test="ProcessPoolExecutorTest.test_failed_worker_replacement_breaks_pool",
        reason="replaces _spawn_worker",
        since=(3, 14),
        foreseen=True,
    ),
)
