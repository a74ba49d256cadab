"""Pages from templates/: each one self-contained file, whatever a record holds escaped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jinja2

from quantgate.decide.sentences import percent

FILTERS: dict[str, Callable[..., Any]] = {
    "percent": percent,
    "mb": lambda size: f"{size / 1e6:.2f} MB",
    "short": lambda text: text[7:19],
}


def rendered(template: str, filters: Mapping[str, Callable[..., Any]] | None = None, /, **values: Any) -> str:
    """The page of a template; ``filters`` beside those that all pages have."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("quantgate.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {**FILTERS, **(filters or {})}
    return environment.get_template(template).render(**values)
