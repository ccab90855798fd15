"""One key with several values, all of them wanted: `List all access codes of the amber vault.`"""

from __future__ import annotations

import random
from dataclasses import dataclass

from namm_lab.tasks.material import Material
from namm_lab.tasks.placement import KINDS, different_records, kinds, place_statements, records_for
from namm_lab.tasks.records import Record, draw_own_value, plural
from namm_lab.tasks.sample import Question, Sample
from namm_lab.tasks.task import Task

MOST = 4  # values of one key
TOKENS = 32  # of a reply for each value


@dataclass(frozen=True)
class Values(Task):
    """Every asked record has two to four values; the others have one."""

    def draw(self, rng: random.Random, material: Material, length: int) -> Sample:
        asked = self.questions if self.questions * MOST * 32 <= length else 1
        of = kinds(rng, material, rng.randint(1, KINDS))
        records = different_records(rng, material, max(records_for(length), asked + 2), of)
        groups = [_with_more_values(rng, material, record) for record in records[:asked]]
        stated = [record for group in groups for record in group] + records[asked:]
        rng.shuffle(stated)
        in_order = [[record for record in stated if record in group] for group in groups]
        return Sample(
            self.name,
            place_statements(rng, material, stated, length),
            tuple(map(_question, in_order)),
        )


def _with_more_values(rng: random.Random, material: Material, record: Record) -> list[Record]:
    values = {record.value: None}
    size = rng.randint(2, MOST)
    while len(values) < size:
        values[draw_own_value(rng, record.kind, material.names)] = None
    return [Record(record.kind, record.name, value) for value in values]


def _question(records: list[Record]) -> Question:
    return Question(
        prompt=f"List all {plural(records[0].kind)} of {records[0].name}.",
        answer="\n".join(record.answer for record in records),
        expected=tuple(record.value for record in records),
        metric="set_share",
        max_tokens=TOKENS * (len(records) + 1),
    )
