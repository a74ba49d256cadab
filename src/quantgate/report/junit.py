"""JUnit XML, so that any CI shows a release as tests: one suite per variant, one test per capability and judged slice.

A suite for each target follows, with a test for each variant that tells every finding. A proven loss is a failure, an
undecided capability an error ("could not tell" is not "broken"); a slice with too few cases to be judged is skipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from xml.etree import ElementTree as ET

from quantgate.decide.targets import TargetVerdict
from quantgate.report import RunReport


def junit_xml(report: RunReport) -> bytes:
    """The whole run as one UTF-8 document."""
    root = ET.Element("testsuites", name=report.title)
    for variant in report.decision.verdicts:
        tests = list[Case]()
        for row in variant.capabilities:
            tests.append(Case(row.capability, row.verdict, row.sentence))
            tests += [Case(f"{row.capability} [{one.name}]", one.verdict, one.sentence) for one in row.slices]
        _suite(root, variant.variant, tests, report.environment.date)
    for target in report.targets:
        found = [Case(one.variant, one.verdict, one.sentence, _findings(one)) for one in target.verdicts]
        _suite(root, f"target {target.target}", found, report.environment.date)
    ET.indent(root)
    text: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


class Case(NamedTuple):
    """One test: a message, and what stands below it."""

    name: str
    verdict: str
    sentence: str
    more: str = ""


def _suite(root: ET.Element, name: str, tests: Sequence[Case], date: str) -> None:
    kinds = [one.verdict for one in tests]
    suite = ET.SubElement(
        root,
        "testsuite",
        name=_legal(name),
        tests=str(len(kinds)),
        failures=str(kinds.count("fail")),
        errors=str(kinds.count("inconclusive")),
        skipped=str(kinds.count("report only")),
        timestamp=date,
    )
    for one in tests:
        case = ET.SubElement(suite, "testcase", classname=_legal(name), name=_legal(one.name))
        message = _legal(one.sentence)
        if one.verdict == "pass":
            ET.SubElement(case, "system-out").text = "\n".join([message, *([_legal(one.more)] if one.more else [])])
        elif one.verdict == "report only":
            ET.SubElement(case, "skipped", message=message)
        else:
            kind = "failure" if one.verdict == "fail" else "error"
            ET.SubElement(case, kind, message=message, type=one.verdict).text = _legal(one.more) or None


def _findings(verdict: TargetVerdict) -> str:
    """Each rule on a line, and below it what it would take."""
    lines = []
    for one in verdict.findings:
        lines.append(f"{one.verdict} ({one.by}): {one.sentence}")
        lines += [f"    it would take: {need}" for need in one.needs]
    return "\n".join(lines)


def _legal(text: str) -> str:
    """Without the characters that XML 1.0 cannot hold."""
    return "".join(one for one in text if one in "\t\n\r" or (one >= "\x20" and one not in "\ufffe\uffff"))
