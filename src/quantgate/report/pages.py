"""Pages from templates/: each one self-contained file, whatever a record holds escaped."""

from __future__ import annotations

from typing import Any

import jinja2

from quantgate.decide.sentences import percent


def rendered(template: str, **values: Any) -> str:
    """The page of a template."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("quantgate.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "percent": percent,
        "mb": lambda size: f"{size / 1e6:.2f} MB",
        "short": lambda text: text[7:19],
    }
    return environment.get_template(template).render(**values)
