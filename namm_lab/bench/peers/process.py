"""A worker in another environment: jobs to its stdin, answers from its stdout, as JSON lines."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from tempfile import TemporaryFile
from typing import Any

from namm_llm import NammError


class PeerProcess:
    """The other process. Raises NammError, with the last line of its stderr, if it fails."""

    def __init__(self, name: str, command: Sequence[str]) -> None:
        """name: of the peer, as errors say it."""
        self._name = name
        self._errors = TemporaryFile("w+")  # noqa: SIM115  a pipe that nobody reads would fill up
        try:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
            )
        except OSError as error:
            self._errors.close()
            raise NammError(f"{name} cannot be started: {command[0]}: {error.strerror}.") from error

    def ask(self, job: dict[str, Any]) -> dict[str, Any]:
        """What the job found."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):  # it has ended; its stderr says why
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise NammError(f"{self._name} could not do {job['do']}: {self._last_error()}")
        found: dict[str, Any] = json.loads(line)
        return found

    def _last_error(self) -> str:
        self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        return lines[-1] if lines else "it was ended, perhaps for want of memory"

    def close(self) -> None:
        """End it."""
        with suppress(BrokenPipeError):  # it has ended already
            self._process.communicate()
        self._errors.close()
