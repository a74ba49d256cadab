"""JUnit XML, so that any CI shows a release as tests: one suite per variant, one test per capability.

A proven loss is a failure, an undecided capability an error ("could not tell" is not "broken").
"""

from __future__ import annotations

from xml.etree import ElementTree as ET

from quantgate.report import RunReport


def junit_xml(report: RunReport) -> bytes:
    """The whole run as one UTF-8 document."""
    root = ET.Element("testsuites", name=report.title)
    for variant in report.decision.verdicts:
        kinds = [one.verdict for one in variant.capabilities]
        suite = ET.SubElement(
            root,
            "testsuite",
            name=variant.variant,
            tests=str(len(kinds)),
            failures=str(kinds.count("fail")),
            errors=str(kinds.count("inconclusive")),
            timestamp=report.environment.date,
        )
        for one in variant.capabilities:
            case = ET.SubElement(suite, "testcase", classname=variant.variant, name=one.capability)
            if one.verdict == "pass":
                ET.SubElement(case, "system-out").text = one.sentence
            else:
                ET.SubElement(
                    case, "failure" if one.verdict == "fail" else "error", message=one.sentence, type=one.verdict
                )
    ET.indent(root)
    text: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return text + b"\n"
