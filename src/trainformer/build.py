"""Configuration -> rows and a loop that is ready to start: what training and the pre-flight report have in common."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from trainformer.core.config import Config
from trainformer.core.errors import UserError
from trainformer.core.roles import Backbone, Callback, Model, Task
from trainformer.data import prepare
from trainformer.data.check import CheckReport
from trainformer.data.plan import Plan
from trainformer.data.prepare import Prepared
from trainformer.data.tokens import HubTokens
from trainformer.engine import begun, recipe
from trainformer.engine.engine import Engine, Job
from trainformer.engine.ranks import Ranks, spread
from trainformer.nn.few_rows import keep_rows
from trainformer.trust import calibrate

Say = Callable[[str], None]


@dataclass
class Run:
    """A run in the making."""

    config: Config
    folder: Path
    say: Say
    frames: dict[str, Any] = field(default_factory=dict)
    strict: bool = False
    show: Callable[[CheckReport], None] = lambda _: None
    """Shows the pre-flight report."""
    ranks: Ranks = field(default_factory=Ranks)
    """The processes that share the work: all of those of torchrun."""
    part: Literal["whole", "fit", "ship"] = "whole"
    """fit: ends when it is trained, the test untouched and no bundle written; ship: does the rest, without a further step."""
    seconds: float = 0.0
    """What earlier sessions of this run took."""
    watch: Callback | None = None
    """A callback that is no setting: it stands in no file, and does not travel with the bundle."""


def rows(run: Run, labelled: bool) -> tuple[Config, HubTokens, int, Prepared]:
    """The rows, read and tokenised; with labels they are ready to train on."""
    backbone, said = run.config.model.resolve()
    config = run.config.model_copy(update={"model": backbone})
    backbone.refuse(config.task)
    tokens = HubTokens.load(backbone.reads())
    config.task.meet(tokens)
    limit = recipe.longest(config.data.max_tokens, backbone.limit(), config.method.values())
    prepared = prepare.read(config, run.frames, labelled)
    prepared.said[:0] = said
    for line in prepared.said:
        run.say(line)
    if labelled:
        prepare.learn(prepared, config.task)
        calibrate.check_costs(getattr(config.task, "rule", None), config.decision)
    prepare.encode(prepared, config, tokens, limit, labelled)
    settled = vars(prepared.slices["train"].columns) | {"max_tokens": limit}
    config = config.model_copy(update={"data": config.data.model_copy(update=settled)})
    return config, tokens, limit, prepared


def engine(run: Run, config: Config, prepared: Prepared) -> tuple[Engine, Backbone, Config]:
    """Model, plan and loop, with the recipe's open settings filled in and said."""
    torch.manual_seed(config.train.seed)
    model, backbone, said = config.model.load(config.task)
    for method in config.method.values():
        method.extend(model)
    _few_rows(model, config.task, prepared)
    train = prepared.slices["train"].rows.scaled()
    told = recipe.trained(model)
    chosen, words = recipe.settle(config.train, len(train), model.body.width, config.method.values(), model.body.rate)
    ranks, shared = spread(run.ranks, config)
    said += [*told, *words, *shared]
    prepared.said += said
    for line in said:
        run.say(line)
    config = config.model_copy(update={"train": chosen, "model": backbone})
    padded = not getattr(model.body, "packed", True)
    used = begun.kept(chosen, run.folder)
    plan = Plan(train, used.step_rows, used.micro_tokens, used.epochs or 1.0, used.seed, padded, ranks.rank, ranks.world,
                vary=config.task.vary)  # fmt: skip
    watching = config.callbacks | ({} if run.watch is None else {"watch": run.watch})
    part = prepared.slices["train"]
    facts = {"column": part.column, "tokenizer": prepared.tokenizer}
    job = Job(model, config.task, plan, prepared.slices["validation"].rows, used, run.folder, config.method,
              watching if ranks.first else {}, config.dump(), used.probe, ranks, facts, part.places)  # fmt: skip
    loop = Engine(job)
    prepared.said += loop.said
    for line in loop.said:
        run.say(line)
    return loop, backbone, config


def _few_rows(model: Model, task: Task, prepared: Prepared) -> None:
    """Only the embeddings that can occur take part. Raises UserError for tokens that have none."""
    table, used = model.body.embed(), torch.cat([s.rows.cache.tokens for s in prepared.slices.values()])
    varies = type(task).vary is not Task.vary  # it may bring in any token
    needed = prepared.vocabulary if varies else 1 + int(used.max())
    if needed > table.num_embeddings:
        what = f"its tokenizer's tokens go up to {needed - 1}, and its table of embeddings has {table.num_embeddings} rows."
        mask = ", or one that has a mask (--like bert)" if varies else ""
        raise UserError(what, where="--model", fix=f"The tokenizer is another model's: take its own{mask}.")
    if not varies:
        keep_rows(model, table, used)
