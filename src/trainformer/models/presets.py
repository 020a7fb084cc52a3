"""Transformers by name, of exactly the sizes of their papers, and small ones to try things with."""

from typing import Any

from trainformer.models.design import Design

PAPER: dict[str, Any] = {"positions": "sinusoidal", "activation": "relu", "norm_place": "post", "output": "bias"}
"""Vaswani et al. 2017, arXiv:1706.03762."""
BERT: dict[str, Any] = {
    "positions": "learned", "positions_max": 512, "activation": "gelu", "norm_eps": 1e-12, "scaled_embedding": False,
    "embedding_norm": True, "kinds": 2, "output": "transformed", "initialisation": "truncated_normal",
}  # fmt: skip
"""Devlin et al. 2019, arXiv:1810.04805."""
GPT2: dict[str, Any] = {
    "positions": "learned", "activation": "gelu_tanh", "norm_place": "pre", "scaled_embedding": False,
    "initialisation": "depth_scaled",
}  # fmt: skip
"""Radford et al. 2019, Language models are unsupervised multitask learners."""
T5: dict[str, Any] = {
    "positions": "relative", "activation": "relu", "norm": "rms", "norm_place": "pre", "norm_eps": 1e-6, "biases": False,
    "scaled_embedding": False, "scaled_scores": False, "output": "scaled", "positions_max": 512, "initialisation": "fan_in",
}  # fmt: skip
"""Raffel et al. 2020, arXiv:1910.10683."""
TODAY: dict[str, Any] = {
    "positions": "rotary", "activation": "swiglu", "norm": "rms", "norm_place": "pre", "norm_eps": 1e-6, "biases": False,
    "scaled_embedding": False, "initialisation": "depth_scaled",
}  # fmt: skip
"""What language models have come to: Touvron et al. 2023, arXiv:2302.13971."""
TINY: dict[str, Any] = {"width": 128, "layers": 2, "heads": 4, "feed_forward": 512}

PRESETS: dict[str, Design] = {
    "transformer-tiny": Design(**PAPER, **TINY),
    "transformer-small": Design(**PAPER, width=256, layers=3, heads=4, feed_forward=1024),
    "transformer-base": Design(**PAPER, width=512, layers=6, heads=8, feed_forward=2048),
    "transformer-big": Design(**PAPER, width=1024, layers=6, heads=16, feed_forward=4096, dropout=0.3, embedding_dropout=0.3),
    "bert-tiny": Design(**BERT, **TINY),
    "bert-base": Design(**BERT, width=768, layers=12, heads=12, feed_forward=3072),
    "bert-large": Design(**BERT, width=1024, layers=24, heads=16, feed_forward=4096),
    "gpt2-tiny": Design(**GPT2, **TINY),
    "gpt2": Design(**GPT2, width=768, layers=12, heads=12, feed_forward=3072),
    "t5-tiny": Design(**T5, **TINY),
    "t5-small": Design(**T5, width=512, layers=6, heads=8, feed_forward=2048),
    "modern-tiny": Design(**TODAY, width=128, layers=2, heads=4, feed_forward=384),
    "modern-small": Design(**TODAY, width=256, layers=4, heads=4, feed_forward=768),
}
