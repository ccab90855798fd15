"""`namm-llm` and `python -m namm_llm` are the command line."""

import os
import signal
from types import FrameType


def interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, but end the process at once where a module is being imported.

    An exception there leaves half a module behind: numpy answers with a RecursionError.
    """
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            os.write(2, b"Interrupted.\n")
            os._exit(130)
        frame = frame.f_back
    raise KeyboardInterrupt


def run() -> None:
    """The command line."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not ignored, as under nohup
        signal.signal(signal.SIGINT, interrupt)
    from namm_llm.cli.main import main

    main(prog_name="namm-llm")


if __name__ == "__main__":
    run()
