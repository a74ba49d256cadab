"""Running text as documents, and documents as windows of a model's context."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest
from pathlib import Path

from quantgate.errors import DataError, UsageError
from quantgate.evaluate.drift.passages import Passage

END = "<|endoftext|>"
HEADING = re.compile(r"^ = (?=[^=\s]).*(?<=[^=\s]) = *$", re.MULTILINE)  # of a WikiText article, not of its sections


def read_documents(path: Path) -> list[str]:
    """The documents of a file: one a line of JSONL ({"text": ...}), or what stands between marks of plain text.

    Marks are ``<|endoftext|>`` or the headings of WikiText; a plain text without either is one document. Raises
    DataError for a file that cannot be read, a line that is no JSON with a text, and when nothing is left.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise DataError(f"{path}: cannot be read as UTF-8 text ({problem}); name a .txt or .jsonl file") from None
    if path.suffix == ".jsonl":
        found = [_line(path, number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    elif END in text:
        found = text.split(END)
    else:
        starts = [match.start() for match in HEADING.finditer(text)] or [0]
        found = [text[low:high] for low, high in zip(starts, [*starts[1:], len(text)], strict=True)]
    documents = [one.strip("\n") for one in found if one.strip()]
    if not documents:
        raise DataError(f"{path}: holds no text; name a file with running text")
    return documents


def _line(path: Path, number: int, line: str) -> str:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as problem:
        raise DataError(f"{path}, line {number}: not JSON ({problem}); mend or delete the line") from None
    text = row.get("text") if isinstance(row, dict) else row
    if not isinstance(text, str):
        raise DataError(f'{path}, line {number}: holds no text; expected {{"text": "..."}}')
    return text


def windows(
    documents: Iterable[tuple[str, Sequence[str]]],
    encode: Callable[[str], list[int]],
    context: int,
    *,
    start: int | None = None,
    most: int | None = None,
    seed: int = 0,
) -> list[Passage]:
    """Windows of ``context`` tokens, full ones but for the last of each document, every token scored but the first.

    ``documents`` are (name, texts) of files; ``encode`` gives ids, of which the first may be ``start``, the token that
    begins a sequence, and then begins every window, as in llama.cpp. Windows are taken until ``most`` tokens are
    scored, the first one of each document in a seeded order, then the second ones: many documents tell more than a long
    one. One document alone is cut into windows that count as documents. Raises UsageError when
    the context is shorter than 2 tokens, DataError when no document has two.
    """
    if context < 2:
        raise UsageError(f"a window of {context} tokens leaves nothing to score; give at least 2")
    texts = [(name, text) for name, many in documents for text in many]
    random.Random(seed).shuffle(texts)
    cut: list[list[Passage]] = []
    first = 0  # tokens scored in the first windows alone
    for index, (name, text) in enumerate(texts):
        if most is not None and first >= most:
            break
        own = [Passage(ids, 1, index, (f"text={name}",)) for ids in _cut(encode(text), context, start) if len(ids) > 1]
        cut.append(own)
        first += len(own[0].ids) - 1 if own else 0
    found, scored = list[Passage](), 0
    for passage in (one for row in zip_longest(*cut) for one in row if one is not None):
        if most is not None and scored >= most:
            break
        scored += len(passage.ids) - 1
        found.append(passage)
    if not found:
        raise DataError("no document has two tokens, so no token can be predicted; give longer text")
    if len({one.document for one in found}) == 1:
        found = [Passage(one.ids, 1, at, one.names) for at, one in enumerate(found)]
    return found


def _cut(ids: list[int], context: int, start: int | None) -> list[list[int]]:
    begun = ids[:1] if start is not None and ids[:1] == [start] else []
    rest, step = ids[len(begun) :], context - len(begun)
    return [begun + rest[low : low + step] for low in range(0, len(rest), step)]
