"""Our own Transformer as a setting: new, by a preset's name, or read from a folder with a checkpoint of ours or of its kin."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import PrivateAttr
from torch import Tensor, nn

from trainformer.core.errors import UserError, nearest
from trainformer.core.roles import Backbone, Method, Model, Task
from trainformer.data.tokens import HubTokens
from trainformer.models import stored
from trainformer.models.design import Design, Form, Sizes, designed
from trainformer.models.foreign import OURS, family
from trainformer.models.foreign_config import Marks
from trainformer.models.heads import EmbeddingHead, SequenceHead, own_modules
from trainformer.models.initialisation import initialise, peak_rate
from trainformer.models.presets import PRESETS
from trainformer.models.transformer import Transformer
from trainformer.models.vocabulary import VocabularyHead
from trainformer.models.weights import fill
from trainformer.nn.pool import Pooling
from trainformer.nn.surgery import ADDED

KINDS = (OURS, "gpt2", "marian", "t5")
"""Checkpoints that are read as ours unless another kind is named; BERT's are the library's encoder."""
DROPOUTS = ("dropout", "attention_dropout", "embedding_dropout")
"""What may be set for weights that are there already."""


class Own(Sizes, Backbone):
    """Our Transformer, trained from nothing, or from a checkpoint of ours, GPT-2, Marian, T5 or BERT."""

    name: str | None = None
    """A preset (transformer-base, bert-base, gpt2, t5-small, ... and smaller ones), or the folder of a checkpoint."""
    tokenizer: str | None = None
    """Folder or hub name of the tokenizer; none: the one beside the checkpoint."""
    vocabulary: int | None = None
    """Rows of the table of embeddings; none: as many as the tokenizer has tokens."""
    pooling: Pooling = "mean"
    """What a head for whole texts reads: the first token (cls), the mean or the maximum of all."""

    _marks: Marks = PrivateAttr(default_factory=Marks)

    @classmethod
    def knows(cls, name: str) -> bool:
        return name in PRESETS or stored.config(Path(name)).get("model_type") in KINDS

    def reads(self) -> str:
        return self.tokenizer or str(self.name)

    def resolve(self) -> tuple["Own", list[str]]:
        """The settings with the vocabulary filled in. Raises UserError for sizes or a tokenizer that do not fit."""
        self._refuse_nothing()
        tokens = HubTokens.load(self.reads())
        rows = self.vocabulary or self._base().vocabulary or tokens.vocabulary
        if rows < tokens.vocabulary:
            what = f"the tokenizer has {tokens.vocabulary} tokens, the table of embeddings {rows} rows."
            fix = "Leave model.vocabulary out." if self.name in PRESETS else "Take the checkpoint's own tokenizer."
            raise UserError(what, where="model.vocabulary", fix=fix)
        settled = self.model_copy(update={"vocabulary": rows})
        settled._marks = Marks(tokens.begin, tokens.end, tokens.pad)
        settled._design().checked()
        return settled, []

    def limit(self) -> int:
        """Most tokens of a sequence that the model can read, special tokens included."""
        return self._design().positions_max

    def refuse(self, task: Task) -> None:
        """Raises UserError for a checkpoint of another form than the task's."""
        self._design(task.writes or "encoder")

    def load(self, task: Task) -> tuple[Model, "Own", list[str]]:
        """A new model, or that of a checkpoint, with a head for the task. A new one has a row for a mask that the task brings."""
        mask = getattr(task, "mask_id", None)
        if self.name in PRESETS and mask is not None and mask >= (self.vocabulary or 0):
            more = self.model_copy(update={"vocabulary": mask + 1}).load(task)
            return *more[:2], [*more[2], f"mask: token {mask}, new to the tokenizer; the model has a row for it"]
        design = self._design(task.writes or "encoder").checked()
        model = self._built(design, task)
        size = f"{design.form} of {sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters"
        if self.name in PRESETS:
            model.body.rate = peak_rate(design)
            return model, self, [f"model: {self.name}, a new {size}, its weights {design.initialisation}"]
        weights, wanted = stored.read(Path(str(self.name))), model.state_dict()
        head = [n for n in wanted if not n.startswith("body.")]
        fits = all(n in weights and weights[n].shape == wanted[n].shape for n in head) and task.vocabulary
        names = {n: n for n in wanted if n.startswith("body.") or fits}
        fill(model, weights, names, Path(str(self.name)))
        return model, self, [f"model: {size}, from {Path(str(self.name)).name}; its head is {'kept' if fits else 'new'}"]

    def open(self, folder: Path, task: Task, stays: Sequence[Method] = (), weights: dict[str, Tensor] | None = None) -> Model:
        """The model of a bundle, from its configuration and weights; nothing else is read."""
        model = self._built(stored.design(folder), task)
        for method in stays:
            method.extend(model)
        names = model.state_dict()
        plain = {n: n if weights is None else n.replace(".base_layer.", ".") for n in names if ".ranknum." not in n}
        fill(model, stored.read(folder) if weights is None else weights, plain, folder)
        return model.eval()

    def save(self, model: Model, folder: Path, task: Task) -> None:
        """Writes config.json and model.safetensors: as the library reads them where it has such a model."""
        body = model.body
        assert isinstance(body, Transformer)
        weights = {n: v.detach().cpu().contiguous() for n, v in model.state_dict().items()}
        stored.write(folder, body.design, weights, isinstance(model.head, VocabularyHead), self._marks)

    def opens_in_library(self, model: Model) -> bool:
        """Whether the transformers library gives equal scores of the vocabulary with what `save` writes."""
        body = model.body
        assert isinstance(body, Transformer)
        plain = isinstance(model.head, VocabularyHead) and not hasattr(body, ADDED)
        return plain and family(body.design) is not None

    def _refuse_nothing(self) -> None:
        """Raises UserError where it is not said what is to be trained, or with which tokenizer."""
        if self.name is None:
            raise UserError("no model given.", where="--model", fix=f"There is: {', '.join(PRESETS)}.")
        if self.name in PRESETS and self.tokenizer is None:
            fix = "--tokenizer FOLDER, from `trainformer tokenizer train`, or that of any model."
            raise UserError(f"'{self.name}' is trained from nothing and needs a tokenizer.", where="--model", fix=fix)
        if self.name not in PRESETS and not Path(self.name).is_dir():
            what = "no preset and no folder has that name."
            raise UserError(what, where=f"--model {self.name}", fix=nearest(self.name, PRESETS))

    def _base(self) -> Design:
        """The preset, or what the checkpoint's folder describes. Raises UserError for sizes that are not the checkpoint's."""
        if self.name in PRESETS:
            return PRESETS[self.name]
        base = stored.design(Path(str(self.name)))
        for name in (*Sizes.model_fields, "vocabulary"):
            asked = getattr(self, name)
            if name not in DROPOUTS and asked is not None and asked != getattr(base, name):
                what = f"it is {getattr(base, name)} in the checkpoint, and weights that are there cannot be changed."
                raise UserError(what, where=f"model.{name}", fix="Leave it out, or name a preset to train from nothing.")
        return base

    def _design(self, form: Form | None = None) -> Design:
        """The design in the form that a task needs; of a checkpoint with both stacks the encoder may be had alone."""
        base = self._base()
        form = form or base.form
        if self.name not in PRESETS and base.form != form and (base.form, form) != ("encoder-decoder", "encoder"):
            what = f"it holds a model of the form '{base.form}', and the task needs one of the form '{form}'."
            raise UserError(what, where=str(self.name), fix="Name a preset to train from nothing, or another checkpoint.")
        asked: dict[str, Any] = {n: getattr(self, n) for n in Sizes.model_fields}
        return designed(base, asked | {"form": form, "vocabulary": self.vocabulary})

    def _built(self, design: Design, task: Task) -> Model:
        """A new model with random weights."""
        if getattr(task, "sentences", "none") != "none":
            what = "a new model has no head that judges sentences."
            raise UserError(what, where="task.sentences", fix="Leave it at none, or take a checkpoint of the library.")
        body = Transformer(design)
        initialise(body)
        if task.vocabulary:
            return Model(body, VocabularyHead(body))
        if task.embeds:
            return Model(body, EmbeddingHead(self.pooling))
        modules: dict[str, nn.Module] = own_modules(design.width, task.outputs(), design.dropout)
        return Model(body, SequenceHead(modules, self.pooling, getattr(task, "window_pool", "mean")))
