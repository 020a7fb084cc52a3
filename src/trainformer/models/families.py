"""How the classification heads of the transformers library run, family by family: the modules, in order.

`first` takes the first state of each sequence; `{base}` is the encoder's own name in the library's model. With these,
a head of ours is the library's own modules, so `AutoModelForSequenceClassification` opens a bundle with equal logits.
"""

OWN_HEAD = "trainformer_head"
"""Where a bundle keeps a head that the library cannot run."""

OWN_ADDED = "trainformer_added"
"""Where a bundle keeps what methods that stay have added to the body."""

HEADS = {
    "bert": "{base}.pooler dropout classifier",
    "ernie": "{base}.pooler dropout classifier",
    "roberta": "classifier",
    "xlm-roberta": "classifier",
    "xlm-roberta-xl": "classifier",
    "camembert": "classifier",
    "data2vec-text": "classifier",
    "electra": "classifier",
    "mpnet": "classifier",
    "distilbert": "first pre_classifier relu dropout classifier",
    "albert": "first {base}.pooler {base}.pooler_activation dropout classifier",
    "deberta": "pooler dropout classifier",
    "deberta-v2": "pooler dropout classifier",
    "modernbert": "first head drop classifier",
}

UNIFORM_ATTENTION = {
    "bert": ("encoder.layer", "attention.self.query attention.self.key attention.self.value attention.output.dense",
             "attention.output.LayerNorm", "intermediate.dense output.dense", "output.LayerNorm"),
    "distilbert": ("transformer.layer", "attention.q_lin attention.k_lin attention.v_lin attention.out_lin",
                   "sa_layer_norm", "ffn.lin1 ffn.lin2", "output_layer_norm"),
}  # fmt: skip
"""Families whose layers can be set to average all tokens: layers; query, key, value, output; norm; feed-forward; norm."""
UNIFORM_ATTENTION |= dict.fromkeys(
    ["roberta", "xlm-roberta", "camembert", "electra", "ernie", "data2vec-text"], UNIFORM_ATTENTION["bert"]
)

AFTER_PADDING = (
    "roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "data2vec-text", "mpnet", "roberta-prelayernorm", "xmod",
    "ibert", "longformer", "luke", "mluke", "esm", "lilt", "markuplm", "layoutlmv3",
)  # fmt: skip
"""Families that count positions from the one after the padding's, so that their table holds a few more than they read."""

HEAD_WEIGHTS = (
    "cls.", "lm_head.", "classifier.", "pooler.", "discriminator_predictions.", "generator_predictions.",
    "generator_lm_head.", "vocab_transform.", "vocab_layer_norm.", "vocab_projector.", "qa_outputs.", "predictions.",
    "sop_classifier.", "mask_predictions.", "lm_predictions.", "pre_classifier.", "head.", "decoder.", "score.",
    "deberta.pooler.", "mlm.", "nsp.", "logits_proj.", f"{OWN_HEAD}.",
)  # fmt: skip
"""Beginnings of the names of weights that belong to other heads: they may be left over in a checkpoint."""

BUFFERS = ("position_ids", "token_type_ids", "inv_freq")
"""Ends of the names of tables that old checkpoints stored and the library now computes."""


def is_head(name: str) -> bool:
    """Whether a weight of a checkpoint belongs to a head and not to the encoder."""
    bare = name.split(".", 1)[-1]
    return name.startswith(HEAD_WEIGHTS) or bare.startswith("pooler.") or name.endswith(BUFFERS)
