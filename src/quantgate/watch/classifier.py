"""A classifier of refusals in place of the rules: a folder with a transformers model for sequence classification.

It reads at the marking thread, off the path of requests, and costs milliseconds where the rules cost microseconds: what
it has no time for goes on without marks, and is counted. It is read as the rules are: a message's own field and a
filter say more than any model. Weights are safetensors, code of the folder is never run, and nothing is fetched.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from quantgate.errors import ModelError, PickleRefused, UsageError
from quantgate.watch import Talk
from quantgate.watch.signals import Signal
from quantgate.watch.signals import refusal as rules

READ = 2000  # characters of an answer, from its beginning
TOKENS = 512  # of them, at most
REFUSES = re.compile(r"refus|reject|declin", re.IGNORECASE)
NEGATED = re.compile(r"\b(?:no|not|non)[ _-]", re.IGNORECASE)


class Classifier:
    """``classifier(text)`` -> the probability that it declines, in [0, 1]."""

    def __init__(self, folder: str | Path, *, label: str | None = None, threshold: float = 0.5) -> None:
        """``label``: the one that means a refusal, where its name does not say so. Raises ModelError, PickleRefused,
        UsageError."""
        if not 0 < threshold < 1:
            raise UsageError(f"classifier: threshold {threshold} is no probability; choose one between 0 and 1")
        self.folder, self.threshold = Path(folder), threshold
        _sound(self.folder)
        self._tokenizer, self._model = _opened(self.folder)
        config = self._model.config
        labels = {int(at): str(name) for at, name in config.id2label.items()}
        self.label = _label(labels, label, self.folder.name)
        self._at = next(at for at, name in labels.items() if name == self.label)
        self._tokens = min(TOKENS, int(getattr(config, "max_position_embeddings", TOKENS)))

    def __call__(self, text: str) -> float:
        import torch

        batch = self._tokenizer(text[:READ], truncation=True, max_length=self._tokens, return_tensors="pt")
        with torch.inference_mode():
            scores = self._model(**batch).logits[0].float()
        if scores.numel() == 1:
            return float(scores.sigmoid()[0])
        return float(scores.softmax(dim=-1)[self._at])

    def mark(self, talk: Talk) -> float | None:
        told = rules.told(talk)
        if told is not None or not talk.said.strip():
            return told
        return float(self(talk.said.strip()) >= self.threshold)

    def signal(self) -> Signal:
        """The signal ``refusal``, read by it instead of by rules."""
        return dataclasses.replace(rules.SIGNAL, mark=self.mark)


def with_classifier(signals: Sequence[Signal], folder: str | Path) -> tuple[Signal, ...]:
    """The same signals, of which ``refusal`` is read by the classifier in ``folder``; it is opened only where that one
    is among them. Raises as Classifier does."""
    if all(one.name != rules.SIGNAL.name for one in signals):
        return tuple(signals)
    read = Classifier(folder).signal()
    return tuple(read if one.name == read.name else one for one in signals)


def _sound(folder: Path) -> None:
    """A folder with a configuration and safetensors."""
    if not (folder / "config.json").is_file():
        raise ModelError(f"classifier '{folder.name}': no config.json there; give the folder of a transformers model")
    if not any(folder.glob("*.safetensors")):
        pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt"))
        raise (PickleRefused if pickled else ModelError)(
            f"classifier '{folder.name}': no *.safetensors there; save its weights as safetensors "
            "(model.save_pretrained does)"
        )


def _opened(folder: Path) -> tuple[Any, Any]:
    """Tokenizer and model. A head that the file lacks would be drawn at random, so it is refused."""
    from safetensors import SafetensorError
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        model, loaded = AutoModelForSequenceClassification.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as problem:
        raise ModelError(
            f"classifier '{folder.name}': transformers cannot open it ({type(problem).__name__}: "
            f"{str(problem).partition(chr(10))[0][:200]}); give a folder with a model for sequence classification"
        ) from None
    if missing := sorted(loaded["missing_keys"]):
        raise ModelError(
            f"classifier '{folder.name}': its file lacks '{missing[0]}'; give one that learned to classify"
        )
    return tokenizer, model.eval()


def _label(labels: dict[int, str], wanted: str | None, where: str) -> str:
    names = list(labels.values())
    if wanted is not None:
        if wanted not in names:
            raise UsageError(f"classifier '{where}' has no label '{wanted}'; choose from {', '.join(names)}")
        return wanted
    found = [name for name in names if REFUSES.search(name) and not NEGATED.search(name)]
    if len(found) != 1:
        raise UsageError(
            f"classifier '{where}': none of its labels ({', '.join(names)}) alone says that an answer declines; "
            "name the one that does under id2label in its config.json, such as 'refusal'"
        )
    return found[0]
