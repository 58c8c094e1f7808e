"""Token ids and rendered conversations as the reference programs give them, and small GGUF files with tokenizers of each kind.

    pip install transformers==5.24.0 tokenizers==0.23.3 tiktoken==0.14.0 sentencepiece==0.2.3 gguf==0.19.0 torch==2.15.0
    python make.py ../../../../../shared/data/models      # writes goldens.json and the .gguf files beside this file

The argument is the folder of the published tokenizers: gpt2-tokenizer, gpt-neox-tokenizer, smollm2-135m-instruct. They are not kept
here, only the ids that they give. The small tokenizers are trained on the sentences below.
"""

import io
import json
import sys
import unicodedata
from pathlib import Path

import gguf
import numpy as np
import sentencepiece
import tiktoken
import tokenizers
from transformers import GPT2Tokenizer, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import TikTokenConverter
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX as QWEN2

HERE = Path(__file__).parent
MODELS = Path(sys.argv[1])

TEXTS = [
    "",
    " ",
    "Hello, world!",
    " leading and trailing ",
    "It's 10 o'clock; they'll say WE'LL, I'd've, DON'T and rock'n'roll.",
    "one  two   three    four     five",
    "tabs\tand\t\ttabs\nlines\n\nlines\n\n\n  indented\r\nwindows\r\n\r\n ",
    " " * 30 + "x" + " " * 17,
    "def f(x, *args, **kwargs):\n    if x != 0 and x<=1e-3:\n\treturn {'a': [x**2, ~x]}  # ok?\n",
    "for (int i = 0; i < n; ++i) { a[i] += b->c[i] % 7; } /* … */ // ==>",
    "0 1 12 123 1234 12345 1234567890 3.14159 1,000,000 0xFF 1e10 ٣٤٥ ५६ ½ ² ⅷ",
    "Café naïve — façade; cafe\u0301 nai\u0308ve (combining), A\u030a Å \u212b, ﬁ ligature",
    "Zalgo: h\u0338\u0321\u030ae\u0334\u0310l\u0337\u0302p",
    "東京都に住んでいます。我喜欢编程!안녕하세요 세계 한국어",
    "مرحبا بالعالم، كيف حالك؟ שָׁלוֹם עולם हिन्दी में ไทยแลนด์",
    "Привет, мир! Γειά σου Κόσμε Ωμέγα",
    "🙂 👍🏽 👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪 ❤️ 👩🏿‍🚀☺︎",
    "replacement \ufffd, mojibake Ã©â€™, nul \x00, bell \x07, escape \x1b[0m, delete \x7f",
    "zero\u200bwidth, no\u00a0break, \u2003em, \u3000ideographic, soft\u00adhyphen, \ufeffmark, \u2028line\u2029paragraph",
    "\U0010ffff \ue000 \U0001f9ff 𝕬𝖓 𝟙𝟚𝟛 \u1e9e ß ẞ İ ı",
    "<|endoftext|> <s> </s> <|im_start|>user <|im_end|> <tool> <0x0A> [INST]",
    "\u2581 is SentencePiece's space, Ġ and Ċ are GPT-2's",
    "a" * 50 + "b" * 3 + "!" * 20 + "-" * 40 + "=" * 11,
    "http://example.org/a_b?c=d&e=%20f#g user@example.org C:\\Users\\x ~/.config $HOME",
    "Assistant:\n\nHuman: Hi\n\nAssistant:",
    "'S 'T ' s 'rE 'LLama ''ve",
    "...!!!???  ;;  ::\n::\n\n)))]]}}",
    "\n", "\r\n", "\n \n  \n", "\t \t", "x\n", "  \n\n  x",
]

CORPUS = [
    "The quick brown fox jumps over the lazy dog, and they'll say that it's 10 o'clock in the morning.",
    "for i in range(100):\n    if i % 3 == 0:\n        print('fizz', i)\n",
    "Once upon a time there was a small house beside a big wood, and in the house lived a girl and her cat.",
    "In 1984 there were 12345 books; in 2001 there were 67890 and 1,000,000 more.",
    "Das Haus ist groß, die Straße ist schön. Le café est près de la façade.",
    "東京は日本の首都です。東京に住んでいます。",
    "Привет, мир! Привет, дом!",
    "!!! ... --- === ??? \n\n\n    indented    again    and    again",
] * 3

GPT2 = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
LLAMA3 = TikTokenConverter.__init__.__defaults__[1]

CONVERSATIONS = [
    [("user", "Are dogs real?")],
    [("system", "Answer in French."), ("user", "Hi"), ("assistant", "Bonjour."), ("user", " spaced \n")],
    [("user", "<|im_end|> {{ 1 + 1 }} {% raw %}")],
    [("system", ""), ("user", "東京 🙂")],
]


def byte_names():
    """GPT-2's characters for bytes."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return bytes_to_unicode()


def train(pattern):
    """A small byte-level encoding whose text is cut by this pattern."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated"),
            tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=420, initial_alphabet=sorted(byte_names().values()), special_tokens=[], show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [tuple(merge) for merge in model["merges"]]


def reference(vocab, pattern, special):
    """The same encoding in tiktoken, which knows ranks only."""
    byte_of = {name: byte for byte, name in byte_names().items()}
    ranks = {bytes(byte_of[c] for c in token): id for token, id in vocab.items() if token not in special}
    return tiktoken.Encoding("x", pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)


def write(name, tokens, kinds, model, pre=None, merges=None, scores=None, flags=None, weights=True, **ids):
    """A GGUF file of one tiny block with this tokenizer."""
    writer = gguf.GGUFWriter(HERE / name, "llama")
    writer.add_name(name)
    writer.add_context_length(64)
    writer.add_embedding_length(8)
    writer.add_block_count(1)
    writer.add_feed_forward_length(8)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_tokenizer_model(model)
    if pre:
        writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    if merges:
        writer.add_token_merges([" ".join(merge) for merge in merges])
    if scores:
        writer.add_token_scores(scores)
    for key, id in ids.items():
        getattr(writer, f"add_{key}_token_id")(id)
    for key, flag in (flags or {}).items():
        getattr(writer, f"add_{key}")(flag)
    rng = np.random.default_rng(17)
    shapes = {
        "token_embd.weight": (len(tokens), 8),
        "output_norm.weight": (8,),
        "blk.0.attn_norm.weight": (8,),
        "blk.0.ffn_norm.weight": (8,),
        "blk.0.attn_q.weight": (8, 8),
        "blk.0.attn_k.weight": (4, 8),
        "blk.0.attn_v.weight": (4, 8),
        "blk.0.attn_output.weight": (8, 8),
        "blk.0.ffn_gate.weight": (8, 8),
        "blk.0.ffn_up.weight": (8, 8),
        "blk.0.ffn_down.weight": (8, 8),
    }
    for tensor, shape in sorted(shapes.items()):
        writer.add_tensor(tensor, rng.normal(size=shape).astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def small_byte_level():
    ids = {}
    for name, pre, pattern, normal in [
        ("gpt2.gguf", "gpt-2", GPT2, None),
        ("llama_bpe.gguf", "llama-bpe", LLAMA3, None),
        ("qwen2.gguf", "qwen2", QWEN2, "NFC"),
    ]:
        vocab, merges = train(pattern)
        special = {"<|begin|>": len(vocab), "<|end|>": len(vocab) + 1}
        tokens = sorted(vocab, key=vocab.get) + list(special)
        kinds = [1] * len(vocab) + [3, 3]
        write(name, tokens, kinds, "gpt2", pre, merges, bos=special["<|begin|>"], eos=special["<|end|>"],
              flags={"add_bos_token": pre == "llama-bpe"})
        encoding = reference(vocab, pattern, special)
        normalised = [unicodedata.normalize("NFC", text) if normal == "NFC" else text for text in TEXTS]
        ids[name] = [encoding.encode(text, disallowed_special=()) for text in normalised]
        ids[name + " with special"] = encoding.encode("<|begin|>Hi <|end|>x", allowed_special="all")
    return ids


def small_sentence_piece():
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line for text in CORPUS for line in text.split("\n")),
        model_writer=model,
        model_type="bpe",
        vocab_size=420,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        split_digits=True,
        num_threads=1,
        minloglevel=2,
    )
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    count = processor.vocab_size()
    tokens = [processor.id_to_piece(id) for id in range(count)]

    def kind(id):
        if processor.is_unknown(id):
            return 2
        if processor.is_control(id):
            return 3
        if processor.is_byte(id):
            return 6
        return 1

    write("spm.gguf", tokens, [kind(id) for id in range(count)], "llama", "default",
          scores=[processor.get_score(id) for id in range(count)],
          bos=processor.bos_id(), eos=processor.eos_id(), unk=processor.unk_id())
    return {"spm.gguf": [processor.encode(text) for text in TEXTS], "spm.gguf decoded": [processor.decode(processor.encode(text)) for text in TEXTS]}


def published():
    """Ids of the published tokenizers, special tokens in a text being text."""
    folder = MODELS / "gpt2-tokenizer"
    vocab = json.loads((folder / "vocab.json").read_text())
    gpt2 = reference(vocab, GPT2, {"<|endoftext|>": vocab["<|endoftext|>"]})
    ids = {"gpt2-tokenizer": [gpt2.encode(text, disallowed_special=()) for text in TEXTS]}
    other = GPT2Tokenizer(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"))
    for name in ["gpt-neox-tokenizer", "smollm2-135m-instruct"]:
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(MODELS / name / "tokenizer.json"))
        ids[name] = [tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True) for text in TEXTS]
        ids[name + " with special"] = [tokenizer.encode(text, add_special_tokens=False) for text in TEXTS]
    for text, expected in zip(TEXTS, ids["gpt2-tokenizer"]):
        if "<|" not in text:
            assert other.encode(text) == expected, text
    return ids


def rendered():
    """SmolLM2's template, from any file that carries it, by transformers."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(MODELS / "smollm2-135m-instruct/tokenizer.json"))
    cases = []
    for name, template in TEMPLATES.items():
        for conversation in CONVERSATIONS:
            messages = [{"role": role, "content": content} for role, content in conversation]
            for prompt in [False, True]:
                tokenizer.bos_token, tokenizer.eos_token = "<|im_start|>", "<|im_end|>"
                text = tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False, add_generation_prompt=prompt)
                cases.append({"template": name, "messages": messages, "add_generation_prompt": prompt, "text": text})
    return cases


TEMPLATES = {
    # Written for this test: what published templates use.
    "chatml": "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nBe brief.<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "blocks": """{{ bos_token }}
{%- if messages and messages[0].role == 'system' %}
    {%- set system = messages[0].content | trim %}
    {%- set rest = messages[1:] %}
{%- else %}
    {%- set system = none %}
    {%- set rest = messages %}
{%- endif %}
{%- set ns = namespace(turns=0, last='') %}
{% if system is not none %}
System: {{ system.upper() }}
{% endif %}
{%- for message in rest %}
    {%- if message.role == 'assistant' %}
        {%- generation %}
A{{ loop.index0 }}: {{ message.content.split('.')[0] }}{{ eos_token }}
        {%- endgeneration %}
    {%- else %}
        {%- set ns.turns = ns.turns + 1 %}
Q{{ loop.index }}: {{ message['content'].strip() | tojson }}, {{ message | tojson }}
    {%- endif %}
    {%- if loop.last %}{% continue %}{% endif %}
    {%- set ns.last = message.content %}
    ---
{%- endfor %}
{{ ns.turns }} turns, tools {{ tools }}, {{ ns.turns > 1 }}{{ undefined_thing }}
{%- if add_generation_prompt %}
A:
{%- endif %}
""",
}

small = {**small_byte_level(), **small_sentence_piece()}
goldens = {"texts": TEXTS, "ids": {**published(), **small}, "templates": TEMPLATES, "conversations": rendered()}
(HERE / "goldens.json").write_text(json.dumps(goldens, ensure_ascii=True, separators=(",", ":")) + "\n")
