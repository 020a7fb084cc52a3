"""A bundle -> a smaller bundle, if it answers nearly as well: prune, quantise, hold against the old one, time, write."""

import copy
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np

from trainformer.bundle import Bundle, adapters, reference, states
from trainformer.bundle.reading import encode_all
from trainformer.bundle.reference import Reference
from trainformer.bundle.writing import Contents, write
from trainformer.compress import gate, mixed, prune, timing
from trainformer.compress.graph import refuse_added
from trainformer.compress.mixed import Form
from trainformer.compress.roundings import WAYS, ByToken
from trainformer.core.batch import Example
from trainformer.core.config import DataSettings
from trainformer.core.errors import UserError
from trainformer.core.files import refuse_existing
from trainformer.core.roles import Backbone
from trainformer.data.columns import Columns
from trainformer.trust import words

REPORT = "compress.json"
WEIGHED_ROWS = 512
"""Rows that tell what matters in a model when parts are taken out."""
WRITTEN = ("format", "task", "model", "methods", "decision", "columns", "max_tokens", "opens_in_transformers")
"""Facts that the writing of a bundle fills in itself."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class Wanted:
    """What is done to a bundle, in this order, and what it may cost."""

    layers: int | None = None
    prune: float | None = None
    prune_heads: float | None = None
    to: Literal["int8"] | None = None
    max_loss: float = 0.4
    backend: Literal["onnxruntime", "openvino"] = "onnxruntime"
    calibration: Literal["dynamic", "static"] = "dynamic"

    @property
    def way(self) -> type[ByToken]:
        """How activations are rounded."""
        return WAYS[self.backend, self.calibration]

    def check(self) -> None:
        """Raises UserError for what cannot be meant."""
        if self.layers is None and self.prune is None and self.prune_heads is None and self.to is None:
            raise UserError("nothing is asked for.", where="compress", fix="Say --to int8, --layers N or --prune SHARE.")
        for name, share in (("--prune", self.prune), ("--prune-heads", self.prune_heads)):
            if share is not None and not 0 < share < 1:
                raise UserError(f"it is {share:g}.", where=name, fix="A share between 0 and 1: 0.3 takes out three tenths.")
        if self.prune_heads is not None and self.to is None:
            what = "the transformers library has no model with fewer heads of the same size."
            raise UserError(what, where="--prune-heads", fix="Add --to int8: a graph can have any number of heads.")
        for name, given in (("--backend", self.backend != "onnxruntime"), ("--calibration", self.calibration != "dynamic")):
            if given and self.to is None:
                raise UserError("it tells how products of 8 bits are made.", where=name, fix="Add --to int8.")


def compress(folder: Path, data: Any, wanted: Wanted, out: Path, settings: DataSettings, say: Say) -> dict[str, Any]:
    """Writes the smaller bundle with compress.json in it; its report.

    Raises UserError, and writes nothing, if a score falls by more than `wanted.max_loss` points.
    """
    wanted.check()
    refuse_existing(out)
    before = Bundle.open(folder)
    refuse_added(before.model, before.facts)
    examples = list(before.examples(data, settings))
    with tempfile.TemporaryDirectory() as place:
        for backbone, after, did in _forms(before, wanted, examples, Path(place), say):  # noqa: B007 (the last one is written)
            for line in did:
                say(line)
            held, notes = gate.hold(before, after, examples)
            for line in [*notes, *_told(held)]:
                say(line)
            if not gate.lost(held, wanted.max_loss):
                break
        gate.require(held, wanted.max_loss)
        report = {
            "asked": asdict(wanted),
            "did": did,
            "rows": len(examples),
            "data": Path(str(data)).name if isinstance(data, str | Path) else "frame",
            **asdict(held),
            "decision": asdict(after.decision),
            "notes": notes,
            "time": timing.beside(before, after, examples),
            "versions": _versions(wanted),
        }
        known = remembered(folder, after, examples)
        write(out, contents(after, backbone, _pages(folder, after, report), {"compressed": report["asked"]}, known))
    return report


def _forms(before: Bundle, wanted: Wanted, examples: list[Example], place: Path, say: Say) -> Iterator[Form]:
    """The smaller model as a bundle in memory, the backbone that writes it, and what was done; the smallest form first."""
    _, backbone, _ = adapters.open_parts(before.facts)
    after, did = before, list[str]()
    if any(each is not None for each in (wanted.layers, wanted.prune, wanted.prune_heads)):
        after = Bundle(before.task, copy.deepcopy(before.model), before.tokens, before.facts)
        did = _pruned(after, wanted, examples[:WEIGHED_ROWS])
    if wanted.to == "int8":
        for small, graph, done in mixed.forms(after, examples, place, say, wanted.way):
            yield small, graph, [*did, *done]
            if after is not before and gate.lost(gate.hold(before, after, examples)[0], wanted.max_loss):
                return  # what was taken out loses too much already
    else:
        yield backbone, after, did


def _pruned(bundle: Bundle, wanted: Wanted, examples: list[Example]) -> list[str]:
    """Takes parts out of a bundle's model in place; what was done."""
    model, did = bundle.model, []

    def run() -> object:
        return bundle.raw(examples)

    if wanted.layers is not None:
        kept = prune.keep_layers(model, wanted.layers, run)
        did.append(f"layers kept, counted from 1: {', '.join(str(i + 1) for i in kept)}")
    if wanted.prune is not None:
        did.append(f"feed-forward columns kept in each layer: {prune.prune_columns(model, wanted.prune, run)}")
    if wanted.prune_heads is not None:
        did.append(f"attention heads kept in each layer: {prune.prune_heads(model, wanted.prune_heads, run)}")
    return did


def remembered(folder: Path, bundle: Bundle, examples: Sequence[Example]) -> Reference | None:
    """What the bundle in a folder remembers of its training data, for one that is made of it.

    Mean states are of the new model and these examples: those of another model tell nothing of it. A graph has none.
    """
    known = reference.read(folder)
    if known is None:
        return None
    chosen = [examples[i] for i in reference.spread(len(examples), reference.MOST_EMBEDDED).tolist()]
    if not chosen or not bundle.model.body.width:
        return replace(known, embeddings=np.empty(0))
    items = encode_all(bundle.task, bundle.tokens, bundle.limit, chosen)
    return replace(known, embeddings=states.mean_states(bundle.task, bundle.model, items))


def contents(
    bundle: Bundle, backbone: Backbone, pages: dict[str, str], facts: dict[str, Any], known: Reference | None
) -> Contents:
    """What is written of a bundle whose model was changed; its facts stay, more are added."""
    kept = {k: v for k, v in bundle.facts.items() if k not in WRITTEN}
    columns = Columns(**bundle.facts["columns"])
    return Contents(bundle.task, backbone, bundle.model, bundle.tokens, bundle.decision, columns, bundle.limit, kept | facts,
                    pages=pages, reference=known)  # fmt: skip


def pages_of(folder: Path, bundle: Bundle) -> dict[str, str]:
    """The pages that travel along, the library's configuration, and labels.json: what a program without us needs."""
    found = {n: (folder / n).read_text(encoding="utf-8") for n in ("README.md", "report.html") if (folder / n).is_file()}
    return found | {"labels.json": json.dumps(labels_of(bundle), indent=1, ensure_ascii=False) + "\n"}


def labels_of(bundle: Bundle) -> dict[str, Any]:
    """Labels in the order of the outputs, the decision layer, and how a text is read."""
    return {
        "task": type(bundle.task).key,
        "labels": bundle.labels,
        "decision": asdict(bundle.decision),
        "max_tokens": bundle.limit,
        "pad_token_id": bundle.model.body.pad,
        "windows_joined_by": getattr(bundle.task, "window_pool", None),
    }


def _told(held: gate.Held) -> list[str]:
    """The scores in a line each."""
    key, worst = held.key, held.losses[0]
    lines = [f"{words.name(key)}: {words.value(key, held.before[key])} before, {words.value(key, held.after[key])} after"]
    if "ece" in held.after:
        lines.append(f"calibration (ECE): {held.before['ece']:.4f} before, {held.after['ece']:.4f} after")
    if held.equal_labels is not None:
        lines.append(f"the same label: {words.percent(held.equal_labels, 2)} of {held.before['examples']} rows")
    return [*lines, f"largest loss: {worst[0]} by {worst[3]:.2f} points"]


def _versions(wanted: Wanted) -> dict[str, str]:
    used = ["trainformer", "torch", *(("onnx", "onnxruntime") if wanted.to else ())]
    used += ["openvino"] if wanted.backend == "openvino" else []
    return {name: version(name) for name in used}


def _pages(folder: Path, bundle: Bundle, report: dict[str, Any]) -> dict[str, str]:
    pages = pages_of(folder, bundle)
    pages[REPORT] = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
    pages["README.md"] = f"{pages.get('README.md', '')}\n{_section(report)}"
    return pages


def _section(report: dict[str, Any]) -> str:
    """What the model card says of it."""
    key, time = report["key"], report["time"]
    rows = [
        (words.name(key), *(words.value(key, report[side][key]) for side in ("before", "after"))),
        ("model, MB", *(f"{time[side]['model_bytes'] / 1e6:.1f}" for side in ("before", "after"))),
        ("one text, ms, p50 / p95", *(f"{time[s]['p50_ms']:.1f} / {time[s]['p95_ms']:.1f}" for s in ("before", "after"))),
        ("texts a second", *(f"{time[side]['texts_a_second']:.0f}" for side in ("before", "after"))),
    ]
    lines = "\n".join(f"| {name} | {before} | {after} |" for name, before, after in rows)
    did = "".join(f"- {line}\n" for line in report["did"])
    head = f"## Compressed\n\n{did}\nOn {report['rows']} rows of `{report['data']}`, {time['threads']} threads:\n\n"
    table = f"| | before | after |\n|---|---|---|\n{lines}\n"
    return f"{head}{table}\nAll numbers: `{REPORT}`. What stands above is of the model before.\n"
