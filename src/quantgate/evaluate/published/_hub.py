"""The same rows on the Hugging Face hub, where the user names no path: through ``datasets``, an optional package."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from quantgate.errors import DataError, MissingExtra


@dataclass(frozen=True)
class Hub:
    """Where a table lies: a data set that ``datasets`` opens, or one file of it that is read line by line."""

    dataset: str  # "openai/gsm8k", or a folder
    config: str | None = None
    split: str = "test"  # several are joined with "+"
    file: str | None = None  # a file of JSON lines inside the data set, where its types do not fit into a table


def hub_rows(suite: str, source: str, file: str, hub: Hub) -> list[tuple[str, dict[str, Any]]]:
    """Raises MissingExtra without the package, DataError where the hub cannot be reached or has no such data."""
    try:
        import datasets
    except ModuleNotFoundError:
        raise MissingExtra(
            f"{suite}: without a path it comes from the hub, which needs the package 'datasets'; "
            f"run: pip install 'quantgate[hub]', or get {file} from {source} and name its folder under path"
        ) from None
    try:
        if hub.file is not None:
            lines = datasets.load_dataset("text", data_files=f"hf://datasets/{hub.dataset}/{hub.file}", split="train")
            found = [json.loads(row["text"]) for row in lines if row["text"].strip()]
        else:
            found = [dict(row) for row in datasets.load_dataset(hub.dataset, hub.config, split=hub.split)]
    except Exception as problem:  # datasets, its file systems and its HTTP client each raise their own
        reason = " ".join(str(problem).split())[:120] or type(problem).__name__
        raise DataError(
            f"{suite}: no path is given, and {hub.dataset} cannot be read from the hub ({reason}); get {file} from "
            f"{source} and name its folder under path"
        ) from None
    where = f"{hub.dataset} on the hub"
    return [(f"{where}, row {at}", row) for at, row in enumerate(found)]
