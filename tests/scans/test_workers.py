import os

import pytest

from scanlearn.scans.workers import Lost, run_in_order
from scans.deadly import Unreadable, double_or_die, process, talk


def groups(*tasks, size=3):
    return [tasks[i : i + size] for i in range(0, len(tasks), size)]


def test_results_come_in_the_order_of_the_tasks():
    assert list(run_in_order(double_or_die, groups(*range(40)), 2, seconds=60)) == [2 * n for n in range(40)]
    assert list(run_in_order(double_or_die, groups(*range(5)), 0, seconds=60)) == [0, 2, 4, 6, 8]


def test_only_the_task_that_ends_its_process_is_lost():
    found = list(run_in_order(double_or_die, groups(1, "die", 3, 4, 5, 6, "die", 8, 9, 10), 2, seconds=60))
    lost = Lost("ended the program that read it (signal 11).")
    assert found == [2, lost, 6, 8, 10, 12, lost, 16, 18, 20]


def test_only_the_task_that_hangs_is_lost():
    found = list(run_in_order(double_or_die, groups(1, "hang", 3, 4, size=2), 2, seconds=2))
    assert found == [2, Lost("was not read within 2 seconds."), 6, 8]


def test_an_exception_of_the_function_is_raised_here():
    with pytest.raises(ValueError, match="a fault of the program"):
        list(run_in_order(double_or_die, groups(1, "raise", 3), 2, seconds=60))


def test_a_task_that_cannot_be_sent_is_a_fault_of_the_program_and_of_no_file():
    with pytest.raises(RuntimeError, match="un-serialize"):
        list(run_in_order(double_or_die, groups(1, Unreadable(), 3), 2, seconds=60))
    assert list(run_in_order(double_or_die, groups(7), 2, seconds=60)) == [14]


def test_processes_are_used_again_by_the_next_call():
    first = set(run_in_order(process, groups(*range(8), size=1), 1, seconds=60))
    assert first == set(run_in_order(process, groups(*range(8), size=1), 1, seconds=60)) and os.getpid() not in first


def test_what_is_under_way_ends_with_the_generator():
    results = run_in_order(double_or_die, groups(1, "hang", "hang", size=1), 2, seconds=60)
    assert next(results) == 2
    results.close()
    assert list(run_in_order(double_or_die, groups(7), 2, seconds=60)) == [14]


def test_what_decoders_say_stays_in_the_process(capfd):
    assert list(run_in_order(talk, groups(1, 2), 2, seconds=60)) == [1, 2]
    shown = capfd.readouterr()
    assert "anna" not in shown.out + shown.err
