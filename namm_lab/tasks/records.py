"""Records (kind, name, value), the sentences that state them, the questions about them and the
answers.

The bundled model was taught this phrasing (namm_lab/tiny); the tasks use it too, so that there
is one owner.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from namm_lab.tasks.words import Name, Names, own

NUMBER_KINDS = (
    "access code", "room number", "budget", "phone extension", "door code", "serial number",
    "order number", "locker number", "badge number", "account balance", "invoice number",
    "ticket number", "case number", "parcel weight", "street number", "platform number",
    "part number", "license number", "safe combination", "population", "height", "price",
    "headcount", "port number", "alarm code", "postal code", "meter reading", "flight number",
    "page count", "wire length",
)  # fmt: skip
WORD_KINDS = (
    "password",
    "colour",
    "owner",
    "destination",
    "code word",
    "contact",
    "cargo",
    "supplier",
)
MISSING = "not stated"

# {Kind} and {Name} begin with a capital; {bare} has no article. The first form is the commonest.
# In all of them the name stands right before the value: with forms where it does not ("Note: {name}
# has the {kind} {value}"), a
# model of this size stays at the share of the others.
FORMS = (
    "The {kind} of {name} is {value}.",
    "Note: the {kind} of {name} is {value}.",
    "The {kind} for {name} is {value}.",
    "Remember that the {kind} of {name} is {value}.",
)
FORM_WEIGHTS = (12, 2, 2, 2)
QUESTIONS = (
    "What is the {kind} of {name}?",
    "Tell me the {kind} of {name}.",
    "{bare} {kind}?",
    "What is {name}'s {kind}?",
    "Which {kind} does {name} have?",
    "Please give me the {kind} of {name}.",
    "Do you know the {kind} of {name}?",
    "What's the {kind} for {name}?",
)
QUESTION_WEIGHTS = (10, 10, 2, 2, 2, 2, 1, 2)
LISTS = (
    "List all {kinds}.",
    "List all the {kinds}.",
    "What are the {kinds}?",
    "Which {kinds} are stated?",
)


@dataclass(frozen=True)
class Record:
    """A kind, a name and a value: `The {kind} of {name} is {value}.`"""

    kind: str
    name: Name
    value: str

    def say(self, template: str) -> str:
        name = str(self.name)
        return template.format(
            kind=self.kind, kinds=plural(self.kind), name=name, bare=self.name.bare,
            value=self.value, Kind=self.kind[0].upper() + self.kind[1:],
            Name=name[0].upper() + name[1:],
        )  # fmt: skip

    def statement(self, rng: random.Random) -> str:
        return self.say(rng.choices(FORMS, FORM_WEIGHTS)[0])

    def question(self, rng: random.Random) -> str:
        return self.say(rng.choices(QUESTIONS, QUESTION_WEIGHTS)[0])

    @property
    def restatement(self) -> str:
        """The answer up to its value: saying the name again puts the look-up right before the
        value.
        """
        return self.say("The {kind} of {name} is")

    @property
    def answer(self) -> str:
        return f"{self.restatement} {self.value}."

    def missing(self) -> Record:
        return Record(self.kind, self.name, MISSING)


def plural(kind: str) -> str:
    if kind.endswith("y") and not kind.endswith(("ay", "ey")):
        return f"{kind[:-1]}ies"
    return f"{kind}es" if kind.endswith(("s", "x")) else f"{kind}s"


def draw_kind(rng: random.Random, names: Names, invented: float = 0.1) -> str:
    """Mostly a kind of the lists above, sometimes any two words, so that new kinds work."""
    if rng.random() < invented:
        return f"{names.word(rng)} {names.word(rng)}"
    return rng.choice(WORD_KINDS if rng.random() < 0.08 else NUMBER_KINDS)


def draw_value(rng: random.Random, kind: str, names: Names) -> str:
    if kind in WORD_KINDS:
        return names.word(rng)
    digits = rng.randint(3, 6)
    return str(rng.randrange(10 ** (digits - 1), 10**digits))


def draw_own_value(rng: random.Random, kind: str, names: Names) -> str:
    """A value that belongs to the split of the names, so that no split has seen another's."""
    return own(names.split, lambda: draw_value(rng, kind, names))


def draw_kinds(rng: random.Random, names: Names, count: int) -> list[str]:
    """At most `count` different kinds."""
    return list(dict.fromkeys(draw_kind(rng, names) for _ in range(count)))


def draw_records(
    rng: random.Random,
    names: Names,
    count: int,
    kinds: list[str],
    *,
    draw_value: Callable[[random.Random, str, Names], str] = draw_value,
    look_alikes: float = 0.2,
) -> list[Record]:
    """Records about different names; now and then a name has a second record of another kind."""
    records: list[Record] = []
    for name in names.distinct(rng, count, look_alikes):
        kind = rng.choice(kinds)
        if records and rng.random() < 0.1 and records[-1].kind != kind:
            name = records[-1].name
        records.append(Record(kind, name, draw_value(rng, kind, names)))
    return records


def draw_missing(rng: random.Random, names: Names, records: list[Record]) -> Record:
    """A record that is not there: a new name, a look-alike of a stated one, or a stated name's
    other kind.
    """
    stated = {(record.kind, record.name.bare.lower()) for record in records}
    while True:
        known = rng.choice(records)
        kind = known.kind if rng.random() < 0.7 else rng.choice(records).kind
        name = rng.choice((known.name, names.look_alike(rng, known.name), names.name(rng)))
        if (kind, name.bare.lower()) not in stated:
            return Record(kind, name, MISSING)
        if rng.random() < 0.5:
            kind = draw_kind(rng, names)
            if (kind, name.bare.lower()) not in stated:
                return Record(kind, name, MISSING)
