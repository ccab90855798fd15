"""`namm-llm` and `python -m namm_llm` are the command line."""

import os
import signal
import sys
from types import FrameType


class WithoutTriton:
    """A finder on `sys.meta_path` that leaves Triton out where there is no accelerator to run it:
    transformers imports it through torch, for 70 MB of every process.
    """

    def find_spec(self, name: str, *_: object) -> None:
        """Find nothing; decide when transformers is looked for."""
        if name == "transformers":
            import torch

            sys.meta_path.remove(self)
            if not torch.accelerator.is_available():
                sys.modules.setdefault("triton", None)  # type: ignore[arg-type]


def interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, but end the process at once while numpy is being imported, which
    answers with a RecursionError if it is half imported.
    """
    while frame is not None:
        code = frame.f_code
        if code.co_name == "<module>" and f"{os.sep}numpy{os.sep}" in code.co_filename:
            os.write(2, b"Interrupted.\n")
            os._exit(130)
        frame = frame.f_back
    raise KeyboardInterrupt


def run() -> None:
    """The command line; Ctrl-C while it is still being imported ends it without a traceback."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not ignored, as under nohup
        signal.signal(signal.SIGINT, interrupt)
    sys.meta_path.insert(0, WithoutTriton())
    try:
        from namm_llm.cli.main import main
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)
    main(prog_name="namm-llm")


if __name__ == "__main__":
    run()
