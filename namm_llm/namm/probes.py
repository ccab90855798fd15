"""Which probes a NAMM was made for: short texts that are run against the cache at an update and
thrown away.

Their attention shows what questions look for. They are never the user's question, and they must not
know the evaluation's wording.
"""

from dataclasses import dataclass

from namm_llm.errors import NammFileError


@dataclass(frozen=True)
class Probes:
    """texts: those that are run unless a user names others. every: they are run at each so-many-th
    update. averaged: their attention goes into the averages of the spectrogram, behind that of the
    text (`Memory.probed` has a column of its own instead, or as well).
    """

    texts: tuple[str, ...] = ()
    every: int = 1
    averaged: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "texts", tuple(self.texts))  # a file has lists
        if self.every < 1:
            raise NammFileError(
                f"probes are run at every update (1) or at each so-many-th, not at each {self.every}."
            )


NO_PROBES = Probes()
