"""What a model is trained on: conversations of the calibration traffic, and of the suites' train split.

    conversations, drafts -> token ids and how much each counts -> TrainingSet -> held against the cases of the gates

Nothing that a gate may ask is in it: a suite's problems are of its train and tune splits alone (decision 0002), traffic
is compared with the cases, and what decides when to stop is never trained on.
"""

from __future__ import annotations

import hashlib
import math
import random
import struct
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from quantgate.calibrate import Conversation, Turns
from quantgate.errors import ComparabilityError, DataError, Overlap
from quantgate.evaluate import overlap, suites
from quantgate.evaluate.overlap import SHOWN, Overlaps, Sample
from quantgate.evaluate.suites import Case, Draft, Split
from quantgate.models import OpenedModel
from quantgate.records import digest_of
from quantgate.train import DataSummary, Document, TrainingSet, tokens_of
from quantgate.train._rendering import Drawn, Told, documents, of_turns
from quantgate.train.options import TrainOptions

TRAFFIC = "traffic"  # the source that is no suite
HARD = 0.1  # share of hard drafts, so that harder slices are met as well
HELD_OUT = 0.1  # share of the traffic's conversations that train nothing
TASTE = 64  # documents of a suite by which its share is measured in tokens
PROBE = "Don't  split 3.14159 or na\u00efve caf\u00e9s, \u65e5\u672c!\n\tdef f(x): return x**2"  # a hard text
PATIENCE = 30  # drafts for every document wanted, after which a suite is taken to have no other


def training_set(
    model: OpenedModel,
    *,
    turns: Sequence[Turns | Conversation] = (),
    others: Mapping[str, Sequence[Turns]] = {},
    suites: Sequence[str] = (),
    options: TrainOptions,
) -> TrainingSet:
    """All of ``turns`` (the calibration traffic) but a tenth, and ``options.documents`` of the suites' train split.

    ``others`` are further conversations by source, such as the training rows of a published suite. Every suite has as
    many tokens. Deciding when to stop are the tenth, and problems of the suites' tune split: ``options.tune`` in all,
    as many of each source. A conversation stands there once. Raises UnknownName, DataError where neither is named or
    nothing is left to train on, ModelError for a model without a chat template.
    """
    given = {source: some for source, some in {TRAFFIC: turns, **others}.items() if some}
    if not given and not suites:
        raise DataError("training: neither traffic nor a suite is named, so there is nothing to train on; name one")
    told, limit = Told(), min(options.max_tokens, model.context)
    maker = _Maker(model, options, limit, told)
    share = math.ceil(options.tune / (len(suites) + len(given)))
    trained, tune = list[Document](), list[Document]()
    for source, some in given.items():
        kept, aside = maker.given(source, some, share)
        trained, tune = trained + kept, tune + aside
    if suites:
        trained += maker.of_suites(suites, "train", options.documents)
        tune += maker.of_suites(suites, "tune", share * len(suites))
    if not trained or not tune:
        raise DataError(
            f"training: {len(trained)} conversations to train on and {len(tune)} to stop by are left of at most "
            f"{limit} tokens; allow longer ones (max_tokens), or name more traffic or suites"
        )
    return TrainingSet(trained, tune, _summary(trained, tune), maker.notes())


def check_overlap(
    data: TrainingSet, cases: Sequence[Case], *, allowed: Sequence[str] = (), record: Path | None = None
) -> Overlaps:
    """Hold all that trains, or decides when training stops, against the cases of the gates.

    Documents of a suite cannot hold a problem of its gate split (decision 0002), so of these only the same text
    counts. ``record`` gets the pairs, if there are any. Raises Overlap with the first of them, UsageError for an
    ``allowed`` that names nothing.
    """
    known, drafted, others = frozenset(suites.names()), list[Sample](), list[Sample]()
    for at, one in enumerate([*data.documents, *data.tune], 1):
        (drafted if one.source in known else others).append(Sample(at, one.turns))
    found = [
        overlap.find(samples, cases, allowed=allowed, apart=apart)
        for samples, apart in ((others, ()), (drafted, known))
        if samples
    ]
    whole = _joined(found)
    if whole.items:
        listed = f", all listed in {whole.save(record)}" if record else ""
        first = "; ".join(pair.sentence for pair in whole.blocking[:SHOWN])
        more = f" and {whole.items - SHOWN} more" if whole.items > SHOWN else ""
        raise Overlap(
            f"training data overlaps with the gate: {first}{more}{listed}; a gate must ask what training has not seen: "
            "remove them from one of the two, or name what you accept under calibration: allow_overlap"
        )
    return whole


def check_teacher(model: OpenedModel, teacher: OpenedModel) -> OpenedModel:
    """``teacher``, if it can say what ``model`` should: the same tokens, in the same chat template.

    Raises ComparabilityError.
    """
    for what, one, other in (
        ("tokenizer", model.tokenizer_digest, teacher.tokenizer_digest),
        ("chat template", model.template_digest, teacher.template_digest),
    ):
        if one != other and (what != "tokenizer" or not _same_tokens(model, teacher)):
            raise ComparabilityError(
                f"teacher {teacher.ref}: has another {what} than {model.ref}, so what it expects cannot be held "
                "against the model token by token; name a teacher of the same family, or leave it out"
            )
    return teacher


def _same_tokens(model: OpenedModel, teacher: OpenedModel) -> bool:
    """Whether tokenizers whose files differ (another version wrote them) have one vocabulary and cut alike."""
    one, other = model.tokenizer, teacher.tokenizer
    return bool(one.get_vocab() == other.get_vocab() and one(PROBE)["input_ids"] == other(PROBE)["input_ids"])


def _joined(found: Sequence[Overlaps]) -> Overlaps:
    return found[0].model_copy(
        update={name: sum(getattr(one, name) for one in found) for name in ("samples", "items", "sources", "allowed")}
        | {"pairs": tuple(pair for one in found for pair in one.pairs)}
    )


class _Maker:
    """Documents that differ from each other, over all sources and both splits."""

    def __init__(self, model: OpenedModel, options: TrainOptions, limit: int, told: Told) -> None:
        self.model, self.options, self.limit, self.told = model, options, limit, told
        self.seen, self.repeated, self.short = set[tuple[int, ...]](), 0, dict[str, int]()

    def notes(self) -> tuple[str, ...]:
        """What to tell of the set, in sentences."""
        told, short = self.told, [f"{name} ({count})" for name, count in self.short.items()]
        said = {
            f"{self.repeated} conversations stood there twice": self.repeated,
            f"{told.refused} conversations were left out, because the chat template refuses them": told.refused,
            f"{told.cut} conversations were cut to {self.limit} tokens, {told.unanswered} of them in front of the last "
            "answer": told.cut,
            f"{told.hidden} earlier answers count as prompts do, because the chat template does not tell where they "
            "stand": told.hidden,
            f"in {told.alike} conversations all tokens count alike, because the chat template does not tell where the "
            "answers stand": told.alike,
            f"suites with fewer different problems of that length than wanted: {', '.join(short)}": len(short),
        }
        return tuple(sentence for sentence, count in said.items() if count)

    def given(
        self, source: str, turns: Sequence[Turns | Conversation], most: int
    ) -> tuple[list[Document], list[Document]]:
        """Those that train, and a tenth of them, at most ``most``, by a hash of their content, that do not."""
        drawn = [Drawn(source, one if isinstance(one, Conversation) else of_turns(one)) for one in turns]
        made = [(one.conversation.digest, document) for one, document in zip(drawn, self._made(drawn), strict=True)]
        distinct = [(name, document) for name, document in made if document and self._new(document)]
        self.repeated += sum(document is not None for _, document in made) - len(distinct)
        count = min(most, max(1, round(HELD_OUT * len(distinct)))) if len(distinct) > 1 else 0
        aside = set(sorted((name for name, _ in distinct), key=lambda name: digest_of(["tune", name]))[:count])
        train = [document for name, document in distinct if name not in aside]
        return train, [document for name, document in distinct if name in aside]

    def of_suites(self, names: Sequence[str], split: Split, count: int) -> list[Document]:
        """``count`` documents, the same number of tokens from each suite; of the tune split as many of each."""
        sources = {name: self._stream(name, split) for name in dict.fromkeys(names)}
        if split == "tune":
            wanted = dict.fromkeys(sources, -(-count // len(sources)))
            taste = {name: list[Document]() for name in sources}
        else:
            taste = {name: self._draw(name, sources[name], min(TASTE, -(-count // len(sources)))) for name in sources}
            frequency = {name: len(some) / tokens_of(some) for name, some in taste.items()}
            whole = sum(frequency.values())
            wanted = {name: max(1, round(count * one / whole)) for name, one in frequency.items()}
        found = list[Document]()
        for name, stream in sources.items():
            some = taste[name][: wanted[name]]
            some += self._draw(name, stream, wanted[name] - len(some))
            if len(some) < wanted[name]:
                self.short[name if split == "train" else f"{name}, {split}"] = len(some)
            found += some
        return found

    def _stream(self, name: str, split: Split) -> Iterator[Drawn]:
        seed, rng = self.options.seed, random.Random(f"training/{name}/{split}/{self.options.seed}")
        suite = suites.get(name)
        easy, hard = suites.drafts(suite, split, seed), suites.drafts(suite, split, seed, "hard")
        while True:
            yield Drawn(name, of_turns(_turns(next(hard if rng.random() < HARD else easy))))

    def _draw(self, name: str, stream: Iterator[Drawn], count: int) -> list[Document]:
        """``count`` new documents that fit, or fewer where the suite has no more. Raises DataError for none."""
        found, tries = list[Document](), 0
        while len(found) < count and tries < PATIENCE * max(count, 8):
            drawn = [next(stream) for _ in range(count - len(found))]
            tries += len(drawn)
            found += [one for one in self._made(drawn, whole=True) if one and self._new(one)]
        if count > 0 and not found:
            raise DataError(
                f"suite '{name}': no conversation of at most {self.limit} tokens among {tries}; allow longer ones "
                "(max_tokens), or leave the suite out"
            )
        return found

    def _made(self, drawn: Sequence[Drawn], *, whole: bool = False) -> list[Document | None]:
        """``whole``: None for what is too long, instead of its beginning."""
        if not whole:
            return documents(self.model, drawn, prompts=self.options.prompts, limit=self.limit, told=self.told)
        made = documents(self.model, drawn, prompts=self.options.prompts, limit=self.limit + 1, told=Told())
        return [one if one and len(one.ids) <= self.limit else None for one in made]

    def _new(self, document: Document) -> bool:
        key = tuple(document.ids)
        if key in self.seen:
            return False
        self.seen.add(key)
        return True


def _turns(draft: Draft) -> Turns:
    return (*draft.messages, ("assistant", draft.answer))


def _summary(trained: Sequence[Document], tune: Sequence[Document]) -> DataSummary:
    return DataSummary(
        content=_content(trained, tune),
        documents=dict(Counter(one.source for one in trained)),
        tokens=tokens_of(trained),
        tune=len(tune),
    )


def _content(*parts: Sequence[Document]) -> str:
    """Over every token and weight, in order."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(struct.pack("<q", len(part)))
        for one in part:
            size = len(one.ids)
            whole.update(struct.pack(f"<q{size}q{size}d", size, *one.ids, *one.wanted))
    return f"sha256:{whole.hexdigest()}"
