"""Makes the demo's data: sentences of film reviews with human scores, fetched by pip and never part of this repository.

    python scripts/demo_data.py FOLDER

The sentences come with the source distribution of vaderSentiment (Hutto and Gilbert 2014; MIT licence). Twenty people or more
scored each from -4 to 4; the sign is the label, and sentences that are nearly neutral are left out. A hash of its text puts each
into train (80 %), validation (10 %) or test (10 %), so that equal sentences stay on one side.
"""

import hashlib
import html
import io
import json
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

RELEASE = "vaderSentiment==3.3.2"
SCORED = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
SHA256 = "c8293b0d942e90e223ea2c0955d969040d1a1be514a978b9af0698940bd13350"
NEUTRAL = 0.5
SPLITS = ("validation", "test", *["train"] * 8)


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "demo")
    folder.mkdir(parents=True, exist_ok=True)
    splits: dict[str, list[dict[str, object]]] = {name: [] for name in ("test", "validation", "train")}
    for text, score in sentences(fetch()):
        if abs(score) >= NEUTRAL:
            label = "positive" if score > 0 else "negative"
            splits[split_of(text)].append({"text": text, "label": label, "score": round(score, 4)})
    for name, rows in splits.items():
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8", newline="\n")
        counts = Counter(str(row["label"]) for row in rows)
        print(f"{folder / name}.jsonl: {len(rows)} rows, {counts['positive']} positive, {counts['negative']} negative")


def fetch() -> bytes:
    """The scored sentences, byte for byte as they were published."""
    with tempfile.TemporaryDirectory() as place:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "vaderSentiment", "--dest", place]
        if subprocess.run([*pip, RELEASE]).returncode:
            sys.exit(f"pip could not fetch {RELEASE}; the demo needs the package registry once.")
        outer = next(Path(place).glob("*.tar.gz"))
        inner = member(outer.read_bytes(), "additional_resources/hutto_ICWSM_2014.tar.gz")
    scored = member(inner, SCORED)
    if hashlib.sha256(scored).hexdigest() != SHA256:
        sys.exit(f"{SCORED} in {RELEASE} is not the file that this script was written for (SHA-256 differs).")
    return scored


def member(archive: bytes, ending: str) -> bytes:
    """One file of a tar archive, by the end of its name; nothing is unpacked to the disk."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        found = next((m for m in tar if m.isfile() and m.name.endswith(ending)), None)
        stream = tar.extractfile(found) if found else None
        if stream is None:
            sys.exit(f"{RELEASE} holds no {ending}.")
        return stream.read()


def sentences(scored: bytes) -> Iterator[tuple[str, float]]:
    """(text, mean score -4..4) of each line `id TAB score TAB text`; entities resolved, runs of white space made one blank."""
    for line in scored.decode("utf-8").splitlines():
        _, score, text = line.split("\t", 2)
        yield " ".join(html.unescape(text).split()), float(score)


def split_of(text: str) -> str:
    """The split that a text falls into, on every machine and in every release."""
    return SPLITS[int(hashlib.sha256(text.encode()).hexdigest(), 16) % len(SPLITS)]


if __name__ == "__main__":
    main()
