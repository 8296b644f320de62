"""Tiny models of transformers with random weights and tokenizers made here: whole folders, without a download."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SENTENCE = "the cat sat on a mat while dogs run in green parks and birds sing who where what is blue red house"
WORDS = SENTENCE.split()


def word_pieces(folder: Path, limit: int = 64) -> Any:
    """A BERT tokenizer of ``WORDS`` and single letters."""
    from transformers import BertTokenizerFast

    letters = "abcdefghijklmnopqrstuvwxyz"
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *letters, *(f"##{one}" for one in letters), ".", "?"]
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "vocab.txt"
    file.write_text("\n".join(dict.fromkeys(vocab)) + "\n")
    tokenizer = BertTokenizerFast(str(file), model_max_length=limit)
    tokenizer.save_pretrained(folder)
    return tokenizer


def byte_level(folder: Path) -> Any:
    """A GPT-2 tokenizer: every byte is a token, with an end token, and without a padding token as GPT-2 has none."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator(
        [" ".join(WORDS)] * 4,
        trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, special_tokens=["<|end|>"], show_progress=False),
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|end|>", bos_token="<|end|>")
    tokenizer.save_pretrained(folder)
    return tokenizer


def bert(folder: Path, kind: str, **config: Any) -> Path:
    """A BERT of two layers as ``transformers.kind`` with its tokenizer."""
    import transformers

    tokenizer = word_pieces(folder)
    transformers.set_seed(0)
    settings = transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.5,  # so that answers differ between inputs
        **config,
    )
    getattr(transformers, kind)(settings).save_pretrained(folder)
    return folder


def gpt2(folder: Path) -> Path:
    """A GPT-2 of two layers with its tokenizer and room for 128 tokens."""
    import transformers

    tokenizer = byte_level(folder)
    transformers.set_seed(0)
    settings = transformers.GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=128,
        n_embd=32,
        n_layer=2,
        n_head=2,
        initializer_range=0.5,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    transformers.GPT2LMHeadModel(settings).save_pretrained(folder)
    return folder


def llama(folder: Path, room: int = 100_000) -> Path:
    """A Llama of one layer with its tokenizer and room for so many tokens that a greedy answer takes minutes."""
    import transformers

    tokenizer = byte_level(folder)
    transformers.set_seed(0)
    settings = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=room,
        initializer_range=0.5,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    transformers.LlamaForCausalLM(settings).save_pretrained(folder)
    return folder


def vit(folder: Path) -> Path:
    """A vision transformer of two layers for images of 32 x 32, with its image processor."""
    import transformers

    transformers.set_seed(0)
    settings = transformers.ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=32,
        patch_size=8,
        initializer_range=0.5,
        num_labels=7,
    )
    transformers.ViTForImageClassification(settings).save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder
