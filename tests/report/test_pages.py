"""The pages say what the records say, and nothing in an answer can run in a reader's browser."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from quantgate.decide import decide
from quantgate.engines.scripted import ScriptedEngine
from quantgate.evaluate import suites
from quantgate.evaluate.drift import drift
from quantgate.evaluate.evidence import SliceGate
from quantgate.report import RunReport
from quantgate.report.html import html_page
from quantgate.report.junit import junit_xml
from quantgate.report.terminal import show, trap_sentence
from quantgate.report.traps import relative_loss, traps


class Wellformed(HTMLParser):
    """Counts tags that are opened and never closed."""

    void = frozenset({"meta", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """A tag that closes itself, as SVG's do."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()


def test_the_page_is_one_whole_file_that_needs_no_network(report: RunReport) -> None:
    page, parser = html_page(report), Wellformed()
    parser.feed(page)
    assert parser.open == []
    assert all(link.startswith("#") for link in parser.links), parser.links
    assert "http://" not in page and "https://" not in page


def test_answers_and_prompts_are_shown_as_text_and_never_run(report: RunReport) -> None:
    page = html_page(report)
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "2 &lt; 3 &amp; &lt;b&gt;bold" in page


def test_the_page_names_the_choice_the_damage_and_the_sentences(report: RunReport) -> None:
    page = html_page(report)
    assert "W8A8 is the smallest of 2 variants that is proven safe" in page
    for verdict in report.decision.verdicts:
        for one in verdict.capabilities:
            assert one.sentence.replace(">", "&gt;") in page
    assert "60 lost, 0 gained of 200" in page
    assert len(re.findall(r'<div class="flip">', page)) == 8  # of 40 kept; the rest are counted
    assert "32 more in report.json." in page


def test_the_trap_is_shown_when_perplexity_is_calm_and_a_capability_broke(report: RunReport) -> None:
    found = traps(report)
    assert [(one["evidence"].variant, one["worst"].gate.capability) for one in found] == [("W3A16", "json_tools")]
    assert relative_loss(found[0]["worst"]) == pytest.approx(0.3)
    assert traps(report, calm=1.01) == []  # a perplexity that moved is no trap


def test_the_terminal_tells_what_averages_hide(report: RunReport) -> None:
    first, _, second = trap_sentence(traps(report)[0]).partition(", and ")
    assert re.fullmatch(r"What averages hide: W3A16 has 1\.\d{3} times the baseline's perplexity", first)
    assert re.fullmatch(r"json tools fell from \S+ % to \S+ %\.", second)


def test_a_run_without_any_choice_keeps_the_baseline_on_the_page(report: RunReport) -> None:
    verdicts = tuple(one.model_copy(update={"eligible": False}) for one in report.decision.verdicts)
    decision = report.decision.model_copy(
        update={"chosen": None, "sentence": "keep the baseline", "verdicts": verdicts}
    )
    page = html_page(report.model_copy(update={"decision": decision}))
    assert "the baseline stays" in page and " x smaller" not in page


def test_junit_counts_losses_as_failures(report: RunReport) -> None:
    root = ET.fromstring(junit_xml(report))
    suites = {suite.get("name"): suite for suite in root}
    assert set(suites) == {"W8A8", "W3A16"}
    assert (suites["W3A16"].get("tests"), suites["W3A16"].get("failures"), suites["W3A16"].get("errors")) == (
        "2",
        "1",
        "0",
    )
    failure = suites["W3A16"].find("testcase[@name='json_tools']/failure")
    assert failure is not None and "more than the 5 % allowed" in (failure.get("message") or "")
    assert suites["W8A8"].find(".//failure") is None


def test_the_terminal_table_fits_eighty_columns_and_cuts_nothing(report: RunReport) -> None:
    console = Console(width=80, file=StringIO())
    show(report, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in text
    assert "> W8A8" in text and "chosen" in text
    assert re.search(r"W3A16 +2\.5 +3\.12 +0\.0100 +1\.020 +FAIL", text), text
    assert re.search(r"FAIL +W3A16: damages json_tools", text)


def test_a_saved_report_reads_back_the_same(report: RunReport, tmp_path: Path) -> None:
    path = report.save(tmp_path / "report.json")
    assert RunReport.load(path) == report


def test_noise_floor_and_speed_stand_beside_the_results(report: RunReport) -> None:
    page, told = html_page(report), StringIO()
    show(report, Console(file=told, width=160))
    sentence = "of 100 cases asked twice (backwards) 2 flip (2 %, 95 %: 0.2 to 7.0 %), 4 texts differ"
    for text in (page, told.getvalue()):
        assert sentence in text and "flips by itself" in text and "1/50" in text
        assert "1,500 tokens/s" in text and "75 % of 4000 drafted tokens accepted" in text
        assert "engine=llamacpp, kv_cache=q8_0" in text


@pytest.fixture
def drifting(report: RunReport) -> RunReport:
    """The same run with drift that is known in detail."""
    cases = suites.cases("refusals", "tune", 10) + suites.cases("json_tools", "tune", 10)
    drifts = drift(ScriptedEngine({}), [ScriptedEngine({}, tilt=tilt) for tilt in (0.1, 0.6)], cases)
    evidence = tuple(
        one.model_copy(update={"drift": found}) for one, found in zip(report.evidence, drifts, strict=True)
    )
    return report.model_copy(update={"evidence": evidence})


def test_the_page_shows_where_quality_drifts(drifting: RunReport, report: RunReport) -> None:
    assert "Where quality drifts" not in html_page(report)  # nothing but the mean is known
    page, parser = html_page(drifting), Wellformed()
    parser.feed(page)
    assert parser.open == []
    section = page[page.index("Where quality drifts") : page.index("How this was decided")]
    for by in ("position in the sequence", "position in the answer", "rarity of the true token", "slice"):
        assert f"<h3>By {by}</h3>" in section
    assert section.count("<svg") == 5
    assert all(name in section for name in ("W8A8", "W3A16", "suite=refusals", "commonest 50 %", "quote"))
    assert "mass outside the fewest tokens that hold 95% of the baseline" in section
    assert "nan" not in section.lower().replace("nanc", "")


def test_the_terminal_tells_where_each_variant_drifts_most(drifting: RunReport) -> None:
    console = Console(width=200, file=StringIO())
    show(drifting, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    found = re.findall(r"(W8A8|W3A16) drifts most at (.*) of its mean KL ([\d.e-]+)", text)
    assert [one[0] for one in found] == ["W8A8", "W3A16"]
    assert float(found[0][2]) < float(found[1][2])
    assert re.search(r"\(sequence\) \d+\.\dx", found[1][1])


def test_lower_bounds_are_called_so_everywhere(drifting: RunReport) -> None:
    one = drifting.evidence[1]
    assert one.drift is not None
    bound = one.model_copy(update={"drift": one.drift.model_copy(update={"lower_bound": True})})
    page = html_page(drifting.model_copy(update={"evidence": (drifting.evidence[0], bound)}))
    assert "KL and total variation are lower bounds" in page
    assert page.count("at least") > html_page(drifting).count("at least")


def test_declared_slices_stand_beside_their_capability(report: RunReport) -> None:
    gates = [
        one.model_copy(update={"slices": (SliceGate(name="op=less", margin=0.05, cases=40, needs=90),)})
        for one in report.gates
    ]
    evidence = tuple(
        one.model_copy(
            update={
                "comparisons": tuple(
                    row.model_copy(update={"gate": gate}) for row, gate in zip(one.comparisons, gates, strict=True)
                )
            }
        )
        for one in report.evidence
    )
    decision = decide(gates, report.candidates, evidence, alpha=0.05, order="e-bonferroni")
    found = report.model_copy(update={"gates": tuple(gates), "evidence": evidence, "decision": decision})
    told = "math [op=less]: report only, 40 cases where a margin of 5 % needs at least 90"
    assert told in html_page(found)
    suite = next(one for one in ET.fromstring(junit_xml(found)) if one.get("name") == "W8A8")
    assert (suite.get("tests"), suite.get("skipped"), suite.get("failures")) == ("4", "2", "0")
    skipped = suite.find("testcase[@name='math [op=less]']/skipped")
    assert skipped is not None and skipped.get("message") == told
