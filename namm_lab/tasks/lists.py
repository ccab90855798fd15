"""All records of one kind: `List all access codes.`"""

from __future__ import annotations

import random
from dataclasses import dataclass

from namm_lab.tasks.material import Material
from namm_lab.tasks.placement import different_records, kinds, place_statements, records_for
from namm_lab.tasks.records import LISTS, Record
from namm_lab.tasks.sample import Question, Sample
from namm_lab.tasks.task import Task

ASKED = 3  # kinds asked about, at most
LEAST, MOST = 2, 8  # records of an asked kind
TOKENS = 32  # of a reply for each record


@dataclass(frozen=True)
class Lists(Task):
    """Two to eight records of each asked kind, and records of other kinds between them."""

    def draw(self, rng: random.Random, material: Material, length: int) -> Sample:
        total = records_for(length)
        asked = kinds(rng, material, min(ASKED, self.questions))
        records = [
            r
            for kind in asked
            for r in different_records(rng, material, rng.randint(LEAST, MOST), [kind])
        ]
        others = [kind for kind in kinds(rng, material, ASKED + len(asked)) if kind not in asked]
        if total > len(records):
            records += different_records(rng, material, total - len(records), others)
        rng.shuffle(records)
        document = place_statements(rng, material, records, length)
        return Sample(
            self.name,
            document,
            tuple(_question(rng, [r for r in records if r.kind == kind]) for kind in asked),
        )


def _question(rng: random.Random, records: list[Record]) -> Question:
    return Question(
        prompt=records[0].say(rng.choice(LISTS)),
        answer="\n".join(record.answer for record in records),
        expected=tuple(f"{record.name.bare}: {record.value}" for record in records),
        metric="set_share",
        max_tokens=TOKENS * (len(records) + 1),
    )
