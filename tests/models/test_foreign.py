"""BERT, GPT-2, Marian and T5 of the transformers library with the same weights: read, computed, differentiated, written."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from trainformer.core.batch import Batch, Encoded, Part, pack
from trainformer.core.errors import UserError
from trainformer.core.roles import Model
from trainformer.models import stored
from trainformer.models.foreign import family, places, written
from trainformer.models.own import Own
from trainformer.models.transformer import Transformer
from trainformer.tasks.causal_lm import CausalLm
from trainformer.tasks.seq2seq import Seq2seq

V, D = 60, 32
SOURCES, TARGETS = [5, 1, 9, 3], [4, 7, 2, 9]


class Masked(CausalLm):
    """An encoder that tells tokens."""

    writes = ""


TASKS: dict[str, Any] = {"bert": Masked, "gpt2": CausalLm, "marian": Seq2seq, "t5": Seq2seq}
PRESETS = {"bert": "bert-tiny", "gpt2": "gpt2-tiny", "marian": "transformer-tiny", "t5": "t5-tiny"}
AUTO: dict[str, Any] = {
    "bert": transformers.AutoModelForMaskedLM,
    "gpt2": transformers.AutoModelForCausalLM,
    "marian": transformers.AutoModelForSeq2SeqLM,
    "t5": transformers.AutoModelForSeq2SeqLM,
}


def library(kind: str, **changes: Any) -> Any:
    """A random model of the library, none of its weights at 0 or 1."""
    both: dict[str, Any] = {"scale_embedding": True, "encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 48, "decoder_ffn_dim": 48}  # fmt: skip
    marks = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2, "decoder_start_token_id": 0}
    configs: dict[str, Any] = {
        "bert": lambda: transformers.BertConfig(
            vocab_size=V, hidden_size=D, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, **changes),
        "gpt2": lambda: transformers.GPT2Config(vocab_size=V, n_embd=D, n_layer=2, n_head=4, n_positions=64, **changes),
        "marian": lambda: transformers.MarianConfig(
            vocab_size=V, d_model=D, max_position_embeddings=64, **(both | marks | changes)),
        "t5": lambda: transformers.T5Config(
            vocab_size=V, d_model=D, d_kv=6, d_ff=48, num_layers=2, num_decoder_layers=1, num_heads=4, **(marks | changes)),
    }  # fmt: skip
    torch.manual_seed(0)
    model = AUTO[kind].from_config(configs[kind]()).eval()
    for name, parameter in model.named_parameters():
        if "embed_positions" not in name:
            parameter.data += 0.1 * torch.randn_like(parameter)
    if kind == "marian":
        model.final_logits_bias.copy_(torch.randn(1, V))
    return model


def given(kind: str) -> Batch:
    draw = torch.Generator().manual_seed(1)
    rows = []
    for row, lengths in enumerate(zip(SOURCES, TARGETS, strict=True)):
        sides = lengths if kind in ("marian", "t5") else lengths[1:]
        parts = tuple(Part(torch.randint(3, V, (n,), generator=draw), [n]) for n in sides)
        rows.append(Encoded(parts, torch.zeros(lengths[1], dtype=torch.long), row, units=lengths[1]))
    return pack(rows)


def scores(model: Any, batch: Batch) -> Tensor:
    """The library's scores "T V" of a padded batch, its padding taken off."""
    padded = [nn.utils.rnn.pad_sequence(list(p.ids.split(p.lengths)), batch_first=True) for p in batch.parts]
    masks = [torch.arange(p.longest) < torch.tensor(p.lengths)[:, None] for p in batch.parts]
    inputs = {"input_ids": padded[0], "attention_mask": masks[0].long()}
    if len(padded) > 1:
        inputs |= {"decoder_input_ids": padded[1], "decoder_attention_mask": masks[1].long()}
    found: Tensor = model(**inputs).logits[masks[-1]]
    return found


def close(ours: Tensor, theirs: Tensor, atol: float = 1e-5) -> None:
    ours, theirs = ours.detach(), theirs.detach()
    torch.testing.assert_close(ours, theirs, atol=atol * max(1.0, float(theirs.abs().max())), rtol=0)


def loaded(kind: str, folder: Path, tokenizer: Path) -> tuple[Model, Own]:
    settled, _ = Own(name=str(folder), tokenizer=str(tokenizer)).resolve()
    model, backbone, said = settled.load(TASKS[kind]())
    assert "kept" in said[0]
    return model.eval(), backbone


VARIANTS = [("bert", {}), ("gpt2", {}), ("marian", {}), ("t5", {}), ("bert", {"hidden_act": "gelu_new"}),
            ("gpt2", {"tie_word_embeddings": False}), ("gpt2", {"n_inner": 40, "activation_function": "relu"}),
            ("marian", {"activation_function": "swish", "scale_embedding": False})]  # fmt: skip


@pytest.mark.parametrize(("kind", "changes"), VARIANTS, ids=str)
def test_their_weights_compute_the_same_here(kind: str, changes: dict[str, Any], tmp_path: Path, tiny_model: Path) -> None:
    """Scores to 1e-5 and the gradient of every weight to 1e-4, packed against padded, lengths unequal."""
    peer, batch = library(kind, **changes), given(kind)
    peer.save_pretrained(tmp_path)
    model, _ = loaded(kind, tmp_path, tiny_model)
    body = model.body
    assert isinstance(body, Transformer) and family(body.design) == kind
    ours, theirs = model(batch), scores(peer, batch)
    close(ours, theirs)
    weight = torch.randn(ours.shape, generator=torch.Generator().manual_seed(2))
    (ours * weight).sum().backward()
    (theirs * weight).sum().backward()
    mine = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    kept = {n: p for n, p in places(body.design, kind).items() if n in mine}
    found, named = written(mine, kept), dict(peer.named_parameters())
    for name, grad in found.items():
        if name in named:  # Marian's bias is a buffer there
            close(grad, named[name].grad, atol=1e-4)
    trained = {n for n, p in named.items() if p.grad is not None and p.grad.any()}
    assert trained <= set(found), "every weight that the library trains is one of ours"


@pytest.mark.parametrize("kind", TASKS)
def test_ours_open_in_the_library(kind: str, tmp_path: Path, tiny_model: Path) -> None:
    """A new model, written, and read by the library's Auto class."""
    torch.manual_seed(0)
    task = TASKS[kind]()
    settled, _ = Own(name=PRESETS[kind], tokenizer=str(tiny_model), vocabulary=V, width=D, heads=4).resolve()
    model, backbone, _ = settled.load(task)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    assert backbone.opens_in_library(model)
    backbone.save(model.eval(), tmp_path, task)
    peer, info = AUTO[kind].from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    batch = given(kind)
    close(model(batch), scores(peer.eval(), batch))
    again = backbone.open(tmp_path, task)
    assert torch.equal(again(batch), model(batch))


@pytest.mark.parametrize("kind", ["gpt2", "marian", "t5"])
def test_the_library_writes_the_same_texts(kind: str, tmp_path: Path, tiny_model: Path) -> None:
    """Greedy, and for what has a source by a beam of four: token for token what the library's generate() gives."""
    from trainformer.nn.beam_search import beam_search
    from trainformer.nn.decoding import Decoding
    from trainformer.nn.generate import Prompts, Voice, generate

    peer = library(kind)
    peer.save_pretrained(tmp_path)
    model, _ = loaded(kind, tmp_path, tiny_model)
    body: Any = model.body
    head: Any = model.head
    voice = Voice(body, head.scores, 1, 64)
    ids = torch.randint(3, V, (6,), generator=torch.Generator().manual_seed(3))
    source = given("t5").parts[0] if kind != "gpt2" else None
    if source is None:
        prompts = Prompts([ids.tolist()])
        theirs = peer.generate(ids[None], do_sample=False, max_new_tokens=12, eos_token_id=1, pad_token_id=0)[:, 6:]
    else:
        prompts = Prompts([[0]] * len(source.lengths), source)
        padded = nn.utils.rnn.pad_sequence(list(source.ids.split(source.lengths)), batch_first=True)
        mask = (torch.arange(source.longest) < torch.tensor(source.lengths)[:, None]).long()
        how = {"input_ids": padded, "attention_mask": mask, "do_sample": False, "max_new_tokens": 12, "eos_token_id": 1,
               "forced_eos_token_id": None, "bad_words_ids": None}  # fmt: skip
        theirs = peer.generate(**how)[:, 1:]
        best = peer.generate(**how, num_beams=4, length_penalty=0.0, early_stopping=False)[:, 1:]
        found = beam_search(voice, prompts, Decoding(beam=4, max_new_tokens=12, length_penalty=0.0))
        assert [kept[0][1].ids for kept in found] == [_cut(row) for row in best.tolist()]
    assert [text.ids for text in generate(voice, prompts, Decoding(max_new_tokens=12))] == [_cut(row) for row in theirs.tolist()]


def _cut(row: list[int]) -> list[int]:
    return row[: row.index(1)] if 1 in row else row


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True"),
     ("t5", {"feed_forward_proj": "gated-gelu"}, "feed_forward_proj is 'gated-gelu'"),
     ("marian", {"decoder_attention_heads": 2}, "encoder_attention_heads is 4"),
     ("bert", {"hidden_act": "tanh"}, "the activation 'tanh' is none of ours")],
)  # fmt: skip
def test_what_ours_is_not_is_refused(kind: str, changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    config = library(kind).config
    for name, value in changes.items():
        setattr(config, name, value)
    config.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=words):
        stored.design(tmp_path)


def test_an_encoder_is_had_from_both(tmp_path: Path, tiny_model: Path) -> None:
    """Of T5 the encoder alone: its states are the library's."""
    peer, batch = library("t5"), given("gpt2")
    peer.save_pretrained(tmp_path)
    settled, _ = Own(name=str(tmp_path), tokenizer=str(tiny_model)).resolve()
    model, _, _ = settled.load(Masked())
    padded = nn.utils.rnn.pad_sequence(list(batch.parts[0].ids.split(TARGETS)), batch_first=True)
    mask = torch.arange(max(TARGETS)) < torch.tensor(TARGETS)[:, None]
    theirs = peer.encoder(padded, attention_mask=mask.long()).last_hidden_state[mask]
    close(model.eval().body(batch)[0], theirs)


def test_a_decoder_is_no_encoder(tmp_path: Path, tiny_model: Path) -> None:
    library("gpt2").save_pretrained(tmp_path)
    settled, _ = Own(name=str(tmp_path), tokenizer=str(tiny_model)).resolve()
    with pytest.raises(UserError, match="of the form 'decoder', and the task needs one of the form 'encoder'"):
        settled.load(Masked())
