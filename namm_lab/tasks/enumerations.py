"""All entries of one numbered kind: `List all exhibits.`"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from namm_lab.tasks.entries import ENTRY_KINDS, LISTS, Entry, draw_entries, listed
from namm_lab.tasks.material import Material
from namm_lab.tasks.placement import Stated, different_records, kinds, place_statements, records_for
from namm_lab.tasks.sample import Question, Sample
from namm_lab.tasks.task import Task

ASKED = 3  # kinds asked about, at most
TOKENS = 32  # of a reply for each entry


@dataclass(frozen=True)
class Enumerations(Task):
    """Two to nine numbered entries of each asked kind, in any order, and records between them."""

    def draw(self, rng: random.Random, material: Material, length: int) -> Sample:
        asked = [
            draw_entries(rng, material.names, kind)
            for kind in rng.sample(ENTRY_KINDS, min(ASKED, self.questions))
        ]
        entries = [entry for of in asked for entry in of]
        more = max(1, records_for(length) - len(entries))
        stated: list[Stated] = [
            *entries,
            *different_records(rng, material, more, kinds(rng, material, ASKED)),
        ]
        rng.shuffle(stated)
        return Sample(
            self.name,
            place_statements(rng, material, stated, length),
            tuple(_question(rng, of) for of in asked),
        )


def _question(rng: random.Random, entries: Sequence[Entry]) -> Question:
    return Question(
        prompt=entries[0].say(rng.choice(LISTS)),
        answer="\n".join(entry.answer for entry in listed(entries)),
        expected=tuple(entry.say("{number}: {content}") for entry in entries),
        metric="set_share",
        max_tokens=TOKENS * (len(entries) + 1),
    )
