"""Another thread does the work in order, and nothing after what failed."""

import threading

import pytest

from gcattn.library.in_order import InOrder


def test_everything_is_done_in_order_by_another_thread():
    done = []
    with InOrder() as writing:
        for number in range(20):
            writing.do(lambda n=number: done.append((n, threading.get_ident())))
    assert [number for number, _ in done] == list(range(20))
    assert {thread for _, thread in done} != {threading.get_ident()}


def test_the_caller_is_at_most_so_far_ahead():
    begun, go, done = [], threading.Semaphore(0), []

    def work(number):
        begun.append(number)
        go.acquire()
        done.append(number)

    with InOrder(most_waiting=1) as writing:
        writing.do(lambda: work(0))
        writing.do(lambda: work(1))
        third = threading.Thread(target=writing.do, args=(lambda: work(2),))
        third.start()
        third.join(0.2)
        assert third.is_alive() and begun == [0]
        go.release(3)
        third.join(10)
        assert not third.is_alive()
    assert done == [0, 1, 2]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_nothing_is_done_after_a_failure_which_the_caller_is_told(error):
    done = []

    def fail():
        raise error("broken")

    with pytest.raises(error, match="broken"), InOrder(most_waiting=9) as writing:
        for work in (lambda: done.append(1), fail, lambda: done.append(3)):
            writing.do(work)
    assert done == [1]


def test_work_that_has_not_begun_is_dropped_when_the_caller_fails():
    begun, go, done = threading.Event(), threading.Event(), []

    def work():
        begun.set()
        go.wait(10)
        done.append(1)

    def leave():
        with InOrder(most_waiting=9) as writing:
            writing.do(work)
            writing.do(lambda: done.append(2))
            begun.wait(10)
            threading.Timer(0.2, go.set).start()
            raise ValueError("enough")

    with pytest.raises(ValueError, match="enough"):
        leave()
    assert done == [1]
