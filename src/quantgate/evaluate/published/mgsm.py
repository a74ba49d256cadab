"""mgsm: the first 250 test problems of GSM8K, translated by people (Shi et al. 2022, arXiv:2210.03057).

One row in several languages is one problem, and a paired test takes its cases for independent ones. So every row is
asked once, in a language that the seed draws, as many rows in each language as in any other: 250 independent cases, of
which each language has its share as a slice. ``languages: [de]`` asks all of them in one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from quantgate.errors import DataError, UnknownName
from quantgate.evaluate.published import Hub, Options, Published, Rows, Table
from quantgate.evaluate.published._tables import text_of
from quantgate.evaluate.suites import Case, Message
from quantgate.records import digest_of

ASK = {  # the last line is marked in English everywhere, so that one reader of numbers serves all of them
    "bn": "ধাপে ধাপে সমাধান করো, এবং শেষ লাইনে লেখো 'Answer: N', যেখানে N শুধু সংখ্যাটি।",
    "de": "Löse die Aufgabe Schritt für Schritt und ende mit einer Zeile 'Answer: N', in der N nur die Zahl ist.",
    "en": "Work it out step by step, and end with a line 'Answer: N', where N is the number alone.",
    "es": "Resuélvelo paso a paso y termina con una línea 'Answer: N', donde N es solo el número.",
    "fr": "Résous le problème étape par étape et termine par une ligne 'Answer: N', où N est le nombre seul.",
    "ja": "順を追って解き、最後の行に 'Answer: N' と書いてください。N は数字だけです。",
    "ru": "Реши задачу шаг за шагом и закончи строкой 'Answer: N', где N — только число.",
    "sw": "Tatua hatua kwa hatua, na umalizie kwa mstari 'Answer: N', ambapo N ni nambari pekee.",
    "te": "దశలవారీగా పరిష్కరించి, చివరి వరుసలో 'Answer: N' అని రాయండి, N అంటే సంఖ్య మాత్రమే.",
    "th": "แก้โจทย์ทีละขั้นตอน และจบด้วยบรรทัด 'Answer: N' โดยที่ N คือตัวเลขเท่านั้น",
    "zh": "请一步一步解答，并以一行 'Answer: N' 结尾，其中 N 只是数字。",
}


class Languages(Options):
    languages: tuple[str, ...] = Field(
        default=(), description="languages to ask in; left out, those whose file lies there"
    )


def case_of(language: str, number: int, where: str, row: Mapping[str, Any]) -> Case:
    question = text_of(row, "question", where).strip()
    figure = str(row["answer_number"]).strip().replace(",", "")
    if not re.fullmatch(r"-?[0-9]+", figure):
        raise DataError(f"{where}: the answer is {row['answer_number']!r} instead of a whole number; mend the line")
    return Case(
        suite="mgsm",
        id=f"mgsm-{language}-{number}",
        messages=(Message(role="user", content=f"{question}\n\n{ASK[language]}"),),
        scorer="numeric",
        reference=int(figure),
        slices=(f"lang={language}",),
        max_tokens=512,
    )


def read(rows: Mapping[str, Rows], options: Languages, seed: int) -> list[Case]:
    languages = _wanted(rows, options)
    counts = {language: len(rows[language]) for language in languages}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{language}: {count}" for language, count in counts.items())
        raise DataError(f"mgsm: the languages have different numbers of rows ({listed}); take the files as published")
    order = sorted(range(counts[languages[0]]), key=lambda number: digest_of(["mgsm", seed, number]))
    asked = {number: languages[at % len(languages)] for at, number in enumerate(order)}
    for number in order:
        _same_answer(rows, languages, number)
    return [case_of(asked[number], number, *rows[asked[number]][number]) for number in sorted(asked)]


def _wanted(rows: Mapping[str, Rows], options: Languages) -> list[str]:
    for language in options.languages:
        if language not in ASK:
            raise UnknownName("language", language, ASK, where="mgsm: options: languages")
        if language not in rows:
            raise DataError(
                f"mgsm: options: languages: no mgsm_{language}.tsv there; add it, or leave '{language}' out"
            )
    if len(set(options.languages)) < len(options.languages):
        raise DataError("mgsm: options: languages: one is named twice; name each once")
    return sorted(options.languages or rows)


def _same_answer(rows: Mapping[str, Rows], languages: list[str], number: int) -> None:
    """One row must be one problem: files that were sorted or cut apart do not belong together."""
    answers = {str(rows[language][number][1]["answer_number"]).replace(",", "").strip() for language in languages}
    if len(answers) > 1:
        where = rows[languages[0]][number][0]
        raise DataError(f"{where}: the same row has other answers in other languages; take the files as published")


PUBLISHED = Published(
    name="mgsm",
    about="Word problems come out wrong in a language that is not English.",
    margin=0.05,
    licence="CC BY 4.0",
    source="google-research/url-nlp, mgsm",
    tables={
        language: Table(
            (f"mgsm_{language}.tsv",),
            ("question", "answer_number"),
            form="tsv",
            hub=Hub("juletxara/mgsm", language, "test"),
            needed=False,
        )
        for language in ASK
    },
    read=read,
    options=Languages,
)
