"""Time and memory of a token of our Transformer by the length of texts, with full and with local attention; a table and a plot.

    python benchmarks/cost.py [--length 64 ... ] [--tokens 8192] [--repeats 5] [--table]

A step, forward and backward, of a decoder of the shape `modern-small` in float32 on as many tokens each time, cut into texts of
one length: what a token costs then tells how cost grows with length. Local attention sees the 128 tokens before. Memory is the
most that tensors took at once in a step, weights and their gradients left out (engine/room.py counts it).
"""

import argparse
import math
import statistics
import time
from pathlib import Path

from measure import HERE, MOST_LOAD, Load, Results, around, described, put_table, rows_of_table, spread

LENGTHS = [64, 128, 256, 512, 1024, 2048, 4096, 8192]
WINDOW = 128
WAYS = {"full": None, "local": WINDOW}
COLOURS = {"full": "#b03a2e", "local": "#1f618d"}
VOCABULARY = 1000


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--length", type=int, action="append", help="tokens of a text; may stand several times")
    p.add_argument("--tokens", type=int, default=8192, help="tokens of a step")
    p.add_argument("--repeats", type=int, default=5)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--most-load", type=float, default=MOST_LOAD, help="share of others at which a run is thrown away")
    p.add_argument("--table", action="store_true", help="write table and plot from the runs that there are")
    p.add_argument("--results", type=Path, default=HERE / "cost.jsonl")
    p.add_argument("--docs", type=Path, default=HERE.parent / "docs" / "benchmarks.md")
    return p.parse_args(words)


class Step:
    """A model and a batch of texts of one length."""

    def __init__(self, way: str, length: int, tokens: int):
        import torch

        from trainformer.core.batch import Encoded, Part, pack
        from trainformer.core.roles import Model
        from trainformer.models.initialisation import initialise
        from trainformer.models.presets import PRESETS
        from trainformer.models.transformer import Transformer
        from trainformer.models.vocabulary import VocabularyHead

        torch.manual_seed(0)
        sizes = {"form": "decoder", "vocabulary": VOCABULARY, "window": WAYS[way], "positions_max": max(LENGTHS)}
        body = Transformer(PRESETS["modern-small"].model_copy(update=sizes).checked())
        initialise(body)
        self.model = Model(body, VocabularyHead(body)).train()
        ids = torch.randint(VOCABULARY, (tokens // length, length))
        self.batch = pack([Encoded((Part(row, [length]),), row, i, units=length) for i, row in enumerate(ids)])

    def run(self) -> None:
        from torch.nn.functional import cross_entropy

        cross_entropy(self.model(self.batch), self.batch.target).backward()

    def seconds(self) -> float:
        self.model.zero_grad()
        start = time.perf_counter()
        self.run()
        return time.perf_counter() - start

    def bytes(self) -> int:
        """The most that is alive at once in a step."""
        from trainformer.engine.room import Alive

        hooks = [p.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None)) for p in self.model.parameters()]
        self.model.zero_grad()
        with Alive(self.model) as alive:
            self.run()
        for hook in hooks:
            hook.remove()
        return int(alive.most)


def measure(way: str, length: int, tokens: int, threads: int) -> dict:
    """Seconds of a step, the second one, and its memory."""
    import torch

    torch.set_num_threads(threads)
    step = Step(way, length, tokens)
    step.seconds()
    with Load() as load:
        seconds = step.seconds()
    return dict(seconds=seconds, bytes=step.bytes(), others=load.share)


def found(a: argparse.Namespace, results: Results, way: str, length: int, what: str) -> list[float]:
    """What a token cost in each repeat: microseconds or KiB."""
    lines = [results.get(way, length, a.tokens, repeat) for repeat in range(a.repeats)]
    factor = 1e6 if what == "seconds" else 1 / 1024
    return [factor * line[what] / (a.tokens // length * length) for line in lines if line]


def table(a: argparse.Namespace, results: Results) -> str:
    lines = []
    for length in a.length:
        times = {way: found(a, results, way, length, "seconds") for way in WAYS}
        sizes = {way: found(a, results, way, length, "bytes") for way in WAYS}
        cells = [*(spread(each, ",.1f") for each in times.values()), *(spread(each[:1], ",.1f") for each in sizes.values())]
        both = all(times.values())
        ratio = statistics.median(times["full"]) / statistics.median(times["local"]) if both else math.nan
        lines.append([f"{length:,}", *cells, f"{ratio:.2f}x" if both else "not run"])
    head = (
        "tokens of a text | µs a token, full | µs a token, local | KiB a token, full | KiB a token, local | time, full to local"
    )
    return rows_of_table(head, lines)


def plot(a: argparse.Namespace, results: Results) -> str:
    """Both panels, time and memory, as SVG: lengths by doublings, costs in a line from 0."""
    panels = [("µs a token", "seconds"), ("KiB a token", "bytes")]
    width, height, left, low = 340, 220, 52, 180
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width * len(panels)} {height}" font-family="sans-serif" '
           'font-size="11">']  # fmt: skip
    first, last = math.log2(min(a.length)), math.log2(max(a.length))
    for number, (title, what) in enumerate(panels):
        x0 = number * width + left
        points = {way: [(n, found(a, results, way, n, what)) for n in a.length] for way in WAYS}
        most = max((statistics.median(v) for each in points.values() for _, v in each if v), default=1.0)
        places = {n: x0 + (math.log2(n) - first) / max(1e-9, last - first) * (width - left - 20) for n in a.length}
        out.append(f'<text x="{x0}" y="16">{title}, up to {most:,.1f}</text>')
        out.append(f'<path d="M{x0} 26V{low}H{x0 + width - left - 20}" stroke="#777" fill="none"/>')
        out += [f'<text x="{x:.0f}" y="{low + 16}" text-anchor="middle">{n}</text>' for n, x in places.items()]
        for row, (way, each) in enumerate(points.items()):
            dots = [(places[n], low - statistics.median(v) / most * (low - 30)) for n, v in each if v]
            line = " ".join(f"{x:.1f},{y:.1f}" for x, y in dots)
            out.append(f'<polyline points="{line}" stroke="{COLOURS[way]}" fill="none" stroke-width="2"/>')
            out.append(f'<text x="{x0 + 8}" y="{40 + 14 * row}" fill="{COLOURS[way]}">{way} attention</text>')
    return "\n".join([*out, "</svg>", ""])


def main(words: list[str] | None = None) -> None:
    a = arguments(words)
    a.length = a.length or LENGTHS
    around("cost", a.docs)
    results = Results(a.results, a.threads, a.most_load)
    keys = [(way, length, a.tokens, repeat) for repeat in range(a.repeats) for length in a.length for way in WAYS]
    for key in results.missing(keys) if not a.table else []:
        way, length, tokens, _ = key
        results.fill(key, lambda w=way, n=length, t=tokens: measure(w, n, t, a.threads))
    picture = a.docs.with_name("cost.svg")
    picture.write_text(plot(a, results), encoding="utf-8")
    shown = f"![What a token costs, by the length of its text]({picture.name})"
    text = f"{table(a, results)}\n\n{shown}\n\n{described(results.measured, results.thrown)}"
    print(text)
    put_table("cost", text, a.docs)


if __name__ == "__main__":
    main()
