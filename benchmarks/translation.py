"""Translation from nothing beside the Hugging Face Seq2SeqTrainer: scores and speed, in one run.

    python benchmarks/translation.py --shared DIR [--data en_de_parallel] [--minutes 30] [--pairs N] [--repeats 1] [--table]

DIR holds data/. A Unigram tokenizer is trained on the pairs; then Trainformer and the Trainer (a Marian model, which computes
the same) train a new model of the same size on the same pairs with the same tokenizer, rows a step, rate, dropout and label
smoothing for the same minutes, and each translates the test sources with a beam: five texts by default. Each is a process of
its own, one after the other. Ours is scored on validation inside its minutes. BLEU and chrF are sacrebleu's. A third line has
the weights that ours has trained translated by the library, so that the two ways to write are also held side by side.
Tokens a second: in training source and target without padding, by the seconds of the steps (the peer's: of its training, in
which nothing is scored); in translation those of the translations, their ends counted. Texts a second stand beside them, as a
way to write that likes longer texts has more tokens. Each run is a line of --results, and --table only writes the table.
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from measure import HERE, MOST_LOAD, Child, Results, described, put_table, rows_of_table, run_child, spread, trainformer

from trainformer.metrics.written import written_scores
from trainformer.models.initialisation import peak_rate
from trainformer.models.presets import PRESETS

OTHER = "ours by the library"
RUNS = {
    "ours": "Trainformer",
    "peer": "Seq2SeqTrainer, Marian",
    OTHER: "weights of Trainformer, `generate` of the library",
}
"""What trains, or only writes, by its key among the results."""
TRAINING_AIM, WRITING_AIM = 2, 3
"""How many times the peer's tokens a second ours should have."""


def arguments() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--shared", type=Path, required=True)
    p.add_argument("--data", default="en_de_parallel", help="folder with train, validation and test of source and target")
    p.add_argument("--minutes", type=float, default=30, help="of training, for each")
    p.add_argument("--pairs", type=int, default=10**9, help="train on the first ones only")
    p.add_argument("--test-pairs", type=int, default=500)
    p.add_argument("--model", default="transformer-tiny", choices=[n for n in PRESETS if n.startswith("transformer")])
    p.add_argument("--vocabulary", type=int, default=8000)
    p.add_argument("--batch", type=int, default=64, help="pairs of an optimiser step")
    p.add_argument("--max-length", type=int, default=128, help="tokens of a text; longer ones are cut")
    p.add_argument("--beam", type=int, default=5)
    p.add_argument("--repeats", type=int, default=1, help="each with another seed")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--most-load", type=float, default=MOST_LOAD, help="share of others at which a run is thrown away")
    p.add_argument("--table", action="store_true", help="write the table from the runs that there are")
    p.add_argument("--results", type=Path, default=HERE / "translation.jsonl")
    p.add_argument("--docs", type=Path, help="page between whose marks `translation` the table is put")
    return p.parse_args()


class Bench:
    """Files of pairs, their tokenizer, and the runs."""

    def __init__(self, a: argparse.Namespace, folder: Path):
        self.a, self.folder, self.design = a, folder, PRESETS[a.model]
        self.rate = peak_rate(self.design)
        self.train, self.validation = self._rows("train", a.pairs), self._rows("validation", a.test_pairs)
        self.test = self._rows("test", a.test_pairs)
        self.wanted = [json.loads(line)["target"] for line in self.test.open(encoding="utf-8")]
        self.tokenizer = folder / "tokenizer"
        words = trainformer("tokenizer", "train", "--data", self.train, "--text", "source", "--text", "target")
        run_child([*words, "--kind", "unigram", "--size", str(a.vocabulary), "--out", str(self.tokenizer)], a.threads)

    def _rows(self, split: str, count: int) -> Path:
        path = self.folder / f"{split}.jsonl"
        with (self.a.shared / "data" / self.a.data / path.name).open(encoding="utf-8") as lines:
            found = [json.loads(line) for _, line in zip(range(count), lines, strict=False)]
        rows = [json.dumps({"source": row["source"], "target": row["target"]}) + "\n" for row in found]
        path.write_text("".join(rows), encoding="utf-8")
        return path

    def run(self, way: str, seed: int) -> dict:
        """All numbers of one run."""
        train = {"ours": self._ours, "peer": self._peer, OTHER: self._trained_already}[way]
        child, found = train(seed)
        writing, told = self._translated(way, self.folder / f"peer-{seed}" if way == "peer" else self.bundle(seed))
        return dict(**found, **told, others=max(each.others for each in (child, writing) if each))

    def bundle(self, seed: int) -> Path:
        return self.folder / f"ours-{seed}" / "bundle"

    def _trained_already(self, seed: int) -> tuple[Child | None, dict]:
        """What ours has trained; again, where an earlier run of the benchmark did."""
        return (None if self.bundle(seed).is_dir() else self._ours(seed)[0]), {}

    def _ours(self, seed: int) -> tuple[Child, dict]:
        a, out = self.a, self.folder / f"ours-{seed}"
        shutil.rmtree(out, ignore_errors=True)  # a disturbed run is repeated
        settings = {
            "train.minutes": a.minutes, "train.step_rows": a.batch, "train.seed": seed, "data.max_tokens": a.max_length,
            "task.long_pair": "truncate", "task.max_new_tokens": a.max_length,
        }  # fmt: skip
        words = trainformer(
            "train", "--task", "seq2seq", "--data", self.train, "--validation", self.validation, "--test", self.test,
            "--text", "source", "--target", "target", "--model", a.model, "--tokenizer", self.tokenizer, "--out", out,
        )  # fmt: skip
        for name, value in settings.items():
            words += ["--set", f"{name}={value}"]
        child = run_child(words, a.threads, TRAINFORMER_CACHE=str(self.folder / "cache"))
        steps = [line for line in map(json.loads, (out / "log.jsonl").open()) if "lr" in line]
        return child, self._trained(sum(s["seconds"] for s in steps), sum(s["tokens"] for s in steps), len(steps))

    def _peer(self, seed: int) -> tuple[Child, dict]:
        a, d = self.a, self.design
        shape = f"{d.width}x{d.layers}x{d.heads}x{d.feed_forward}"
        words = [sys.executable, HERE / "hf_translation.py", "--tokenizer", self.tokenizer, "--train", self.train,
                 "--shape", shape, "--minutes", a.minutes, "--lr", self.rate, "--dropout", d.dropout, "--batch", a.batch,
                 "--max-length", a.max_length, "--seed", seed, "--out", self.folder / f"peer-{seed}"]  # fmt: skip
        child = run_child(list(map(str, words)), a.threads, TOKENIZERS_PARALLELISM="false")
        found = json.loads(child.output.splitlines()[-1])
        return child, self._trained(found["seconds"], found["tokens"], found["steps"])

    @staticmethod
    def _trained(seconds: float, tokens: int, steps: int) -> dict:
        return dict(seconds=seconds, steps=steps, training_speed=tokens / seconds)

    def _translated(self, way: str, model: Path) -> tuple[Child, dict]:
        a, out = self.a, self.folder / "translations.jsonl"
        words = [sys.executable, HERE / "translate_rows.py", "--way", "ours" if way == "ours" else "library", "--model", model,
                 "--data", self.test, "--out", out, "--beam", a.beam, "--max-length", a.max_length]  # fmt: skip
        child = run_child(list(map(str, words)), a.threads, TOKENIZERS_PARALLELISM="false")
        found = json.loads(child.output.splitlines()[-1])
        scores = written_scores([json.loads(line) for line in out.open(encoding="utf-8")], self.wanted)
        speeds = dict(writing_speed=found["tokens"] / found["seconds"], text_speed=len(self.wanted) / found["seconds"])
        return child, dict(**scores, writing_seconds=found["seconds"], **speeds)


def key(a: argparse.Namespace, way: str, repeat: int) -> tuple[str | int, ...]:
    what = f"{a.data} {a.model} {a.vocabulary} tokens, {a.batch} pairs a step, {a.max_length} long, beam {a.beam}"
    return (what, f"{a.minutes:g} minutes", a.pairs, a.test_pairs, way, repeat)


def fill(a: argparse.Namespace, results: Results) -> None:
    """Runs what is missing."""
    for repeat in range(a.repeats):
        if not results.missing([key(a, way, repeat) for way in RUNS]):
            continue
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(a, Path(folder))
            for way in RUNS:
                results.fill(key(a, way, repeat), lambda w=way, b=bench, r=repeat: b.run(w, r), tries=2)


def table(a: argparse.Namespace, results: Results) -> str:
    found = {way: [r for r in (results.get(*key(a, way, n)) for n in range(a.repeats)) if r] for way in RUNS}
    lines = []
    for way, title in RUNS.items():
        cells = [spread([r[name] for r in found[way] if name in r], form) for name, form in
                 (("bleu", ".1f"), ("chrf", ".1f"), ("training_speed", ",.0f"), ("writing_speed", ",.0f"),
                  ("text_speed", ",.1f"))]  # fmt: skip
        cells[2] = "" if way == OTHER else cells[2]
        lines.append([title, *cells])
    head = "what | BLEU on test | chrF on test | tokens a second in training | tokens a second in translation | texts a second"
    return f"{rows_of_table(head, lines)}\n\n{ratios(found)}{signatures(found['ours'])}"


def ratios(found: dict[str, list[dict]]) -> str:
    """How many times the peer's speed ours has, beside the aims."""
    words = []
    for name, aim, what in (("training_speed", TRAINING_AIM, "Training"), ("writing_speed", WRITING_AIM, "Translation")):
        for other in [way for way in RUNS if way != "ours"]:
            speeds = [[r[name] for r in found[way] if name in r] for way in ("ours", other)]
            if all(speeds):
                ratio = statistics.median(speeds[0]) / statistics.median(speeds[1])
                words.append(f"{what}, ours to {RUNS[other]}: {ratio:.2f}x (aim {aim}).")
    return " ".join(words)


def signatures(found: list[dict]) -> str:
    return f"\n\n`{found[0]['bleu_signature']}`, `{found[0]['chrf_signature']}`." if found else ""


def main() -> None:
    a = arguments()
    a.shared = a.shared.resolve()
    results = Results(a.results, a.threads, a.most_load)
    if not a.table:
        fill(a, results)
    size = "all" if a.pairs == 10**9 else f"the first {a.pairs}"
    text = f"`{a.data}`, {size} pairs, `{a.model}`, {a.minutes:g} minutes, beam {a.beam}.\n\n{table(a, results)}"
    text += f"\n\n{described(results.measured, results.thrown)}"
    print(text)
    if a.docs:
        put_table("translation", text, a.docs)


if __name__ == "__main__":
    main()
