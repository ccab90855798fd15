"""`namm-llm` and `python -m namm_llm` are the command line."""

import sys


def run() -> None:
    """The command line; Ctrl-C while it is still being imported ends it without a traceback."""
    try:
        from namm_llm.cli.main import main
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)
    main(prog_name="namm-llm")


if __name__ == "__main__":
    run()
