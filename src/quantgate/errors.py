"""Every error a user can meet, each one sentence: what, where, expected, do.

Each class with the exit code it stands for, where it is not its parent's:

    QuantgateError                 exit 4  could not run
    |-- UsageError                 exit 2  the command line or a configuration file is wrong
    |   |-- UnknownName            a name that no plug-in, key or option has; says the nearest known one
    |   |-- SchemaRefused          a schema or a demand that no answer will be held to; names the key of the request
    |   `-- MissingExtra           an optional package is not installed; names the extra
    |-- ModelError                 a model cannot be opened: path, architecture, weights
    |   |-- PickleRefused          weights that are not safetensors
    |   `-- BadTensor              NaN or Inf, or a wrong shape or type, in a named tensor
    |-- FormatError                numbers that a format cannot hold, a group that does not divide
    |-- DataError                  traffic and suite files: a broken line, an empty suite, duplicate ids
    |   `-- Overlap                a calibration sample is also a gate case
    |-- ComparabilityError         two sides of a comparison were not asked and judged alike
    |-- RecordError                a saved record is broken, foreign, or of another version
    |-- ArtifactError              an artifact is incomplete, or its bytes do not match its manifest
    |   `-- WrongBytes             exit 1  the bytes are not those that a digest names; says which file
    |-- Unsupported                exit 1  a runtime is known not to run this variant on this hardware
    |-- EngineError                an engine could not answer
    |-- TrainingError            training cannot go on: diverged, NaN gradients, no memory; the last good state is kept
    |-- SandboxError             generated code cannot be contained on this machine, so it is not run
    |-- StoreError                 a bucket or folder elsewhere: not there, no rights, a transfer that was cut
    |-- ReleaseError               the registry cannot be read or written
    |   |-- NotPromoted            exit 1  no decision that passed for exactly these bytes, runtime and target
    |   |-- NoCapacity             exit 1  what a release would go back to is not up
    |   `-- Moved                  exit 1  somebody else moved the release meanwhile
    |-- SignatureError             exit 1  a signature is missing, or is not that of these bytes and that key
    |-- InvalidAnswer            an answer breaks what was asked of it, and nothing mended it
    |-- ApprovalRefused          a tool call that a person must approve has no approval that counts; has a code
    |-- GuardDead                  a guard did not fire in its proof at start, so nothing is served
    |-- DiskFull                   no room left; nothing half-written stays behind
    `-- Stopped                    exit 130  Ctrl-C; what was finished is kept
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class QuantgateError(Exception):
    """The root: one sentence in ``str(error)``, and the process exit code it stands for."""

    exit_code = 4


class UsageError(QuantgateError):
    """The command line or a configuration file is wrong."""

    exit_code = 2


class UnknownName(UsageError):
    """A name nobody has.

    >>> str(UnknownName("method", "gtpq", ["gptq", "rtn"], where="release.yaml"))
    "release.yaml: unknown method 'gtpq'; did you mean 'gptq'? Known: gptq, rtn"
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], *, where: str = "") -> None:
        known = sorted(known)
        prefix = f"{where}: " if where else ""
        super().__init__(f"{prefix}unknown {kind} '{name}'; {hint(name, known)}")
        self.name, self.known = name, known


class SchemaRefused(UsageError):
    """A schema, or another demand on an answer, that no answer will be held to; ``param`` is the request's key."""

    def __init__(self, sentence: str, *, param: str) -> None:
        super().__init__(sentence)
        self.param = param


class MissingExtra(UsageError):
    """An optional package is not installed; the sentence names the extra that brings it."""


class ModelError(QuantgateError):
    """A model cannot be opened: path, architecture or weights."""


class PickleRefused(ModelError):
    """Weights that are not safetensors; a pickle runs code when it is opened."""


class BadTensor(ModelError):
    """NaN or Inf, or a wrong shape or type, in a named tensor."""


class FormatError(QuantgateError):
    """Numbers that a format cannot hold, or a group size that does not divide."""


class DataError(QuantgateError):
    """Traffic and suite files: a broken line, an empty suite, duplicate case ids."""


class Overlap(DataError):
    """A calibration sample is also a gate case."""


class ComparabilityError(QuantgateError):
    """The two sides of a comparison were not asked and judged alike; says every difference with both values."""


class RecordError(QuantgateError):
    """A saved record is broken, foreign, or of another version."""


class ArtifactError(QuantgateError):
    """An artifact is incomplete, or its bytes do not match its manifest."""


class TrainingError(QuantgateError):
    """Training cannot go on: the loss diverged, gradients are NaN, memory ran out; says what is kept and what to do."""


class WrongBytes(ArtifactError):
    """An artifact was held against its digest, and a file of it is not what was released."""

    exit_code = 1


class Unsupported(QuantgateError):
    """A runtime is known not to run a variant on some hardware; the sentence names the rule and its source."""

    exit_code = 1


class EngineError(QuantgateError):
    """An engine could not answer."""


class SandboxError(QuantgateError):
    """Generated code cannot be contained on this machine, so it is not run."""


class StoreError(QuantgateError):
    """A bucket or folder elsewhere is not there, may not be used, or a transfer was cut; what is whole is kept."""


class ReleaseError(QuantgateError):
    """The registry of releases cannot be read or written; what it held before stands."""


class NotPromoted(ReleaseError):
    """No decision passed for exactly these bytes, this runtime and this target."""

    exit_code = 1


class NoCapacity(ReleaseError):
    """What a release would go back to is not up."""

    exit_code = 1


class Moved(ReleaseError):
    """Somebody else moved the release between looking and moving."""

    exit_code = 1


class SignatureError(QuantgateError):
    """A signature is missing, or is not that of these bytes and that key."""

    exit_code = 1


class InvalidAnswer(QuantgateError):
    """An answer breaks what was asked of it, and nothing mended it; asking again would not help."""

    code = "invalid_answer"


class ApprovalRefused(QuantgateError):
    """A tool call that a person must approve has no approval that counts: ``code`` says which way."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


class GuardDead(QuantgateError):
    """A guard let through what it is there to refuse, in its proof at start; nothing is served."""


class DiskFull(QuantgateError):
    """No room left on the device; nothing half-written stays behind."""


class Stopped(QuantgateError):
    """Ctrl-C: what was finished is kept, and the same command goes on from there."""

    exit_code = 130


def hint(name: str, known: Iterable[str]) -> str:
    """The end of an unknown-name sentence: the nearest known name, then all of them.

    >>> hint("mat", ["math", "chat"])
    "did you mean 'math'? Known: math, chat"
    """
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    start = f"did you mean '{near[0]}'? " if near else ""
    return start + (f"Known: {', '.join(known)}" if known else "none are known")
