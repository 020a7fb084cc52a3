"""The model card of a bundle: Markdown with the front matter that model hubs read."""

from html import escape
from typing import Any

import yaml

from trainformer.trust import report

TAGS = {"text_pair": "text-pair-classification", "multi_label": "multi-label-classification", "regression": "text-regression",
        "retrieval": "sentence-similarity", "causal_lm": "text-generation", "seq2seq": "text2text-generation",
        "masked_lm": "fill-mask", "denoising": "text2text-generation"}  # fmt: skip
PIPELINES = {"causal_lm": ("text-generation", "AutoModelForCausalLM"), "seq2seq": ("translation", "AutoModelForSeq2SeqLM"),
             "masked_lm": ("fill-mask", "AutoModelForMaskedLM"),
             "denoising": ("text2text-generation", "AutoModelForSeq2SeqLM")}  # fmt: skip
"""How model hubs run what the library opens, and what it is opened as; others are sequence classifiers."""
USUAL = ("text-classification", "AutoModelForSequenceClassification")
PAIRS = ("text_pair", "retrieval")
SHOWN_LABELS = 40
WEAKEST = 3


def render(results: dict[str, Any]) -> str:
    """README.md of a bundle. `results` is what `run.train` gathers; paths in it are relative to the bundle's folder."""
    split = report.scored(results)
    detail = results[split]["detail"]
    made = report.environment(html=False)
    made.filters["cell"] = cell
    return made.get_template("card.md.j2").render(
        results=results,
        front=front_matter(results),
        split=split,
        headline=report.headline(results),
        tables=[report.table(results, s) for s in ("test", "validation") if results[s]],
        weakest=sorted((c for c in detail.get("classes", []) if c["support"]), key=lambda c: c["f1"])[:WEAKEST],
        warnings=[f for f in results["data"]["findings"] if f["severity"] != "note"],
        opens_as=PIPELINES.get(results["task"], USUAL)[1],
        pair=results["task"] in PAIRS,
        shown=(results["labels"] or [])[:SHOWN_LABELS],
        ask='("a text", "another text")' if results["task"] in PAIRS else '"a text"',
        words='"a text" "another text"' if results["task"] in PAIRS else '"a text"',
    )


def front_matter(results: dict[str, Any]) -> str:
    """The YAML head of the card. Language and licence are not known here, so they are left out."""
    library = "transformers" if results["opens_in_transformers"] else "trainformer"
    tags = ["trainformer", TAGS.get(results["task"], "text-classification")]
    pipeline = PIPELINES.get(results["task"], USUAL)[0]
    facts = {"library_name": library, "pipeline_tag": pipeline, "tags": tags, "metrics": [results["key"]]}
    return yaml.safe_dump(facts, sort_keys=False, allow_unicode=True)


def cell(words: object) -> str:
    """Words that come from data, in one line, so that none of their characters is read as Markdown or HTML."""
    line = escape(" ".join(str(words).split()), quote=False)
    return "".join(f"\\{c}" if c in r"\`*_{}[]|~$" else c for c in line)
