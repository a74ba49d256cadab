"""A Hugging Face model card of one variant: README.md with the evidence, for people and, in front of it, for programs.

    write_card(Path("runs/release"), "W4A16")     # into the artifact's folder

The front matter is what the Hub reads (https://huggingface.co/docs/hub/model-cards): base model, library, tags, licence
and a ``model-index`` of the scores. The card is no part of the artifact: its manifest does not name it, no loader reads
it, and the digest stays what it is.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import yaml
from markupsafe import Markup

from quantgate.decide.sentences import margin_of, percent
from quantgate.errors import RecordError, UnknownName
from quantgate.evaluate.evidence import Comparison, Evidence
from quantgate.models.locate import HUB_ID, REFERENCE, locate
from quantgate.quantize.manifest import GGUF, Manifest
from quantgate.records import write_whole
from quantgate.report import RunReport, VariantSummary
from quantgate.report.pages import FILTERS

WORDS = {"pass": "proven safe", "fail": "damaged", "inconclusive": "not decided"}
SHOWN = 40  # lines of the ledger
LICENCES = {REFERENCE: "apache-2.0"}
NEEDS = {"compressed_tensors": "compressed-tensors"} | dict.fromkeys(("awq", "gptq", "gptq_v2"), "gptqmodel")
PATH = re.compile(r"(?<![\w.:/-])~?/(?:[\w.+@-]+/)+([\w.+@-]+)")  # of a machine that no reader of a card has
TAGS = {"compressed_tensors": "compressed-tensors", "gptq_v2": "gptq"}


def write_card(run: Path, name: str, *, out: Path | None = None, licence: str = "") -> Path:
    """Write the card of a variant of a finished run; where it lies.

    Without ``out`` it goes into the artifact's folder where that is one of ours, else under ``run``/cards: the folder
    of another program is left as it is. ``licence``: of the baseline, where its folder does not tell. Raises
    UnknownName, RecordError, DiskFull.
    """
    report = RunReport.load(run / "report.json")
    summary = summary_of(report, name)
    folder = run / summary.path
    try:
        manifest = Manifest.load(folder / "manifest.json")
    except RecordError:
        manifest = None
    if manifest is not None and manifest.digest != summary.artifact:
        manifest = None  # another artifact lies there by now, and gets no card of this one
    text = card(report, name, manifest=manifest, licence=licence or licence_of(report.model))
    place = out or (folder if manifest is not None else run / "cards" / name)
    return write_whole(place if place.suffix == ".md" else place / "README.md", text.encode())


def card(report: RunReport, name: str, *, manifest: Manifest | None = None, licence: str = "") -> str:
    """The card as text. Raises UnknownName."""
    summary = summary_of(report, name)
    verdict = next((one for one in report.decision.verdicts if one.variant == name), None)
    if verdict is None:
        raise UnknownName("variant", name, [one.variant for one in report.decision.verdicts], where="the decision")
    evidence = next((one for one in report.evidence if one.variant == name), None)
    container = manifest.checkpoint if manifest else GGUF if summary.path.endswith(".gguf") else ""
    front = front_matter(report, summary, evidence, container, licence)
    verdicts = {one.capability: one.verdict for one in verdict.capabilities}
    ledger = [*summary.fallbacks, *summary.ends, *summary.notes]
    return _template().render(
        front=Markup(yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=1000)),
        report=report,
        summary=summary,
        base=base_model(report.model),
        verdict=verdict,
        word="not judged" if verdict.screened else WORDS[verdict.verdict],
        evidence=evidence,
        rows=_rows(evidence, verdicts),
        sentences=[one.sentence for one in verdict.capabilities],
        targets=_targets(report, name),
        calibration=report.calibration,
        source=Path(report.calibration.source).name if report.calibration else "",
        runs=how_to_run(container, name, summary.path),
        ledger=ledger[:SHOWN],
        hidden=max(0, len(ledger) - SHOWN),
    )


def summary_of(report: RunReport, name: str) -> VariantSummary:
    found = next((one for one in report.variants if one.name == name), None)
    if found is None:
        raise UnknownName("variant", name, [one.name for one in report.variants], where=report.title)
    return found


def front_matter(
    report: RunReport, summary: VariantSummary, evidence: Evidence | None, container: str, licence: str
) -> dict[str, Any]:
    """What the Hub reads. Missing stays missing: no licence, base or score is made up."""
    base = base_model(report.model)
    words = [summary.scheme, summary.method, TAGS.get(container, container)]
    tags = ["quantgate", *dict.fromkeys(one.lower() for one in words if one and " " not in one)]
    front: dict[str, Any] = {
        **({"license": licence} if licence else {}),
        **({"base_model": base, "base_model_relation": "quantized"} if base else {}),
        "library_name": "llama.cpp" if container == GGUF else "transformers",
        "pipeline_tag": "text-generation",
        "tags": tags,
    }
    results = [_result(row) for row in evidence.comparisons if row.n] if evidence else []
    if results:
        front["model-index"] = [{"name": summary.name, "results": results}]
    return front


def _result(row: Comparison) -> dict[str, Any]:
    """One capability as the Hub has results: its cases are the dataset, the suite's digest their revision."""
    figures = (
        ("score", "score of the variant", row.variant_score),
        ("baseline_score", "score of the baseline on the same cases", row.baseline_score),
        ("change_at_worst", "lower limit of the change", row.finding.low),
    )
    said = {"verdict": WORDS[row.finding.verdict], "cases": row.n, "margin": row.gate.margin, "test": row.gate.test}
    return {
        "task": {"type": "text-generation", "name": row.gate.capability},
        "dataset": {"type": row.gate.suite, "name": row.gate.suite, "revision": row.suite_digest, "args": said},
        "metrics": [
            {"type": kind, "name": told, "value": round(value, 6)} for kind, told, value in figures if value is not None
        ],
    }


def base_model(ref: str) -> str:
    """The baseline's name on the Hub; empty for a folder of this machine.

    >>> base_model("org/model"), base_model("/srv/models/x"), base_model("./x")
    ('org/model', '', '')
    """
    return ref if HUB_ID.fullmatch(ref) and not Path(ref).exists() else ""


def licence_of(ref: str) -> str:
    """What the baseline's own card says, where it lies here; nothing is asked of the network."""
    if ref in LICENCES:
        return LICENCES[ref]
    folder = Path(ref).expanduser()
    try:
        if not folder.is_dir():
            return ""
        text = (locate(ref) / "README.md").read_text(encoding="utf-8")
        front = yaml.safe_load(text.split("---", 2)[1]) if text.startswith("---") else {}
        told = front.get("license", "")
    except (OSError, ValueError, IndexError, AttributeError, yaml.YAMLError):
        return ""
    return told if isinstance(told, str) else ""


def _rows(evidence: Evidence | None, verdicts: Mapping[str, str]) -> list[dict[str, str]]:
    """The table: every capability, and below it the slices that were judged by themselves."""
    rows = []
    for row in evidence.comparisons if evidence else ():
        rows.append(_row(row, verdicts.get(row.gate.capability, row.finding.verdict)))
        rows += [_row(one, one.finding.verdict) for one in row.judged]
    return rows


def _row(row: Comparison, verdict: str) -> dict[str, str]:
    share = row.gate.relative
    change = [_signed(value, share) for value in (row.finding.low, row.finding.high)]
    return {
        "name": row.gate.capability,
        "baseline": "" if row.baseline_score is None else percent(row.baseline_score),
        "variant": "" if row.variant_score is None else percent(row.variant_score),
        "interval": "nothing bounds it" if not row.n else f"{change[0]} to {change[1]}",
        "margin": margin_of(row.gate),
        "cases": f"{row.n}" + (f" ({len(row.unscored)} unscored)" if row.unscored else ""),
        "word": WORDS[verdict],
    }


def _signed(value: float | None, share: bool) -> str:
    if value is None:
        return "unbounded"
    text = percent(value) if share else percent(value).replace("%", "points")
    return text if text.startswith(("-", "0 ")) else f"+{text}"


def _targets(report: RunReport, name: str) -> list[dict[str, str]]:
    found = []
    for one in report.targets:
        own = one.of(name)
        if own is not None:
            chosen = "yes" if one.chosen == name else f"no, {one.chosen} is" if one.chosen else "none is"
            place = f"{one.rules.place.hardware}, {one.rules.place.runtime}"
            found.append({
                "target": one.target, "place": place, "word": {**WORDS, "pass": "accepted"}[own.verdict],
                "chosen": chosen, "sentence": own.sentence,
            })  # fmt: skip
    return found


def how_to_run(container: str, name: str, path: str) -> list[dict[str, str]]:
    """What loads the container, by its name: commands to paste, run in the artifact's folder."""
    if container == GGUF:
        file = Path(path).name if path.endswith(".gguf") else f"{name}.gguf"
        return [{"title": "llama.cpp", "language": "shell", "text": f"llama-server -m {shlex.quote(file)} --jinja"}]
    needs = {
        "compressed_tensors": "compressed-tensors",
        "awq": "gptqmodel",
        "gptq": "gptqmodel",
        "gptq_v2": "gptqmodel",
    }
    needed = f"  # needs the package {needs[container]}" if container in needs else ""
    code = (
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f'model = AutoModelForCausalLM.from_pretrained(".", dtype="auto", device_map="auto"){needed}\n'
        'tokenizer = AutoTokenizer.from_pretrained(".")'
    )
    return [
        {"title": "vLLM", "language": "shell", "text": f"vllm serve . --served-model-name {name}"},
        {"title": "transformers", "language": "python", "text": code},
    ]


def escaped(value: object) -> object:
    """What a record says, so that it stays words: no row, tag or link of Markdown is made by it, and no path told.

    >>> escaped("draft=/srv/models/small.gguf | <b>")
    'draft=small.gguf \\\\| &lt;b>'
    """
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    value = PATH.sub(r"\1", value)
    for old, new in (("\\", "\\\\"), ("|", "\\|"), ("<", "&lt;"), ("[", "\\["), ("`", "'"), ("\n", " "), ("\r", " ")):
        value = value.replace(old, new)
    return value


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("quantgate.report"),
        autoescape=False,  # Markdown: escaped() instead
        finalize=escaped,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= FILTERS
    return environment.get_template("card.md")


__all__: Sequence[str] = ("card", "front_matter", "write_card")
