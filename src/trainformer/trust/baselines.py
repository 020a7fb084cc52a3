"""What fine-tuning has to beat: the majority class (or the mean), and TF-IDF with a linear model. Seconds on any data."""

from typing import Any

import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import FunctionTransformer
from torch import Tensor

from trainformer.bundle.outputs import scored
from trainformer.core.batch import Example
from trainformer.core.roles import Task
from trainformer.data.prepare import Slice

MOST_ROWS = 20_000
"""Training rows that are read at most."""
CLAMP = 30.0


class Baselines:
    """Baselines fitted on the training rows; `scores` asks them on other rows of the same run."""

    def __init__(self, task: Task, train: Slice, seed: int):
        self.task = task
        chosen = torch.randperm(len(train.chosen), generator=torch.Generator().manual_seed(seed))[:MOST_ROWS]
        part = Slice(train.name, train.source, train.columns, train.survey, train.chosen[chosen].sort().values, train.cache)
        examples = list(part.examples(task))
        self.target = _targets(part, task)
        self.words = FeatureUnion([(str(i), _words(examples, i)) for i in range(len(examples[0].texts))])
        self.model = self._fit(self.words.fit_transform(examples))

    def scores(self, part: Slice) -> dict[str, dict[str, float]]:
        """The task's scores of each baseline on a part's rows, by name."""
        target = _targets(part, self.task)
        constant = self._constant().expand(len(target), -1)
        return {
            "mean of training" if self.task.outputs() == 1 else "majority class": self._scored(constant, target),
            "TF-IDF + " + ("ridge regression" if self.task.outputs() == 1 else "logistic regression"): self._scored(
                self._outputs(part), target
            ),
        }

    def _scored(self, output: Tensor, target: Tensor) -> dict[str, float]:
        return scored(self.task, output, target).value()

    def _constant(self) -> Tensor:
        """Raw outputs that say the same of every row: the shares of the training labels, or their mean."""
        if self.target.ndim == 2:
            share = self.target.mean(0).clamp(1e-6, 1 - 1e-6)
            return torch.logit(share)
        if self.task.outputs() == 1:
            return self.target.float().mean().reshape(1)
        counts = torch.bincount(self.target.long(), minlength=self.task.outputs()).float()
        return (counts / counts.sum()).clamp_min(1e-9).log()

    def _fit(self, matrix: Any) -> Any:
        if self.task.outputs() == 1:
            return Ridge(alpha=1.0).fit(matrix, self.target.numpy())
        one = LogisticRegression(C=10.0, max_iter=300)
        if self.target.ndim == 2:
            return OneVsRestClassifier(one).fit(matrix, self.target.numpy())
        return one.fit(matrix, self.target.long().numpy())

    def _outputs(self, part: Slice) -> Tensor:
        """Raw outputs "N C", as a model of the task would give them."""
        found = []
        chunk: list[Example] = []
        for item in part.examples(self.task):
            chunk.append(item)
            if len(chunk) == MOST_ROWS:
                found.append(self._ask(chunk))
                chunk = []
        return torch.cat([*found, self._ask(chunk)] if chunk else found)

    def _ask(self, chunk: list[Example]) -> Tensor:
        matrix = self.words.transform(chunk)
        if self.task.outputs() == 1:
            return torch.from_numpy(self.model.predict(matrix)).float().reshape(-1, 1)
        shares = torch.from_numpy(self.model.predict_proba(matrix)).float()
        if self.target.ndim == 2:
            return torch.logit(shares.clamp(1e-6, 1 - 1e-6))
        output = torch.full((len(chunk), self.task.outputs()), -CLAMP)
        output[:, torch.from_numpy(self.model.classes_).long()] = shares.clamp_min(1e-9).log()
        return output


def _targets(part: Slice, task: Task) -> Tensor:
    """The targets of a part's rows: "N", or "N C" where a row has several labels."""
    rows = part.rows
    found = torch.stack([rows[i].target for i in range(len(rows))])
    return found.squeeze(1) if found.shape[1] == 1 else found


def _words(examples: list[Example], part: int) -> Any:
    """TF-IDF of one text of the examples: words and their pairs; in scripts without spaces, runs of one to three characters."""

    def texts(given: list[Example]) -> list[str]:
        return [e.texts[part] for e in given]

    letters = "".join(texts(examples[:1000]))
    unspaced = sum("\u3040" <= c <= "\u9fff" for c in letters) > 0.2 * max(1, len(letters))
    kind: dict[str, Any] = {"analyzer": "char", "ngram_range": (1, 3)} if unspaced else {"token_pattern": r"(?u)\b\w+\b|\S"}
    kind = kind if unspaced else {**kind, "ngram_range": (1, 2)}
    return make_pipeline(FunctionTransformer(texts), TfidfVectorizer(sublinear_tf=True, max_features=200_000, **kind))
