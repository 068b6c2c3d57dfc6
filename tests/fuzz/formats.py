"""Every format that minaxis reads: a good example, and what a program does with the file.

A mutant must be refused with an error that `support/arguments.py` shows as one line, or it must
work: so each `use` goes on to where a value of a wrong kind would hurt.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from fuzz import mutations

import minaxis as mx
from minaxis.loading.byte_level import byte_alphabet
from minaxis.loading.exports import read_recipe, write_recipe
from minaxis.loading.published import CappingConfig
from minaxis.loading.reference import read_responses, read_scores, read_trait
from minaxis.loading.transcripts import locate_replies, read_transcript
from minaxis.paper.report import write_docs, write_html
from minaxis.paper.run_files import read_run
from minaxis.roles import read_questions, read_roles
from minaxis.support.files import write_tensors
from minaxis.tiny.checkpoint import read_info, save_checkpoint
from minaxis.tiny.reader import Reader
from minaxis.tiny.world import WORLD_FILE, World

LAYERS, WIDTH = 2, 8
LLAMA = {
    "model_type": "llama", "vocab_size": 300, "hidden_size": WIDTH, "intermediate_size": 12,
    "num_hidden_layers": LAYERS, "num_attention_heads": 2, "num_key_value_heads": 1,
    "max_position_embeddings": 96, "rms_norm_eps": 1e-6, "eos_token_id": 257,
    "rope_scaling": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
}  # fmt: skip
GEMMA = {
    "model_type": "gemma2", "sliding_window": 7, "query_pre_attn_scalar": 6, "head_dim": 4,
    "attn_logit_softcapping": 50.0, "final_logit_softcapping": None, "rope_scaling": None,
    "layer_types": ["sliding_attention", "full_attention"], "tie_word_embeddings": True,
}  # fmt: skip
GEMMA3 = GEMMA | {
    "model_type": "gemma3_text", "attn_logit_softcapping": None, "sliding_window_pattern": 2,
    "rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    },
}  # fmt: skip
SMOLLM3 = {"model_type": "smollm3", "no_rope_layers": [1, 0], "rope_scaling": None,
           "no_rope_layer_interval": 2, "tie_word_embeddings": True}  # fmt: skip
OLMO2 = {"model_type": "olmo2", "rope_scaling": None}
QWEN = {"model_type": "qwen3", "rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}}
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>{% endif %}"
)
MESSAGES = [{"role": "user", "content": "the 12 thin caf\u00e9s \u4e16\n\n  a"}]


@dataclass(frozen=True)
class Format:
    """A format: `make` writes a good example to a folder and returns the file to mutate."""

    name: str
    make: Callable[[Path], Path]
    mutate: Callable[[bytes, Random], bytes]
    use: Callable[[Path], None]


def added(token: str, i: int) -> dict:
    kinds = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": i, "content": token, "special": True, **kinds}


def byte_level() -> dict:
    """A byte-level tokenizer.json: 256 bytes, two special tokens, and four merges."""
    vocab = {c: i for i, c in enumerate(byte_alphabet())}
    special = [added("<|im_start|>", 256), added("<|im_end|>", 257)]
    merges = [["t", "h"], ["th", "e"], ["\u0120", "a"], ["i", "n"]]
    vocab |= {a + b: 258 + i for i, (a, b) in enumerate(merges)}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special,
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Digits", "individual_digits": True},
                {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
            ],
        },
        "post_processor": None, "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "vocab": vocab,
                  "merges": merges, "ignore_merges": False},
    }  # fmt: skip


def sentencepiece() -> dict:
    """A tokenizer.json as SentencePiece's vocabularies have it, with fallback to bytes."""
    space = "\u2581"
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256))]
    tokens += [space, *"abcdefghint", "th", "the", "in"]
    replace = {"type": "Replace", "pattern": {"String": space}, "content": " "}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [added(token, i) for i, token in enumerate(tokens[:3])],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": space},
                {"type": "Replace", "pattern": {"String": " "}, "content": space},
            ],
        },
        "pre_tokenizer": None, "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                replace, {"type": "ByteFallback"}, {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "fuse_unk": True,
                  "byte_fallback": True, "ignore_merges": False,
                  "vocab": {token: i for i, token in enumerate(tokens)},
                  "merges": ["t h", "th e", "i n"]},
    }  # fmt: skip


def write_json(path: Path, value: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def hugging_face(folder: Path, config: dict, tokenizer: dict) -> None:
    """A small random model in Hugging Face's layout."""
    from minaxis.loading.config_json import read_config
    from minaxis.loading.models import MODELS

    write_json(folder / "config.json", config)
    write_json(folder / "tokenizer.json", tokenizer)
    write_json(folder / "generation_config.json", {"eos_token_id": [257, 2], "temperature": 0.7})
    settings = {"eos_token": {"content": tokenizer["added_tokens"][1]["content"], "lstrip": False},
                "bos_token": None, "chat_template": TEMPLATE}  # fmt: skip
    write_json(folder / "tokenizer_config.json", settings)
    model_config = read_config(config, "config.json", "x")
    model = MODELS[type(model_config)](model_config).initialise(torch.Generator().manual_seed(0))
    header, data = {}, b""
    for name, p in model.named_parameters():
        raw = p.detach().numpy().tobytes()
        header[name] = {"dtype": "F32", "shape": list(p.shape),
                        "data_offsets": [len(data), len(data) + len(raw)]}  # fmt: skip
        data += raw
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)
    names = dict.fromkeys(header, "model.safetensors")
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": names})


def in_folder(file: str, config: dict = LLAMA, tokenizer: Callable[[], dict] = byte_level):
    """A function that writes a model's folder, and returns one of its files."""

    def make(folder: Path) -> Path:
        hugging_face(folder, LLAMA | config, tokenizer())
        if file == "model.safetensors":
            (folder / "model.safetensors.index.json").unlink()
        return folder / file

    return make


def use_model(model, tokenizer) -> None:
    """A chat through the model: the prompt, one pass, and the text again."""
    prompt = mx.encode_chat(tokenizer, MESSAGES)
    if max(prompt) < model.config.vocab_size and len(prompt) < 64:
        (reply,) = mx.generate(model, tokenizer, [prompt], mx.SamplingParams(max_new_tokens=2))
        tokenizer.decode(prompt + reply)


def use_folder(path: Path) -> None:
    use_model(*mx.load(path.parent, device="cpu"))


def use_tokenizer(path: Path) -> None:
    tokenizer = mx.load_tokenizer(path.parent)
    for text in (
        "the thing in a 12 caf\u00e9 \u4e16",
        "a" * 300,
        " " * 300,
        MESSAGES[0]["content"],
    ):
        ids = tokenizer.encode(text) + tokenizer.encode(text, inside=True)
        tokenizer.decode(ids)
        assert all(isinstance(tokenizer.token_bytes(i), bytes) for i in ids)
    mx.encode_chat(tokenizer, MESSAGES)


def random_tensors(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def small_model():
    config = mx.Config(
        vocab_size=264, hidden_size=WIDTH, intermediate_size=12, num_hidden_layers=LAYERS,
        num_attention_heads=2, num_key_value_heads=2, head_dim=4, name="small",
    )  # fmt: skip
    return mx.Transformer(config).initialise(torch.Generator().manual_seed(0)).eval()


def make_checkpoint(folder: Path) -> Path:
    from minaxis.tokenizer import SMOLLM

    ranks = {bytes([b]): b for b in range(256)} | {b"th": 256, b"the": 257}
    special = {"<|im_start|>": 258, "<|im_end|>": 259}
    tokenizer = mx.Tokenizer(ranks, SMOLLM, special, stop=[259], chat_template=TEMPLATE)
    info = {"seed": 0, "losses": [1.5], "settings": {"out": "x"}}
    save_checkpoint(folder / "x.pt", small_model(), tokenizer, info)
    return folder / "x.pt"


def use_checkpoint(path: Path) -> None:
    use_model(*mx.load(path, device="cpu"))
    json.dumps(read_info(path))


def make_axis(folder: Path) -> Path:
    unit = torch.nn.functional.normalize
    axis = mx.Axis(
        vectors=random_tensors(LAYERS, WIDTH), default=random_tensors(LAYERS, WIDTH),
        roles=["a", "b", "c"], role_vectors=random_tensors(3, LAYERS, WIDTH),
        norms=torch.ones(LAYERS), projections=random_tensors(12, LAYERS),
        split_half=unit(torch.ones(LAYERS), dim=0), split_questions=None,
        adoption={"a": 0.5, "b": 1.0, "c": 0.75}, meta={"model": "small", "seed": 0},
    )  # fmt: skip
    axis.save(folder / "axis.pt")
    return folder / "axis.pt"


def use_axis(path: Path) -> None:
    from minaxis.axis import layer_table

    model, axis = small_model(), mx.Axis.load(path)
    axis.check(model)
    axis.save(path.with_name("again.pt"))
    json.dumps([axis.meta, axis.adoption, axis.roles])
    for use in (
        lambda: layer_table(axis),
        lambda: model_under(mx.capping(model, axis, percentile=75)),
        lambda: model_under(mx.steering(model, axis, coefficient=-0.5)),
    ):
        try:  # a field that is missing is missed by one of them only
            use()
        except ValueError:
            continue


def model_under(intervention) -> None:
    model = small_model()
    with intervention:
        assert model(torch.tensor([[1, 2, 3]])).isfinite().all()


def make_capping(folder: Path) -> Path:
    vectors = {f"layer_{i}": {"layer": i, "vector": random_tensors(WIDTH).bfloat16()}
               for i in range(LAYERS)}  # fmt: skip
    caps = [{"vector": name, "cap": 1.5} for name in vectors]
    content = {"vectors": vectors, "experiments": [{"id": "all", "interventions": caps}]}
    write_tensors(folder / "capping_config.pt", content)
    return folder / "capping_config.pt"


def use_capping(path: Path) -> None:
    config, model = CappingConfig.load(path), small_model()
    for experiment in config.experiments:
        with mx.capping(model, config, experiment=experiment):
            model(torch.tensor([[1, 2, 3]]))


def make_published(folder: Path) -> Path:
    write_tensors(folder / "assistant_axis.pt", random_tensors(LAYERS, WIDTH).bfloat16())
    write_tensors(folder / "default_vector.pt", random_tensors(LAYERS, WIDTH).bfloat16())
    for role in ("a", "b"):
        vector = {"vector": random_tensors(LAYERS, WIDTH).bfloat16(), "type": "mean", "role": role}
        write_tensors(folder / "role_vectors" / f"{role}.pt", vector)
    return folder / "role_vectors" / "b.pt"


def use_published(path: Path) -> None:
    axis = mx.Axis.load(path.parent.parent)
    axis.check(small_model())
    axis.pca(1)


def make_rollouts(folder: Path) -> Path:
    from minaxis.support.rollout_store import Rollouts

    roles = {"default": [""], "a": ["You are a."], "b": ["You are b."]}
    meta = {"model": "small", "layers": LAYERS, "width": WIDTH, "roles": roles,
            "questions": ["q1", "q2", "q3", "q4"], "version": "0"}  # fmt: skip
    meta |= {"sampling": {"max_new_tokens": 3, "temperature": 0.7, "top_p": 0.9, "batch_size": 4},
             "dtype": "float32", "seed": 0}  # fmt: skip
    rollouts = Rollouts(meta, folder / "rollouts")
    for i, role in enumerate(roles):
        responses = [{"system": roles[role][0], "question": q, "text": "th", "ids": [3, 4]}
                     for q in meta["questions"]]  # fmt: skip
        rollouts[role] = {
            "responses": responses, "mean": random_tensors(4, LAYERS, WIDTH) + i,
            "prompt_end": random_tensors(4, LAYERS, WIDTH), "norm": torch.ones(4, LAYERS),
            "logprob": -torch.ones(4),
        }  # fmt: skip
    return folder / "rollouts" / "settings.json"


def make_rollout(folder: Path) -> Path:
    make_rollouts(folder)
    return next(path for path in sorted((folder / "rollouts").glob("*.pt")))


def use_rollouts(path: Path) -> None:
    from minaxis.support.files import read_json
    from minaxis.support.rollout_store import Rollouts

    rollouts = Rollouts(read_json(path.parent / "settings.json"), path.parent)
    axis = mx.fit_axis(rollouts)
    assert axis.vectors.isfinite().all()
    rollouts.write_jsonl(path.parent / "responses.jsonl")


def make_roles(folder: Path) -> Path:
    roles = {"a": ["You are a.", "Be a."], "b": ["You are {model_name}."]}
    return write_json(folder / "roles.json", {"default": ["", "You are an AI."], "roles": roles})


def use_roles(path: Path) -> None:
    for name, prompts in read_roles(path).items():
        assert all(isinstance(p, str) for p in [name, *prompts])


def make_role_folder(folder: Path) -> Path:
    for role in ("default", "pirate", "ghost"):
        text = {
            "instruction": [{"pos": f"You are {role}."}],
            "questions": ["?"],
            "eval_prompt": "x",
        }
        write_json(folder / f"{role}.json", text)
    return folder / "pirate.json"


def use_questions(path: Path) -> None:
    assert all(isinstance(question, str) for question in read_questions(path))


def make_questions_lines(folder: Path) -> Path:
    path = folder / "questions.jsonl"
    path.write_text("".join(json.dumps({"question": f"q{i}?", "id": i}) + "\n" for i in range(4)))
    return path


def make_transcript(folder: Path) -> Path:
    chat = [
        *MESSAGES,
        {"role": "assistant", "content": "the th in"},
        {"role": "user", "content": ""},
        {"role": "assistant", "content": [{"type": "text", "text": "a thin"}], "name": "x"},
    ]
    return write_json(
        folder / "chat_capped.json",
        {"model": "big", "turns": 2, "system_prompt": "Be thin.", "conversation": chat},
    )


def use_transcript(path: Path) -> None:
    hugging_face(path.parent / "model", LLAMA, byte_level())
    tokenizer, transcript = mx.load_tokenizer(path.parent / "model"), read_transcript(path)
    tokenizer.chat_template = TEMPLATE.replace(
        "<|im_start|>{% endif", "<|im_start|>assistant{% endif"
    )
    ids, replies = locate_replies(tokenizer, transcript)
    assert all(0 <= reply.start <= reply.stop <= len(ids) for reply in replies)


def make_responses(folder: Path) -> Path:
    """The pipeline's folders, with two roles, a prompt each, and two questions."""
    for role in ("default", "bard", "moon"):
        lines = [
            {"system_prompt": f"Be {role}.", "prompt_index": 0, "question_index": i,
             "question": "th?", "label": "pos", "ids": [3, 4],
             "conversation": [{"role": "assistant", "content": f"the {role} {i}"}]}
            for i in range(2)
        ]  # fmt: skip
        (folder / "responses").mkdir(exist_ok=True)
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / "responses" / f"{role}.jsonl").write_text(text)
        write_json(folder / "scores" / f"{role}.json", {"pos_p0_q0": 3, "pos_p0_q1": 3})
    return folder / "responses" / "bard.jsonl"


def use_responses(path: Path) -> None:
    folder = path.parent.parent
    hugging_face(folder / "model", LLAMA, byte_level())
    model, tokenizer = mx.load(folder / "model", device="cpu")
    rollouts = read_responses(model, tokenizer, folder / "responses")
    mx.fit_axis(rollouts, read_scores(folder / "scores", rollouts))


def make_trait(folder: Path) -> Path:
    return write_json(folder / "loud.json", {"instruction": [{"pos": "Be loud.", "neg": "Hush."}]})


def make_recipe(folder: Path) -> Path:
    axis = mx.Axis(random_tensors(LAYERS, WIDTH), projections=random_tensors(9, LAYERS))
    write_recipe(folder / "cap.json", axis, layers=[0, 1])
    return folder / "cap.json"


def make_world(folder: Path) -> Path:
    path = folder / "world.json"
    path.write_bytes(WORLD_FILE.read_bytes())
    return path


def use_world(path: Path) -> None:
    world, rng = World(path), Random(0)
    reader = Reader(world)
    for _ in range(8):
        world.story(rng)
        world.lesson(rng)
    for topic in world.topics:
        question = world.question(topic, rng, held_out=rng.random() < 0.5)
        for speaker in ("assistant", next(iter(world.characters))):
            reader.read(question, world.reply(speaker, question, rng))
    world.roles()


def make_run(folder: Path) -> Path:
    number = {"value": 0.5, "low": 0.25, "high": 0.75}
    claim = {"text": "a claim", "paper": ".7", "here": number, "control": number, "of_paper": True,
             "rule": {"at_least": 0.2, "at_most": None}, "control_must_fail": False,
             "failed_precondition": "", "verdict": "holds"}  # fmt: skip
    other = claim | {"control": None, "rule": {"at_least": None, "at_most": None}, "verdict": ""}
    spots = {role: {"coordinates": [i * 1.5, 2.0, -1.0]}
             for i, role in enumerate(["default", "a", "b", "c"])}  # fmt: skip
    experiments = {"persona space": {"positions": spots}, "more": {"rate": 0.5}}
    results = {"kind": "tiny", "claims": [claim, other | {"text": "b"}], "experiments": experiments}
    run = {"settings": {"model": "tiny", "seed": 0, "all": True}, "seconds": 3, "machine": "x86",
           "python": "3.12", "torch": "2.6", "minaxis": "0.1.0"}  # fmt: skip
    write_json(folder / "results.json", results)
    for name in ("results.json", "run.json"):
        write_json(folder / "other" / name, results if name == "results.json" else run)
    return write_json(folder / "run.json", run)


def use_run(path: Path) -> None:
    run = read_run(path.parent)
    write_html(path.parent / "report.html", run, {})
    page = path.parent / "page.md"
    page.write_text("<!-- results of tiny begin -->\n<!-- results of tiny end -->\n")
    write_docs(page, path.parent / "figures", [path.parent, path.parent / "other"])


def gguf_file(folder: Path) -> Path:
    import gguf

    w = gguf.GGUFWriter(folder / "x.gguf", "llama")
    numbers = {"context_length": 96, "embedding_length": 32, "block_count": 1,
               "feed_forward_length": 32, "attention.head_count": 2,
               "attention.head_count_kv": 1, "attention.key_length": 16}  # fmt: skip
    for name, value in numbers.items():
        w.add_uint32(f"llama.{name}", value)
    w.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-6)
    w.add_float32("llama.rope.freq_base", 10000.0)
    tokens = [*byte_alphabet(), "<|im_start|>", "<|im_end|>", "th", "the"]
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("gpt-2")
    w.add_token_list(tokens)
    w.add_token_merges(["t h", "th e"])
    w.add_token_types([1] * 256 + [3, 3, 1, 1])
    w.add_eos_token_id(257)
    w.add_chat_template(TEMPLATE)
    shapes = {"token_embd": (260, 32), "output_norm": (32,)}
    shapes |= {"blk.0.attn_norm": (32,), "blk.0.ffn_norm": (32,), "blk.0.attn_q": (32, 32),
               "blk.0.attn_k": (16, 32), "blk.0.attn_v": (16, 32), "blk.0.attn_output": (32, 32),
               "blk.0.ffn_gate": (32, 32), "blk.0.ffn_up": (32, 32),
               "blk.0.ffn_down": (32, 32)}  # fmt: skip
    for name, shape in shapes.items():
        w.add_tensor(f"{name}.weight", random_tensors(*shape).numpy())
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return folder / "x.gguf"


def use_gguf(path: Path) -> None:
    use_model(*mx.load(path, device="cpu"))


JSON, TENSORS, BYTES = mutations.mutate_json, mutations.mutate_tensors, mutations.mutate_bytes
FORMATS = {
    f.name: f
    for f in [
        Format("gguf", gguf_file, mutations.mutate_gguf, use_gguf),
        Format("safetensors", in_folder("model.safetensors"), mutations.mutate_safetensors,
               use_folder),
        Format("index.json", in_folder("model.safetensors.index.json"), JSON, use_folder),
        Format("config.json, Llama", in_folder("config.json"), JSON, use_folder),
        Format("config.json, Qwen 3", in_folder("config.json", QWEN), JSON, use_folder),
        Format("config.json, Gemma 2", in_folder("config.json", GEMMA), JSON, use_folder),
        Format("config.json, Gemma 3", in_folder("config.json", GEMMA3), JSON, use_folder),
        Format("config.json, SmolLM 3", in_folder("config.json", SMOLLM3), JSON, use_folder),
        Format("config.json, OLMo 2", in_folder("config.json", OLMO2), JSON, use_folder),
        Format("tokenizer.json, byte-level", in_folder("tokenizer.json"), JSON, use_tokenizer),
        Format("tokenizer.json, SentencePiece",
               in_folder("tokenizer.json", tokenizer=sentencepiece), JSON, use_tokenizer),
        Format("tokenizer_config.json", in_folder("tokenizer_config.json"), JSON, use_tokenizer),
        Format("generation_config.json", in_folder("generation_config.json"), JSON, use_tokenizer),
        Format("checkpoint", make_checkpoint, TENSORS, use_checkpoint),
        Format("axis", make_axis, TENSORS, use_axis),
        Format("capping config", make_capping, TENSORS, use_capping),
        Format("published vectors", make_published, TENSORS, use_published),
        Format("rollouts", make_rollout, TENSORS, use_rollouts),
        Format("rollouts, settings.json", make_rollouts, JSON, use_rollouts),
        Format("roles.json", make_roles, JSON, use_roles),
        Format("roles folder", make_role_folder, JSON, lambda path: use_roles(path.parent)),
        Format("questions.json",
               lambda folder: write_json(folder / "q.json", {"questions": ["a?", "b?"]}), JSON,
               use_questions),
        Format("questions.jsonl", make_questions_lines, BYTES, use_questions),
        Format("transcript", make_transcript, JSON, use_transcript),
        Format("responses, .jsonl", make_responses, BYTES, use_responses),
        Format("scores", lambda f: make_responses(f).parents[1] / "scores/bard.json", JSON,
               use_responses),
        Format("trait", make_trait, JSON, read_trait),
        Format("recipe of a cap", make_recipe, JSON, read_recipe),
        Format("world.json", make_world, JSON, use_world),
        Format("run.json", make_run, JSON, use_run),
        Format("results.json", lambda f: make_run(f).with_name("results.json"), JSON, use_run),
    ]
}  # fmt: skip
