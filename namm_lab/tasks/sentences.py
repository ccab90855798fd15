"""Several documents of real text, and sentences of them that are to be gone on with: questions with
answers that need no label, of any folder.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import dataclass

from namm_lab.tasks.material import Material
from namm_lab.tasks.sample import Question, Sample
from namm_lab.tasks.task import Task

ASK = 'Which word comes next in the sentence of the documents that begins with "{start}"?'
TOKENS = 16  # of a reply
PASSAGE = (100, 300)  # tokens of a document
BEFORE = 6  # words of a sentence that are given, at least
LETTERS = 6  # of a word that is asked for, at least; it stands in the documents once


@dataclass(frozen=True)
class Sentences(Task):
    """`Document 3: ...`; the next word of a sentence, which no other sentence has."""

    def draw(self, rng: random.Random, material: Material, length: int) -> Sample:
        passages: list[list[str]] = []
        left = length
        while left > 8 or not passages:
            size = max(8, min(left - 4, rng.randint(*PASSAGE)))
            passages.append(material.need_prose().take(rng, size, material.count))
            left -= material.count(_numbered(len(passages), passages[-1]))
        document = "".join(_numbered(number, text) for number, text in enumerate(passages, 1))
        found = [sentence for passage in passages for sentence in passage[:-1]]
        asked = _askable(document, found)
        chosen = rng.sample(asked, min(self.questions, len(asked)))
        return Sample(self.name, document, tuple(_question(*each) for each in chosen))


def _numbered(number: int, sentences: list[str]) -> str:
    text = " ".join("".join(sentences).split())
    return f"Document {number}: {text}\n"


def _askable(document: str, sentences: list[str]) -> list[tuple[str, str]]:
    """Beginnings of sentences, and the word that follows."""
    counts = Counter(re.findall(r"\w+", document.lower()))
    found: dict[str, str] = {}
    for sentence in sentences:
        words = sentence.split()
        for at in range(BEFORE, len(words)):
            word, start = words[at], " ".join(words[:at])
            if '"' in start or document.count(start) != 1:
                break
            is_word = re.fullmatch(r"[^\W\d_]+", word) is not None
            if is_word and len(word) >= LETTERS and counts[word.lower()] == 1:
                found[start] = word
                break
    return list(found.items())


def _question(start: str, word: str) -> Question:
    return Question(
        ASK.format(start=start), word, (word,), metric="string_match_part", max_tokens=TOKENS
    )
