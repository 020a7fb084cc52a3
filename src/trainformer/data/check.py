"""The pre-flight check: what is in the training, validation and test rows, and what would make a score not worth believing."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from trainformer.core.roles import Task
from trainformer.data import check_across, check_part
from trainformer.data.finding import Finding
from trainformer.data.part import Part, Tokenised
from trainformer.data.survey import groups

__all__ = ["CheckReport", "Finding", "Part", "check"]

BINS = 20
"""Bars of the histogram of lengths."""
ORDER = {"error": 0, "warning": 1, "note": 2}


@dataclass(frozen=True)
class CheckReport:
    """What was found: numbers for each part by its name, findings (errors first), and the forecast of memory and time."""

    parts: dict[str, dict[str, Any]]
    findings: list[Finding]
    forecast: dict[str, Any] | None = field(default=None)

    @property
    def errors(self) -> list[Finding]:
        return [f for f in self.findings if f.severity == "error"]

    @property
    def warnings(self) -> list[Finding]:
        return [f for f in self.findings if f.severity == "warning"]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        counts = {"errors": len(self.errors), "warnings": len(self.warnings)}
        findings = [f.to_dict() for f in self.findings]
        return {**counts, "parts": self.parts, "findings": findings, "forecast": self.forecast}


def check(parts: list[Part], task: Task, max_tokens: int | None = None, forecast: dict[str, Any] | None = None) -> CheckReport:
    """Looks at all parts, each alone and all together. `parts[0]` is what is trained on.

    `max_tokens` is the longest sequence; without a part's cache nothing is said of tokens. Nothing is raised: what is
    wrong is a finding of severity "error".
    """
    surveys = list({id(p.survey): p.survey for p in parts}.values())
    near = {id(s): found for s, found in zip(surveys, groups(surveys), strict=True)}
    group = [p.pick(near[id(p.survey)]) for p in parts]
    findings = [finding for s in surveys for finding in s.findings]
    for part, own in zip(parts, group, strict=True):
        findings += check_part.look(part, own, task, max_tokens)
    findings += check_across.look(parts, group)
    stats = {p.name: _numbers(p, own) for p, own in zip(parts, group, strict=True)}
    return CheckReport(stats, sorted(findings, key=lambda f: ORDER[f.severity]), forecast)


def _numbers(part: Part, group: Tensor) -> dict[str, Any]:
    """The statistics of a part, as plain JSON values."""
    counts = part.survey.label_counts(part.numbers)
    found: dict[str, Any] = {
        "source": part.source_name,
        "rows": len(part),
        "unusable_rows": int((~part.pick(part.survey.ok)).sum()),
        "different_texts": len(torch.unique(part.pick(part.survey.text_hash))),
        "different_texts_nearly": len(torch.unique(group)),
        "labels": counts,
        "majority_share": max(counts.values()) / len(part) if counts else None,
        "half_width_95": half_width(len(part)),
    }
    return found | {"tokens": None if part.cache is None or not len(part) else _tokens(part, part.cache)}


def _tokens(part: Part, cache: Tokenised) -> dict[str, Any]:
    """Lengths in tokens before cutting, and what was cut or unknown."""
    kept, cut, unknown = (part.pick(t).long() for t in (cache.lengths, cache.cut, cache.unknown))
    whole = kept + cut
    ordered = torch.sort(whole).values
    longest = int(ordered[-1])
    width = max(1, math.ceil((longest + 1) / BINS))
    bars = torch.bincount(whole // width)
    return {
        "p50": int(ordered[len(ordered) // 2]),
        "p95": int(ordered[len(ordered) * 95 // 100]),
        "max": longest,
        "total": int(whole.sum()),
        "cut_texts": int((cut > 0).sum()),
        "cut_tokens": int(cut.sum()),
        "unknown": int(unknown.sum()),
        "histogram": [{"from": i * width, "to": (i + 1) * width - 1, "texts": n} for i, n in enumerate(bars.tolist())],
    }


def half_width(rows: int) -> float:
    """Half the width of the 95 % interval of a share measured on so many rows, at worst (a share of one half), 0..1."""
    return 1.96 * 0.5 / math.sqrt(rows) if rows else 1.0
