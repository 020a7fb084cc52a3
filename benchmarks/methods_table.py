"""What the lines of benchmarks/methods.jsonl tell: a table for each setting, a line for each method, and the targets' verdicts.

It only reads: docs/make_reference.py puts what it says into docs/methods.md, and benchmarks/methods.py makes the lines.
"""

import json
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "methods.jsonl"
SETTINGS = {
    "few": "200 rows of `en_sentiment`, `all-MiniLM-L6-v2`",
    "zh_topic_thucnews": "first 2,000 rows of `zh_topic_thucnews`, `e5-small-zh-en`",
    "en_sentiment": "all 8,040 rows of `en_sentiment`, `all-MiniLM-L6-v2`",
}
"""The cheapest first."""
SEEDS = 3
MOST_LOAD = 0.10
"""Times of runs during which others had more than this share of the machine are not looked at; scores are."""
NOT_YET = "not measured yet"

RECIPE = ("llrd", "ema")
Found = dict[tuple[str, str, int], dict]
"""What a run gave, by setting, way and seed."""


def words(*methods: str, **settings: object) -> list[str]:
    """Methods and their settings, as the command line takes them."""
    chosen = [word for name in methods for word in ("--method", name)]
    steady = {"ema.decay": 0.99} if "ema" in methods else {}
    given = {name.replace("__", "."): value for name, value in settings.items()}
    return chosen + [word for name, value in (steady | given).items() for word in ("--set", f"method.{name}={value}")]


AVERAGED = ["lora", "adalora", "adapter", "prefix"]
ALONE = ["prompt", "ia3", "bitfit", "freeze", "head_only", "gradual_unfreeze"]
WAYS: dict[str, list[str]] = {
    "full": [],
    **{name: words(name, "ema") for name in AVERAGED},
    **{name: words(name) for name in ALONE},
    "dora": words("lora", "ema", lora__dora="true"),
    "no_ema": words("llrd"),
    "swa": words("llrd", "swa"),
    "soup": words("llrd", "soup"),
    **{name: words("llrd", name, "ema") for name in ("rdrop", "fgm", "freelb")},
}
"""`full` is the default recipe; four that train few weights stand beside its average of the weights, the others of that kind
alone, and any other method beside the recipe's."""
ADALORA_BUDGET = "`adalora` and `lora` have rank 8 a layer, `adalora` on the average and in the end."


@dataclass(frozen=True)
class Target:
    """A way is at most so many points of score below another, trains at most a share, and is at least so many times as fast."""

    way: str
    than: str
    points: float
    trained: float = 1.0
    faster: float = 0.0

    def says(self) -> str:
        """The target in words."""
        few = f", at most {self.trained:.0%} trained" if self.trained < 1 else ""
        fast = f", at least {self.faster:g} times as fast" if self.faster else ""
        return f"`{self.way}` at most {self.points:g} points below `{self.than}`{few}{fast}"


TARGETS = [
    Target("lora", "full", 0.5, trained=0.03),
    Target("adalora", "lora", 0.0),
    Target("adapter", "full", 0.7),
    Target("prefix", "full", 2.0),
    Target("freeze", "full", 1.0, faster=1.6),
]
HELP = [("full", "no_ema"), ("swa", "no_ema"), ("soup", "no_ema"), ("rdrop", "full"), ("fgm", "full"), ("freelb", "full")]
"""What is shown to help, or said not to, and beside what; `full` beside `no_ema` is the average of the weights."""
BESIDE = {"ema": ("full", "no_ema"), "swa": ("swa", "no_ema"), "soup": ("soup", "no_ema")}
"""The way that shows a method, and the way without it, where they are not the method's name and `full`."""


def read(path: Path = RESULTS) -> tuple[Found, list[dict]]:
    """The runs, the last of each key, and on what they were run."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    return {tuple(line["key"]): line["result"] for line in lines}, [line["facts"] for line in lines]


def runs(found: Found, setting: str, way: str) -> dict[int, dict]:
    """The runs of a way by their seeds."""
    return {seed: result for (s, w, seed), result in sorted(found.items()) if (s, w) == (setting, way)}


def pairs(found: Found, setting: str, way: str, than: str) -> list[tuple[dict, dict]]:
    """The runs of two ways with the same seed."""
    one, other = runs(found, setting, way), runs(found, setting, than)
    return [(one[seed], other[seed]) for seed in one if seed in other]


def quick(results: Iterable[dict]) -> list[float]:
    """Milliseconds a step of the runs that were not disturbed."""
    return [1000 * r["seconds"] / r["steps"] for r in results if r["others"] <= MOST_LOAD]


def middle(values: Iterable[float], form: Callable[[float], str]) -> str:
    """The median in a form; a dash where there is none."""
    listed = list(values)
    return form(statistics.median(listed)) if listed else "-"


def scores(results: Iterable[dict]) -> str:
    """The mean of the scores in percent, and each of them.

    >>> scores([{"score": 0.871}, {"score": 0.876}]), scores([])
    ('**87.4** (87.1, 87.6, 2 of 3 seeds)', 'not measured yet')
    """
    listed = [100 * r["score"] for r in results]
    if not listed:
        return NOT_YET
    few = "" if len(listed) >= SEEDS else f", {len(listed)} of {SEEDS} seeds"
    return f"**{statistics.mean(listed):.1f}** ({', '.join(f'{s:.1f}' for s in listed)}{few})"


def table(found: Found, setting: str) -> str:
    """Markdown: a line a way; what was not run is said."""
    head = "way | accuracy x 100 on test: mean (seeds) | trained | ms a step | steps | peak memory MiB | shipped MB"
    lines = [f"| {head} |", "|" + "---|" * len(head.split(" | "))]
    for way in WAYS:
        every = list(runs(found, setting, way).values())
        cells = [
            f"`{way}`",
            scores(every),
            middle((r["trained"] / r["parameters"] for r in every), "{:.2%}".format),
            middle(quick(every), "{:.0f}".format) if quick(every) or not every else "disturbed",
            middle((r["steps"] for r in every), "{:.0f}".format),
            middle((r["peak_mib"] for r in every), "{:,.0f}".format),
            middle((r["shipped_bytes"] / 1e6 for r in every), "{:.2f}".format),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def verdict(target: Target, found: Found, setting: str) -> str:
    """Whether a target is met in a setting: met, missed, or what is missing to tell."""
    both = pairs(found, setting, target.way, target.than)
    if not both:
        return NOT_YET
    below = 100 * statistics.mean(other["score"] - one["score"] for one, other in both)
    met, told = below <= target.points + 1e-9, [f"{abs(below):.1f} points {'below' if below > 0 else 'above'}"]
    if target.trained < 1:
        share = max(one["trained"] / one["parameters"] for one, _ in both)
        met, told = met and share <= target.trained, [*told, f"{share:.2%} trained"]
    if target.faster:
        one, other = (quick(side) for side in zip(*both, strict=True))
        if not one or not other:
            return f"{', '.join(told)}; times {NOT_YET} (others used the machine)"
        times = statistics.median(other) / statistics.median(one)
        met, told = met and times >= target.faster, [*told, f"{times:.2f} times as fast"]
    return f"**{'met' if met else 'missed'}**: {', '.join(told)} ({len(both)} of {SEEDS} seeds)"


def helps(found: Found, setting: str, way: str, than: str) -> str:
    """Whether a way scores higher than another: the mean difference beside twice its standard error, seed by seed."""
    differences = [100 * (one["score"] - other["score"]) for one, other in pairs(found, setting, way, than)]
    if len(differences) < 2:
        return NOT_YET if not differences else f"{differences[0]:+.1f}, one seed: too few to tell"
    mean, noise = statistics.mean(differences), 2 * statistics.stdev(differences) / len(differences) ** 0.5
    told = "helps" if mean > noise else "hurts" if mean < -noise else "no difference beyond the noise"
    return f"**{told}**: {mean:+.1f}, twice the standard error {noise:.1f} ({len(differences)} of {SEEDS} seeds)"


def verdicts(found: Found) -> str:
    """Markdown: each target, and each method that shall help, in each setting."""
    head = ["target", *(f"`{setting}`" for setting in SETTINGS)]
    rows = [[target.says(), *(verdict(target, found, s) for s in SETTINGS)] for target in TARGETS]
    rows += [[_beside(way, than), *(helps(found, s, way, than) for s in SETTINGS)] for way, than in HELP]
    return "\n".join([f"| {' | '.join(head)} |", "|" + "---|" * len(head), *(f"| {' | '.join(row)} |" for row in rows)])


def _beside(way: str, than: str) -> str:
    name = "ema" if way == "full" else way
    return f"does `{name}` help, beside {'`llrd` alone' if than == 'no_ema' else 'the default recipe'}?"


def measured(found: Found, method: str) -> str:
    """One line on a method: score beside the recipe without it in each setting, what is trained and what is shipped."""
    way, than = BESIDE.get(method, (method, "full"))
    listed = []
    for setting in SETTINGS:
        own, other = (list(runs(found, setting, w).values()) for w in (way, than))
        if own:
            beside = f" (`{than}` {100 * statistics.mean(r['score'] for r in other):.1f})" if other else ""
            listed.append(f"`{setting}` {100 * statistics.mean(r['score'] for r in own):.1f}{beside}")
    if not listed:
        return NOT_YET
    every = [r for s in SETTINGS for r in runs(found, s, way).values()]
    share = statistics.median(r["trained"] / r["parameters"] for r in every)
    size = statistics.median(r["shipped_bytes"] for r in every)
    return f"accuracy x 100 on test {', '.join(listed)}; {share:.2%} trained, {size / 1e6:.2f} MB shipped"


def page(path: Path = RESULTS) -> str:
    """The tables and verdicts in Markdown."""
    found, facts = read(path)
    parts = [verdicts(found), f"\n{ADALORA_BUDGET}"]
    for setting, title in SETTINGS.items():
        parts += [f"\n### {setting}\n", f"{title[0].upper()}{title[1:]}.\n", table(found, setting)]
    machines = sorted({f"{f['processor']}, {f['cores']} cores, {f['threads']} threads, torch {f['torch']}" for f in facts})
    codes = sorted({str(f["code"]) for f in facts})
    runs_of = "runs of one version" if len(codes) < 2 else f"runs of {len(codes)} versions"
    parts += [f"\n{'; '.join(machines)}; {runs_of} of the code ({', '.join(codes)}).\n"] if facts else [""]
    return "\n".join(parts)
