"""JUnit XML, so that any CI shows a release as tests: one suite per variant, one test per capability and judged slice.

A proven loss is a failure, an undecided capability an error ("could not tell" is not "broken"); a slice with too few
cases to be judged is skipped.
"""

from __future__ import annotations

from xml.etree import ElementTree as ET

from quantgate.report import RunReport


def junit_xml(report: RunReport) -> bytes:
    """The whole run as one UTF-8 document."""
    root = ET.Element("testsuites", name=report.title)
    for variant in report.decision.verdicts:
        tests = list[tuple[str, str, str]]()
        for row in variant.capabilities:
            tests.append((row.capability, row.verdict, row.sentence))
            tests += [(f"{row.capability} [{one.name}]", one.verdict, one.sentence) for one in row.slices]
        kinds = [verdict for _, verdict, _ in tests]
        suite = ET.SubElement(
            root,
            "testsuite",
            name=variant.variant,
            tests=str(len(kinds)),
            failures=str(kinds.count("fail")),
            errors=str(kinds.count("inconclusive")),
            skipped=str(kinds.count("report only")),
            timestamp=report.environment.date,
        )
        for name, verdict, sentence in tests:
            case = ET.SubElement(suite, "testcase", classname=variant.variant, name=name)
            if verdict == "pass":
                ET.SubElement(case, "system-out").text = sentence
            elif verdict == "report only":
                ET.SubElement(case, "skipped", message=sentence)
            else:
                ET.SubElement(case, "failure" if verdict == "fail" else "error", message=sentence, type=verdict)
    ET.indent(root)
    text: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return text + b"\n"
