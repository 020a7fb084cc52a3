"""The pre-flight report in the terminal: a table of the parts, the findings, and a verdict."""

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from trainformer.data.check import CheckReport
from trainformer.data.finding import Finding

STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}
PLACES = 3
LABELS = 6
BARS = "▁▂▃▄▅▆▇█"


def render(report: CheckReport, console: Console) -> None:
    """Prints the report; the last line counts errors and warnings."""
    console.print(_parts(report))
    for name, part in report.parts.items():
        if part["labels"]:
            console.print(Text(f"{name} labels: {_labels(part['labels'])}"))
        if part["tokens"]:
            console.print(Text(f"{name} tokens: {_tokens(part['tokens'])}"))
    for key, value in (report.forecast or {}).items():
        shown = f"{value:,.1f}" if isinstance(value, float) else str(value)
        console.print(Text(f"{key.replace('_', ' ')}: {shown}"))
    for finding in report.findings:
        console.print(_finding(finding))
    console.print(Text(verdict(report), style=_worst(report)))


def verdict(report: CheckReport) -> str:
    """The last line: "0 errors, 3 warnings".

    >>> verdict(CheckReport({}, [Finding("cut", "warning", "...")]))
    '0 errors, 1 warning'
    """
    counts = ((len(report.errors), "error"), (len(report.warnings), "warning"))
    return ", ".join(f"{count} {word}{'' if count == 1 else 's'}" for count, word in counts)


def _worst(report: CheckReport) -> str:
    return STYLES["error"] if report.errors else STYLES["warning"] if report.warnings else "green"


def _parts(report: CheckReport) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("", "rows", "different", "nearly", "majority", "±95 %", "p50", "p95", "max", "cut"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, part in report.parts.items():
        tokens = part["tokens"]
        majority = "" if part["majority_share"] is None else f"{100 * part['majority_share']:.1f} %"
        lengths = [f"{tokens[k]:,}" for k in ("p50", "p95", "max", "cut_texts")] if tokens else [""] * 4
        counts = [f"{part[k]:,}" for k in ("rows", "different_texts", "different_texts_nearly")]
        table.add_row(name, *counts, majority, f"{100 * part['half_width_95']:.1f}", *lengths)
    return table


def _labels(counts: dict[str, int]) -> str:
    shown = ", ".join(f"{name:.40} {count:,}" for name, count in list(counts.items())[:LABELS])
    return shown + (f" and {len(counts) - LABELS} more" if len(counts) > LABELS else "")


def _tokens(tokens: dict[str, Any]) -> str:
    texts = [bar["texts"] for bar in tokens["histogram"]]
    most = max(texts)
    bars = "".join(BARS[(len(BARS) - 1) * n // most] if n else " " for n in texts)
    return f"0 |{bars}| {tokens['max']:,}"


def _finding(finding: Finding) -> Text:
    text = Text(f"{finding.severity}: ", style=STYLES[finding.severity])
    if finding.severity == "error" and len(finding.where) == 1:
        text.append(f"{finding.where[0]}: {finding.message}", style="default")
    else:
        text.append(finding.message + _places(finding), style="default")
    return text.append(f" {finding.fix}" if finding.fix else "", style="dim")


def _places(finding: Finding) -> str:
    """The first places, each file named once: " See a.csv line 3, 7, b.csv line 1 ..."."""
    shown, last = [], ""
    for place in finding.where[:PLACES]:
        file, _, line = place.rpartition(" line ")
        shown.append(line if file == last else place)
        last = file
    more = " ..." if finding.count > len(shown) else ""
    return f" See {', '.join(shown)}{more}" + ("" if more else ".") if shown else ""
