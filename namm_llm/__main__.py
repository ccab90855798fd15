"""`python -m namm_llm` is the command line."""

from namm_llm.cli.main import main

if __name__ == "__main__":
    main(prog_name="namm-llm")
