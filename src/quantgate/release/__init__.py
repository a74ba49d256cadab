"""Variants, evidence, decisions, releases, their history and who did what, in SQLite or PostgreSQL.

    store.py       the database: append-only rows, one pointer per target that moves by compare-and-swap
    migrations/    the tables, by Alembic
    lifecycle.py   register, promote, ramp, hold, roll back: what each demands, and what it writes
    verify.py      the bytes of an artifact or a baseline, held against its digest     seen.py   files known before
    artifacts.py   artifacts under their digest, by fsspec; a variant of the registry, here and verified
    signing.py     detached signatures over manifests, in minisign's format             keys.py   its keys
    trust.py       both at once, for people: are these the bytes, and who says so?
    capacity.py    is what we would go back to up?
    tracking.py    releases in MLflow

A release names exactly one artifact, runtime and target, by digest, and the decision that passed for them.
"""

from __future__ import annotations

from pydantic import Field

from quantgate.records import Record


class Variant(Record):
    """What may be released: exact bytes and what runs them."""

    name: str
    artifact: str  # digest of the manifest; of the baseline: of its weights
    engine: str  # digest of runtime, kernels and settings that the decision judged; "none" where nobody asked it
    location: str = ""  # folder or fsspec address of the artifact, or what a runtime is told; "" where it is gone
    is_baseline: bool = False


class Live(Record):
    """What a target serves now: the one record that a gateway reads."""

    target: str
    revision: int  # raised by every move of the pointer; a gateway that sees a higher one swaps at once
    baseline: Variant
    stable: Variant
    """Who gets the traffic that is nobody else's; the baseline itself before the first promotion."""
    canary: Variant | None = None
    share: float = Field(default=0.0, ge=0.0, le=1.0)  # of sessions, for the canary
    holdback: float = Field(
        default=0.0, ge=0.0, le=0.5
    )  # of sessions, for the baseline, while it is not the stable one
    salt: str = ""  # of the cohorts' hash: a new one with each canary, the same through its ramp
    frozen: bool = False  # held: nothing moves it but a person
