"""Write the reference pages from the code, so that they cannot drift from it: cli.md, release-yaml.md, serve-yaml.md,
and the tables of settings in training.md.

    python docs/generate.py            # write them
    python docs/generate.py --check    # say which differ, exit 1

The commands come from the typer application, the keys from the pydantic models that read release.yaml and serve.yaml.
"""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

DOCS = Path(__file__).resolve().parent
MARK = "<!-- Written by docs/generate.py from the code; change the code, then run: make docs -->\n\n"
PLAIN = {str: "text", int: "whole number", float: "number", bool: "true or false", Path: "path", type(None): "nothing"}


def cli_page(app: Any) -> str:
    """The commands of a typer application, one section each, as Markdown."""
    from typer.main import get_command

    top = get_command(app)
    parts = [MARK, "# Commands\n\n", _prose(top.help)]
    for path, command in _commands(top, ()):
        context = command.context_class(command, info_name=" ".join(("quantgate", *path)))
        parts.append(f"\n## quantgate {' '.join(path)}\n\n{_prose(command.help)}")
        parts.append(f"\n```text\n{command.get_usage(context).removeprefix('Usage: ')}\n```\n")
        rows = [row for row in (parameter.get_help_record(context) for parameter in command.params) if row]
        if rows:
            parts.append(_table(("option", "what it is"), [(f"`{names}`", text) for names, text in rows]))
    return "".join(parts)


def release_page(model: type[BaseModel], title: str = "release.yaml") -> str:
    """The keys of a configuration file, the outermost first, then one section for each nested part."""
    parts = [MARK, f"# {title}\n\n", _prose(inspect.getdoc(model))]
    headings, waiting = {model: ""}, [model]  # a nested part bears the name of the first key that holds it
    for part in waiting:
        if headings[part]:
            parts.append(f"\n## {headings[part]}\n\n{_prose(inspect.getdoc(part))}")
        fields = [(field.alias or name, field) for name, field in part.model_fields.items()]
        for key, field in fields:
            for inner in _models(field.annotation):
                if inner not in headings:
                    headings[inner] = key
                    waiting.append(inner)
        rows = [
            (f"`{key}`", _words(field.annotation, headings), _default(field), field.description or "")
            for key, field in fields
        ]
        parts.append(_table(("key", "value", "default", "what it is"), rows))
    return "".join(parts)


def training_page(written: str) -> str:
    """The page about training as ``written``, with its three tables of settings anew."""
    from quantgate.train.options import DistillOptions, QatOptions, TrainOptions

    common = set(TrainOptions.model_fields)
    for mark, model in (("options", TrainOptions), ("qat", QatOptions), ("distill", DistillOptions)):
        fields = {
            name: field
            for name, field in model.model_fields.items()
            if model is TrainOptions or name not in common or field.default != TrainOptions.model_fields[name].default
        }
        rows = [
            (f"`{key}`", _words(field.annotation, {}), _default(field), field.description or "")
            for key, field in fields.items()
        ]
        table = _table(("setting", "value", "default", "what it is"), rows)
        before, _, rest = written.partition(f"<!-- {mark} -->")
        written = f"{before}<!-- {mark} -->\n{table}\n<!-- /{mark} -->" + rest.partition(f"<!-- /{mark} -->")[2]
    return written


def pages() -> dict[str, str]:
    """File name -> text of every generated page."""
    from quantgate.cli import app
    from quantgate.release_config import ReleaseConfig
    from quantgate.serve_config import ServeConfig

    return {
        "cli.md": cli_page(app),
        "release-yaml.md": release_page(ReleaseConfig),
        "serve-yaml.md": release_page(ServeConfig, "serve.yaml"),
        "training.md": training_page((DOCS / "training.md").read_text("utf-8")),
    }


def _commands(group: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if command.hidden:
            continue
        if hasattr(command, "commands"):
            yield from _commands(command, (*path, name))
        else:
            yield (*path, name), command


def _prose(text: str | None) -> str:
    return inspect.cleandoc(text or "").replace("\f", "").strip() + "\n"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines: list[tuple[str, ...]] = [head, ("---",) * len(head), *rows]
    return "\n" + "".join("| " + " | ".join(_cell(cell) for cell in line) + " |\n" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, BaseModel):
        return "see below"
    return (
        ""
        if value is None or value in ((), [], {})
        else f"`{str(value).lower() if isinstance(value, bool) else value}`"
    )


def _words(annotation: Any, headings: dict[type[BaseModel], str]) -> str:
    """A type, said to a person: ``list[str] | None`` is "list of text, or nothing"."""
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _words(inside[0], headings)
    if origin is Literal:
        return " or ".join(f"`{choice}`" for choice in inside)
    if origin in (Union, types.UnionType):
        return ", or ".join(dict.fromkeys(_words(one, headings) for one in inside))
    if origin in (list, tuple, set, frozenset):
        return "list of " + _words(inside[0], headings)
    if origin is dict:
        return "name: " + _words(inside[1], headings)
    if annotation in headings:
        return f"[settings](#{headings[annotation]})"
    return getattr(annotation, "written_as", None) or PLAIN.get(annotation, "any value")


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and not get_args(annotation):
        keys = issubclass(annotation, BaseModel) and not hasattr(annotation, "written_as")
        return [annotation] if keys else []
    return [model for part in get_args(annotation) for model in _models(part)]


def main(check: bool) -> int:
    stale = [
        name for name, text in pages().items() if not (DOCS / name).exists() or (DOCS / name).read_text("utf-8") != text
    ]
    if check:
        print("".join(f"docs/{name} differs from the code; run: make docs\n" for name in stale), end="")
        return 1 if stale else 0
    for name in stale:
        (DOCS / name).write_text(pages()[name], "utf-8")
        print(f"quantgate: wrote docs/{name}")
    return 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
