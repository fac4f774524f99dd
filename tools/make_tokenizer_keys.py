"""Record the tokenizer keys that llama.cpp's converter writes for many small folders, to be copied by ``make_golden.py``.

``python tools/make_tokenizer_keys.py LLAMA_CPP OUT.json.xz`` builds tokenizer folders in a temporary place, gives each to the converter
of a llama.cpp checkout, and writes the folders' files and the keys. Needs ``transformers``, ``sentencepiece`` and ``tokenizers``, not
``torch``: converting a vocabulary computes nothing, so an empty module stands in for it. The vocabularies are trained on the licence text.
Names of pre-tokenizers are not compared (the converter knows no small model), so every folder is converted as ``gpt-2``.
"""

from __future__ import annotations

import argparse
import base64
import importlib.machinery
import io
import json
import logging
import lzma
import sys
import tempfile
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEXT = [line.strip() for line in (ROOT / "LICENSE-APACHE").read_text(encoding="utf-8").splitlines() if line.strip()]
HARD_TEXTS = (
    "The License grants, for a work; 12345 rights & naïve café 日本語 🙂",
    "  two  spaces\n\nnew\tlines\r\n",
    "é e\u0301 \u00a0\u3000 x",
    "",
    " ",
    "'THE' the The tHe",
)

Files = dict[str, object]


def token(text: str, special: bool, **more: object) -> dict[str, object]:
    """An added token."""
    return {"content": text, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": special, **more}


def sentencepiece_model(**options: object) -> bytes:
    """A SentencePiece model of 400 pieces with byte fallback."""
    import sentencepiece

    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT),
        model_writer=out,
        vocab_size=400,
        model_type="bpe",
        byte_fallback=True,
        character_coverage=0.98,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
        num_threads=1,
        **options,
    )
    return out.getvalue()


def byte_level_json() -> dict[str, object]:
    """``tokenizer.json`` of a byte-level vocabulary of 300 tokens, the first two of them special."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|bos|>", "<|eos|>"]
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXT, trainer)
    found: dict[str, object] = json.loads(tokenizer.to_str())
    return found


def sentencepiece_cases() -> dict[str, Files]:
    """Folders with ``tokenizer.model``."""
    plain = sentencepiece_model()
    gemma = sentencepiece_model(
        add_dummy_prefix=False,
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        control_symbols=["<mask>", "<unused0>"],
        user_defined_symbols=["\n\n", "▁▁", "<start_of_turn>", "<end_of_turn>"],
    )
    named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "add_bos_token": True, "add_eos_token": False}
    added: dict[str, object] = {"0": token("<unk>", True), "1": token("<s>", True), "2": token("</s>", True)}
    config = {**named, "added_tokens_decoder": added, "tokenizer_class": "LlamaTokenizer", "chat_template": "{{ messages }}"}
    templates = [{"name": "default", "template": "D"}, {"name": "tool-use", "template": "T"}]
    more = {**added, "400": token("<|im_start|>", False), "401": token("▁▁x", False), "402": token("[INST]", True)}
    ids = {"bos_token_id": 1, "eos_token_id": 2}
    for_gemma = {
        "added_tokens_decoder": {
            **{str(i): token(text, True) for i, text in enumerate(("<pad>", "<eos>", "<bos>", "<unk>"))},
            **{str(4 + i): token(text, False) for i, text in enumerate(("<mask>", "<unused0>", "\n\n", "▁▁"))},
            **{str(8 + i): token(text, True) for i, text in enumerate(("<start_of_turn>", "<end_of_turn>"))},
        },
        **{f"{kind}_token": f"<{kind}>" for kind in ("bos", "eos", "unk", "pad")},
        "add_bos_token": True,
        "add_eos_token": False,
    }
    phi = {**config, "added_tokens_decoder": {**added, "401": token("<|assistant|>", True), "402": token("<|x|>", False)}}
    old = {"<|im_start|>": 400, "▁▁x": 401, "[INST]": 402}

    def folder(model: bytes, architecture: str, model_type: str, n_vocab: int, tokenizer_config: object, **files: object) -> Files:
        model_config = {"model_type": model_type, "architectures": [architecture], "vocab_size": n_vocab, **ids}
        return {"tokenizer.model": model, "config.json": model_config, "tokenizer_config.json": tokenizer_config, **files}

    cases = {
        "llama": folder(plain, "LlamaForCausalLM", "llama", 410, config),
        "llama-added": folder(
            plain,
            "LlamaForCausalLM",
            "llama",
            403,
            {**config, "add_prefix_space": False, "chat_template": templates, "added_tokens_decoder": more},
            **{"added_tokens.json": old},
        ),
        "llama-bare": folder(plain, "LlamaForCausalLM", "llama", 400, {}),
        "llama-cut": folder(plain, "MistralForCausalLM", "mistral", 380, config),
        "qwen2-model": folder(plain, "Qwen2ForCausalLM", "qwen2", 400, {**config, "add_prefix_space": False}),
        "phi3": folder(plain, "Phi3ForCausalLM", "phi3", 405, phi, **{"added_tokens.json": {"<|placeholder|>": 400}}),
    }
    for name, architecture in (("gemma", "Gemma"), ("gemma2", "Gemma2"), ("gemma3_text", "Gemma3")):
        cases[name] = folder(gemma, f"{architecture}ForCausalLM", name, 420, for_gemma)
        cases[name]["config.json"] |= {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}  # type: ignore[operator]
    return cases


def byte_level_cases() -> dict[str, Files]:
    """Folders with a byte-level ``tokenizer.json``, and one with the files from before it."""
    base = byte_level_json()
    text_a, text_b = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    bos, eos, end = ({"SpecialToken": {"id": name, "type_id": 0}} for name in ("<|bos|>", "<|eos|>", "<|end|>"))
    byte_level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}

    def template(single: list[object], pair: list[object]) -> dict[str, object]:
        known = {name: {"id": name, "ids": [i], "tokens": [name]} for name, i in (("<|bos|>", 0), ("<|eos|>", 1), ("<|end|>", 300))}
        used = {entry["SpecialToken"]["id"] for entry in (*single, *pair) if "SpecialToken" in entry}  # type: ignore[operator,index]
        return {
            "type": "TemplateProcessing",
            "single": single,
            "pair": pair,
            "special_tokens": {name: known[name] for name in sorted(used)},
        }

    def folder(
        architecture: str,
        model_type: str,
        *,
        post: object = None,
        added: tuple[dict[str, object], ...] = (),
        n_vocab: int = 300,
        config: dict[str, object] | None = None,
        tokenizer_config: dict[str, object] | None = None,
        bare: bool = False,
        **files: object,
    ) -> Files:
        tokenizer = json.loads(json.dumps(base))
        tokenizer["post_processor"] = post
        tokenizer["added_tokens"] += [{"id": 300 + i, **entry} for i, entry in enumerate(added)]
        named = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|bos|>", "eos_token": "<|eos|>", **(tokenizer_config or {})}
        model_config = {"model_type": model_type, "architectures": [architecture], "vocab_size": n_vocab, **(config or {})}
        out = {"tokenizer.json": tokenizer, "config.json": model_config, **files}
        return out if bare else {**out, "tokenizer_config.json": named}

    begins = template([bos, text_a], [bos, text_a, text_b])
    both = template([bos, text_a, eos], [bos, text_a, eos, bos, text_b, eos])
    llama = ("LlamaForCausalLM", "llama")
    added = (
        token("<pad>", False),
        token("  x", False),
        token("ĠĠy", False),
        token("ĠĠz", False, normalized=True),
        token("▁▁", False),
        token("ÿþ", False, normalized=True),
    )
    slow = {
        "vocab.json": base["model"]["vocab"],  # type: ignore[index]
        "merges.txt": "#version: 0.2\n" + "".join(" ".join(pair) + "\n" for pair in base["model"]["merges"]),  # type: ignore[index]
        "config.json": {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": 300, "bos_token_id": 0},
        "tokenizer_config.json": {
            "tokenizer_class": "GPT2Tokenizer",
            "bos_token": "<|bos|>",
            "eos_token": "<|eos|>",
            "unk_token": "<|eos|>",
        },
    }
    sequence = {"type": "Sequence", "processors": [byte_level, both]}
    roberta = {"type": "RobertaProcessing", "sep": ["<|eos|>", 1], "cls": ["<|bos|>", 0], "trim_offsets": True, "add_prefix_space": False}
    other_names: dict[str, object] = {"bos_token": None, "eos_token": None, "cls_token": "<|bos|>", "sep_token": "<|eos|>"}
    return {
        "begins": folder(*llama, post=begins, n_vocab=310, config={"bos_token_id": 0, "eos_token_id": [1, 5], "pad_token_id": 9}),
        "ends": folder("Qwen3ForCausalLM", "qwen3", post=template([text_a, eos], [text_a, eos, text_b, eos])),
        "both": folder(*llama, post=sequence),
        "separates": folder(*llama, post=template([bos, text_a], [bos, text_a, eos, text_b])),
        "ends-otherwise": folder(*llama, post=template([text_a, end], [text_a, text_b]), added=(token("<|end|>", True),), n_vocab=304),
        "roberta": folder(*llama, post=roberta, tokenizer_config={"mask_token": "<|bos|>", "add_bos_token": False}),
        "byte-level": folder("GPT2LMHeadModel", "gpt2", post=byte_level, config={"bos_token_id": 1, "pad_token_id": None}),
        "added": folder("Qwen2MoeForCausalLM", "qwen2_moe", added=added, n_vocab=308, tokenizer_config={"pad_token": "<pad>"}),
        "added-in-config": folder(
            "Olmo2ForCausalLM",
            "olmo2",
            added=(token("<tool>", False),),
            n_vocab=302,
            config={"text_config": {"pad_token_id": 5}},
            tokenizer_config={"added_tokens_decoder": {"300": token("<tool>", True), "301": token("<new>", False)}},
        ),
        "no-config": folder(*llama, post=begins, bare=True, config={"bos_token_id": 0, "eos_token_id": 1}),
        "template-file": folder(*llama, post=begins, **{"chat_template.jinja": "J {{ messages }}"}),
        "template-json": folder(
            *llama,
            post=begins,
            tokenizer_config={"add_prefix_space": False, "cls_token": "<|bos|>", "sep_token": "<|eos|>", "add_eos_token": True},
            **{"chat_template.json": {"chat_template": "K"}},
        ),
        "only-cls": folder(*llama, tokenizer_config=other_names),
        "slow": slow,
    }


def converter(llama_cpp: Path) -> types.ModuleType:
    """The converter's package, with an empty module for ``torch``."""

    class Empty(types.ModuleType):
        def __getattr__(self, name: str) -> type:
            if name.startswith("__"):
                raise AttributeError(name)
            made = type(name, (), {})
            setattr(self, name, made)
            return made

    for name in ("torch", "torch.nn", "torch.nn.functional"):
        module = Empty(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        module.__path__ = []
        module.__dict__["__version__"] = "0.0"
        sys.modules[name] = module
    sys.path[:0] = [str(llama_cpp), str(llama_cpp / "gguf-py")]
    logging.disable(logging.WARNING)
    import conversion

    package: types.ModuleType = conversion
    return package


def keys_of(package: types.ModuleType, folder: Path) -> list[tuple[str, object, str]]:
    """Key, value and type as the converter writes them."""
    import gguf

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    architecture = config["architectures"][0]
    family = package.get_model_class(architecture)
    model = family.__new__(family)
    model.dir_model, model.hparams, model.is_mistral_format = folder, config, False
    model.origin_hf_arch = model.hf_arch = architecture
    model.get_vocab_base_pre = lambda _: "gpt-2"
    model.gguf_writer = gguf.GGUFWriter(None, "llama")
    model.set_vocab()
    out = []
    for entries in model.gguf_writer.kv_data:
        for key, entry in entries.items():
            if key.startswith("tokenizer."):
                value = entry.value
                if isinstance(value, list | tuple):
                    value = [item.decode() if isinstance(item, bytes) else int(item) if isinstance(item, int) else item for item in value]
                out.append((key, value, entry.type.name))
    return out


def main() -> int:
    """Build, convert, record."""
    parser = argparse.ArgumentParser(description="Record the tokenizer keys that llama.cpp's converter writes.")
    parser.add_argument("llama_cpp", type=Path, metavar="LLAMA_CPP")
    parser.add_argument("out", type=Path, metavar="OUT.json.xz")
    wanted = parser.parse_args()
    import sentencepiece
    import transformers  # before the empty torch, which it must not see  # noqa: F401

    cases = {**sentencepiece_cases(), **byte_level_cases()}
    package = converter(wanted.llama_cpp.resolve())
    rows = {}
    with tempfile.TemporaryDirectory() as name:
        for case, files in cases.items():
            folder = Path(name) / case
            folder.mkdir()
            stored = {}
            for path, content in files.items():
                data = content if isinstance(content, bytes) else (content if isinstance(content, str) else json.dumps(content)).encode()
                (folder / path).write_bytes(data)
                stored[path] = base64.b64encode(data).decode()
            rows[case] = {"files": stored, "keys": keys_of(package, folder)}
            if "tokenizer.model" in files:
                library = sentencepiece.SentencePieceProcessor(model_proto=files["tokenizer.model"])
                rows[case]["sentencepiece_ids"] = [(text, library.encode(text)) for text in HARD_TEXTS]
    wanted.out.write_bytes(lzma.compress(json.dumps(rows).encode(), preset=9))
    print(f"{wanted.out}: {len(rows)} cases, {wanted.out.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
