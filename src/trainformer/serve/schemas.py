"""What clients send and read, as OpenAPI shows it."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

EXAMPLE: dict[str, Any] = {"texts": ["a fine film", "two hours that nobody gives back"], "top_k": 2}
SURROGATES = range(0xD800, 0xE000)


class Asked(BaseModel):
    """Texts to answer, and how."""

    model_config = ConfigDict(extra="forbid", strict=True, json_schema_extra={"examples": [EXAMPLE]})

    texts: str | list[str] | list[list[str]] = Field(description="A text, texts, or pairs of texts where the model reads pairs.")
    model: str | None = Field(None, max_length=200, description="The name of a model; none: the first.")
    top_k: int | None = Field(None, ge=1, description="So many of the scores, the highest; none: all.")
    truncate: bool = Field(False, description="Read the head of a text that is too long, instead of refusing it.")
    deadline_ms: int | None = Field(None, ge=1, description="Milliseconds after which no answer is wanted any more.")
    explain: bool = Field(False, description="Tell how much each word adds; the model reads the text once more for each.")

    @field_validator("texts", mode="before")
    @classmethod
    def _texts(cls, value: Any) -> Any:
        if isinstance(value, str):
            _require_unicode([value])
            return value
        if not isinstance(value, list) or not value:
            raise ValueError("a text, or a list of at least one text, is expected")
        pairs = [isinstance(each, list) for each in value]
        if any(pairs) and not all(pairs):
            raise ValueError("either all are single texts or all are pairs")
        flat = [text for each in value for text in (each if isinstance(each, list) else [each])]
        if not all(isinstance(text, str) for text in flat):
            raise ValueError("each must be a text in quotation marks")
        if any(isinstance(each, list) and len(each) != 2 for each in value):
            raise ValueError("a pair has exactly two texts")
        _require_unicode(flat)
        return value

    @property
    def tuples(self) -> list[tuple[str, ...]]:
        """Each as a tuple of one text or two."""
        listed: list[Any] = [self.texts] if isinstance(self.texts, str) else list(self.texts)
        return [(each,) if isinstance(each, str) else tuple(each) for each in listed]


def _require_unicode(texts: list[str]) -> None:
    if any(ord(c) in SURROGATES for text in texts if not text.isascii() for c in text):
        raise ValueError("half of a surrogate pair (\\ud800 to \\udfff) is no character")


class Explained(BaseModel):
    """What one word adds."""

    text: int = Field(description="0; 1 in the second text of a pair.")
    start: int = Field(description="Its first character, counted from 0.")
    end: int = Field(description="The character after its last.")
    score: float = Field(description="The probability of the label, or the number, less what it is without the word.")


class Explanation(BaseModel):
    """Words that speak for an answer have scores above 0, those against it below."""

    of: str | None = Field(description="The label that is explained: what was said, else the likeliest; null for numbers.")
    words: list[Explained]


class Prediction(BaseModel):
    """The answer to one text."""

    id: str = Field(description="Its name, for /v1/feedback.")
    label: Any = Field(description="The label, a list of labels, or a number; null where the model abstains.")
    score: float | None = Field(description="Probability of the label, 0..1; null for numbers.")
    scores: dict[str, float] = Field(description="Probability of each label.")
    tokens: int = Field(description="Tokens of the text that were read.")
    cut_tokens: int = Field(description="Tokens of it that were not read; more than 0 only with truncate.")
    explanation: Explanation | None = Field(None, description="Only where it was asked for.")


class Answered(BaseModel):
    """Predictions in the order of the texts."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "reviews",
                    "version": "3f6c0a9d1b22",
                    "id": "5f0c7a3be4d2914c",
                    "predictions": [
                        {
                            "id": "5f0c7a3be4d2914c-0",
                            "label": "positive",
                            "score": 0.98,
                            "scores": {"positive": 0.98, "negative": 0.02},
                            "tokens": 3,
                            "cut_tokens": 0,
                        }
                    ],
                }
            ]
        }
    )

    model: str
    version: str
    id: str
    predictions: list[Prediction]


class Truth(BaseModel):
    """What the right answer would have been."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: str = Field(max_length=64, description="The id of a prediction.")
    label: str | float | list[str] = Field(description="The true label, labels, or number.")

    @field_validator("label")
    @classmethod
    def _unicode(cls, value: Any) -> Any:
        _require_unicode([value] if isinstance(value, str) else value if isinstance(value, list) else [])
        return value


class Feedback(BaseModel):
    """True labels of answers that were given before."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={"examples": [{"items": [{"id": "5f0c7a3be4d2914c-0", "label": "positive"}]}]},
    )

    items: list[Truth] = Field(min_length=1, max_length=1000)


class Problem(BaseModel):
    """Why there is no answer."""

    code: str = Field(description="A word for programs.")
    message: str = Field(description="A sentence for people.")


class Refused(BaseModel):
    """The body of every answer that is not 2xx."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"error": {"code": "overloaded", "message": "The queue is full. Try again later."}}]}
    )

    error: Problem
