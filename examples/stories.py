"""Easy stories first: a small language model that learns from short, plain stories before long ones, beside one that does not.

    python examples/stories.py --out stories [--stories 2000] [--epochs 4] [--seed 0]

The stories are made up here, by a grammar, of four levels: more scenes, more words, and from level 3 on sentences in sentences.
Both models see the same stories as often, with the same settings; one reads them in random order, the other with the method
`curriculum` by the column `level` (Bengio et al. 2009; Platanios et al. 2019, arXiv:1903.09848). What is printed: bits a byte on
stories that neither has seen, and how each goes on with a beginning.
"""

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path

from trainformer import Bundle, train
from trainformer.data.tokens import write_tokenizer
from trainformer.data.vocabulary import Wanted
from trainformer.data.vocabulary import train as train_tokenizer

LEVELS = 4
HEROES = ["a fox", "a bear", "an owl", "a girl", "a boy", "a mouse", "a king", "a witch"]
THINGS = ["key", "apple", "lamp", "book", "ring", "drum", "boat", "map", "coin", "kite"]
PLACES = ["in the wood", "by the river", "under a stone", "on the hill", "behind the house", "at the market"]
ENDS = {"found": "happy", "lost": "sad", "gave away": "proud", "broke": "sorry"}
"""What happened last tells how a story ends."""
ADVERBS = ["Soon", "After that", "The next day", "At night"]
BEGINNING = "Once there was a fox. The fox found"


def story(level: int, draw: random.Random) -> str:
    """A story with as many scenes as its level; the hero's feeling at the end follows from the last scene."""
    hero = draw.choice(HEROES)
    name = f"the {hero.partition(' ')[2]}"
    told = [f"Once there was {hero}."]
    deed = ""
    for number in range(level):
        deed, thing = draw.choice(list(ENDS)), draw.choice(THINGS)
        scene = f"{name} {deed} a {thing}"
        if level > 1:
            scene += f" {draw.choice(PLACES)}"
        if level > 2:
            friend = draw.choice([h for h in HEROES if h != hero])
            scene += f", and {friend} who saw it said that {name} {draw.choice(list(ENDS))} the {thing} before"
        told.append(f"{draw.choice(ADVERBS)} {scene}." if number else f"{scene[0].upper()}{scene[1:]}.")
    told.append(f"So {name} was {ENDS[deed]}.")
    return " ".join(told)


def stories(count: int, seed: int) -> list[dict[str, str | int]]:
    """Stories with their levels, as many of each, no two alike."""
    draw, found = random.Random(seed), dict[str, int]()
    while len(found) < count:
        level = 1 + len(found) % LEVELS
        found.setdefault(story(level, draw), level)
    return [{"text": text, "level": level} for text, level in found.items()]


def write(path: Path, rows: Sequence[dict[str, str | int]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def main(words: Sequence[str] | None = None) -> dict[str, float]:
    """Bits a byte on test of each order."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, required=True, help="folder of stories, tokenizer and runs; it must not exist")
    p.add_argument("--stories", type=int, default=2000)
    p.add_argument("--epochs", type=float, default=4.0)
    p.add_argument("--seed", type=int, default=0)
    a = p.parse_args(words)
    a.out.mkdir(parents=True)
    rows = stories(a.stories, a.seed)
    held = max(8, a.stories // 10)
    files = {name: write(a.out / f"{name}.jsonl", part) for name, part in
             (("train", rows[2 * held :]), ("validation", rows[:held]), ("test", rows[held : 2 * held]))}  # fmt: skip
    wanted = Wanted("byte_bpe", 400)
    backend, _ = train_tokenizer(lambda: (str(row["text"]) for row in rows[2 * held :]), wanted)
    write_tokenizer(backend, wanted.style.roles, False, a.out / "tokenizer")
    paced = {"method.curriculum.by": "column", "method.curriculum.column": "level"}
    found = {}
    for order, method, more in (("random", ["ema"], {}), ("easy first", ["curriculum", "ema"], paced)):
        out = a.out / order.replace(" ", "-")
        settings = {"train.epochs": a.epochs, "train.step_rows": 32, "train.seed": a.seed, "data.cache": str(a.out / "cache")}
        run = train(files["train"], validation=files["validation"], test=files["test"], out=out, task="causal_lm", text="text",
                    model="gpt2-tiny", tokenizer=str(a.out / "tokenizer"), method=method, set=settings | more)  # fmt: skip
        found[order] = run.scores["test"]["bits_per_byte"]
        text = Bundle.open(out / "bundle").author.write([BEGINNING])[0].text
        print(f"{order}: {found[order]:.4f} bits a byte on test\n    {BEGINNING}{text}")
    return found


if __name__ == "__main__":
    main()
