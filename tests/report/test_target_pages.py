"""The pages of targets say every finding, lead somewhere, need no network, and survive what a person may write."""

from __future__ import annotations

import re
from io import StringIO
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree as ET

import pytest
from markupsafe import escape
from rich.console import Console
from tests.report.targeted import load_of, released, rules_of
from tests.report.test_pages import Wellformed

from quantgate.pipeline import write_reports
from quantgate.report import RunReport
from quantgate.report.html import html_page
from quantgate.report.junit import junit_xml
from quantgate.report.target_page import page_files, target_pages
from quantgate.report.terminal import show

THREE = {"Q8_0": 0, "Q4_K_M": 2, "Q3_K_S": 90}
HOSTILE = "<b>\"fleet\"</b> & 'co' ../../etc " + "very long " * 30


class Page(Wellformed):
    """Its ids and its text beside the links."""

    void = Wellformed.void | {"br"}

    def __init__(self, page: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.classes: list[str] = []
        self.text = ""
        self.feed(page)
        assert self.open == [], self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        super().handle_starttag(tag, attrs)
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.classes += [value or "" for name, value in attrs if name == "class"]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.classes += [value or "" for name, value in attrs if name == "class"]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def loaded(report: RunReport) -> RunReport:
    loads = [load_of("Q4_K_M", 0.15), load_of("Q8_0", 0.2, sweep=True)]
    return released(report, THREE, [rules_of("laptop"), rules_of("desk", gates=rules_of().gates[:1])], loads=loads)


def every_link_leads_somewhere(folder: Path) -> int:
    """Files and ids that links name are there; how many there were."""
    pages = {one: Page(one.read_text("utf-8")) for one in [*folder.glob("*.html"), *folder.glob("targets/*.html")]}
    links = 0
    for path, page in pages.items():
        for link in page.links:
            file, _, anchor = link.partition("#")
            to = (path.parent / unquote(file)).resolve() if file else path
            assert to in pages, f"{path.name}: {link}"
            assert not anchor or unquote(anchor) in pages[to].ids, f"{path.name}: {link}"
            links += 1
        assert len(page.ids) == len(set(page.ids)), path
    return links


def test_every_finding_and_all_that_it_would_take_stand_on_the_page(loaded: RunReport) -> None:
    for name, page in target_pages(loaded).items():
        decision = next(one for one in loaded.targets if page_files([one.target])[one.target] == name)
        for verdict in decision.verdicts:
            for one in verdict.findings:
                assert str(escape(one.sentence)) in page
                assert all(str(escape(need)) in page for need in one.needs)
    assert "a &lt;page&gt; of llama.cpp" in page and "<page>" not in page


def test_pages_are_whole_files_without_network_or_script(loaded: RunReport, tmp_path: Path) -> None:
    write_reports(loaded, tmp_path)
    assert every_link_leads_somewhere(tmp_path) >= 20
    for page in [*tmp_path.glob("*.html"), *tmp_path.glob("targets/*.html")]:
        text = page.read_text("utf-8")
        assert not re.search(r"https?://|<script|<link|@import|url\(|srcset|<iframe", text)
    assert sorted(one.name for one in (tmp_path / "targets").iterdir()) == ["desk.html", "laptop.html"]


def test_the_page_of_a_target_that_is_none_any_more_goes(loaded: RunReport, tmp_path: Path) -> None:
    write_reports(loaded, tmp_path)
    write_reports(loaded.model_copy(update={"targets": loaded.targets[:1]}), tmp_path)
    assert [one.name for one in (tmp_path / "targets").iterdir()] == ["laptop.html"]
    assert every_link_leads_somewhere(tmp_path)


def test_the_top_of_the_report_says_what_each_target_gets(loaded: RunReport) -> None:
    page = html_page(loaded)
    top = page[page.index("<h1>") : page.index("<h2>")]
    assert "laptop gets Q4_K_M, desk keeps the baseline" in top
    assert 'href="targets/laptop.html"' in top and 'href="targets/desk.html"' in top
    many = [one.model_copy(update={"target": f"t{at}"}) for at in range(3) for one in loaded.targets]
    top = html_page(loaded.model_copy(update={"targets": tuple(many)}))
    assert "3 of 6 targets get a variant, the others keep the baseline" in top


def test_a_release_without_targets_has_none_of_it(report: RunReport, tmp_path: Path) -> None:
    write_reports(report, tmp_path)
    assert not (tmp_path / "targets").exists()
    page = html_page(report)
    assert f"<h1>{report.decision.sentence}</h1>" in page and 'class="targets"' not in page
    told = StringIO()
    show(report, Console(file=told, width=100))
    assert "cost per 1M" not in told.getvalue()
    assert "target" not in junit_xml(report).decode()


def test_verdicts_are_words_and_say_what_they_rest_on(loaded: RunReport) -> None:
    page = target_pages(loaded)["targets/laptop.html"]
    table = page[page.index('<table class="rules">') : page.index("Below each word")]
    rows = re.findall(r"<tr.*?</tr>", table, re.S)[1:]
    assert [re.findall(r">(chosen|pass|FAIL|open|not asked)<", row) for row in rows] == [
        ["pass"] * 9,
        ["chosen"] + ["pass"] * 8,
        ["FAIL", "pass", "pass", "pass", "pass", "FAIL", "open", "open", "open"],
    ]
    rests = re.findall(r"<small>([a-z ]+)</small>", rows[1])
    assert rests == ["documented", "foretold", "proven", "proven", "proven", "measured", "measured", "measured"]


def test_what_is_not_proven_is_listed_apart(loaded: RunReport) -> None:
    page = target_pages(loaded)["targets/laptop.html"]
    part = Page(page[page.index("<h2>What is not proven") : page.index("<h2>Every variant")]).text
    assert "runs in llama.cpp by ggml blocks" in part and "1 at once with 1280 tokens each take" in part
    assert "math: 100 %" not in part and "ttft p95" not in part


def test_load_tests_stand_beside_their_promises(loaded: RunReport) -> None:
    page = target_pages(loaded)["targets/laptop.html"]
    speed = page[page.index("<h2>Speed") : page.index("<h2>Memory")]
    assert "No load test was made" not in speed and "first token p95, by rate" in speed
    assert "p95 at most 300 ms" in speed and "objective, 300 ms" in speed
    assert re.search(r"Q4_K_M.*?81 ms at best.*?p95 1\d\d \[1\d\d, 1\d\d\] ms", speed, re.S)
    assert "600 requests at 8/s, 0 lost" in speed
    assert "No load test was made" in target_pages(loaded)["targets/desk.html"]


def test_lost_requests_and_runs_that_are_not_valid_are_seen_as_such(report: RunReport) -> None:
    loads = [load_of("Q8_0", 0.15, lost=50), load_of("Q4_K_M", 0.15, late=True)]
    page = target_pages(released(report, THREE, [rules_of()], loads=loads))["targets/laptop.html"]
    speed = page[page.index("<h2>Speed") : page.index("<h2>Memory")]
    assert "Q8_0: 50 of 600 lost" in speed and "Q4_K_M: not valid" in speed
    assert "50 the connection was cut" in speed
    assert "decides nothing: asked for 8 requests/s, sent 7.273" in speed
    assert 'class="never"' in speed  # p95 of 600 falls among the 50 that never came
    assert 'fill="var(--paper)"' in speed


def test_hostile_and_very_long_names_break_nothing(report: RunReport, tmp_path: Path) -> None:
    names = {f"{HOSTILE}{at}": lost for at, lost in enumerate([0, 2, 90])}
    rules = [rules_of(HOSTILE), rules_of("a/../b"), rules_of("Ä Ö"), rules_of("laptop"), rules_of("LAPTOP")]
    hostile = released(report, names, rules)
    write_reports(hostile, tmp_path)
    files = sorted(one.name for one in (tmp_path / "targets").iterdir())
    assert len({one.lower() for one in files}) == 5
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,80}\.html", one) for one in files), files
    assert every_link_leads_somewhere(tmp_path)
    for page in [*tmp_path.glob("*.html"), *tmp_path.glob("targets/*.html")]:
        assert '<b>"fleet' not in page.read_text("utf-8")
    assert ET.fromstring((tmp_path / "junit.xml").read_bytes()) is not None


def test_names_that_no_xml_can_hold_still_make_a_junit_file(report: RunReport) -> None:
    found = released(report, {"Q8\x00\x1b[31m": 0}, [rules_of("fle\x07et")])
    suites = {one.get("name") for one in ET.fromstring(junit_xml(found))}
    assert suites == {"Q8[31m", "target fleet"}


def test_a_hundred_variants_are_all_there(report: RunReport, tmp_path: Path) -> None:
    names = {f"V{at:03d}": at % 7 * 12 for at in range(100)}
    many = released(report, names, [rules_of(speed="planned")])
    write_reports(many, tmp_path)
    page = Page((tmp_path / "targets" / "laptop.html").read_text("utf-8"))
    assert [f"v{at}" for at in range(100)] == page.ids
    assert all(name in page.text for name in names)
    assert every_link_leads_somewhere(tmp_path)


def test_with_none_that_passes_the_nearest_is_shown_and_the_baseline_kept(report: RunReport) -> None:
    found = released(report, dict.fromkeys(THREE, 90), [rules_of(speed="planned")], problems={"Q8_0": "no kernel <x>"})
    page = target_pages(found)["targets/laptop.html"]
    assert "<h1>laptop keeps the baseline</h1>" in page
    assert "Q3_K_S is nearest" in page and "What stands in the way of Q3_K_S" in page
    assert "no kernel &lt;x&gt;" in page and 'class="ring"' not in page


def test_with_nothing_measured_everything_is_open_and_said_to_be_so(report: RunReport) -> None:
    found = released(report, dict.fromkeys(THREE), [rules_of()], placed=False)
    page = target_pages(found)["targets/laptop.html"]
    assert "laptop keeps the baseline" in page and "0 pass, 0 fail, 3 not decided; none is chosen" in page
    assert "Not known: no variant runs there" in page and "nobody: it was not asked" in page
    assert not re.search(r'class="cell (pass|fail)"', page)
    assert html_page(found)


def test_a_release_without_any_variant_is_still_a_page(report: RunReport) -> None:
    decision = released(report, THREE, [rules_of()]).targets[0].model_copy(update={"verdicts": (), "chosen": None})
    empty = report.model_copy(update={"targets": (decision,)})
    assert "laptop keeps the baseline" in target_pages(empty)["targets/laptop.html"]


def test_the_terminal_tells_every_target_and_every_variant(loaded: RunReport) -> None:
    console = Console(width=80, file=StringIO())
    show(loaded, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in text
    assert re.search(r"laptop +Q4_K_M +8\.1 +0\.081 +cpu-avx512, llama\.cpp", text), text
    assert re.search(r"desk +baseline +10\.0 +- +cpu-avx512, llama\.cpp", text), text
    for decision in loaded.targets:
        assert decision.sentence in " ".join(text.split())
    assert len(re.findall(r"^  (?:pass|FAIL|open) +>? *Q", text, re.M)) == 6


def test_junit_has_a_case_for_every_target_and_variant(loaded: RunReport) -> None:
    suites = {one.get("name"): one for one in ET.fromstring(junit_xml(loaded))}
    assert {"target laptop", "target desk"} <= set(suites)
    laptop = suites["target laptop"]
    assert [case.get("name") for case in laptop] == ["Q8_0", "Q4_K_M", "Q3_K_S"]
    assert (laptop.get("tests"), laptop.get("failures"), laptop.get("errors")) == ("3", "1", "0")
    failure = laptop.find("testcase[@name='Q3_K_S']/failure")
    assert failure is not None and "json_tools within 5 %" in (failure.get("message") or "")
    assert failure.text is not None and re.search(r"it would take: .*a margin of", failure.text)
