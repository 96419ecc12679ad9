"""An event loop in a thread, for programs that have none."""

import asyncio
import os
import signal

from lender.client.loop_thread import LoopThread


def test_a_process_that_was_forked_does_not_wait_for_what_is_not_there() -> None:
    thread = LoopThread("of the parent")
    child = os.fork()
    if not child:
        signal.alarm(20)
        try:
            thread.run(asyncio.sleep(0))
        except RuntimeError as error:
            os._exit(0 if "after the fork" in str(error) else 2)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    thread.run(asyncio.sleep(0))
    thread.stop()
    thread.join()
