"""Open models' files.

models.py               load: reads a model by its name, folder or file
gguf_file.py            a GGUF file
gguf_header.py          its fields, and the places of its tensors
gguf_config.py          its fields, to a config
gguf_weights.py         its tensors, dequantised
gguf_tokenizer.py       its vocabulary
folder.py               a Hugging Face folder: what each of its files contains
config_json.py          its config.json, and the model families that minaxis has
settings.py             the settings in it, each checked
family_numbers.py       what it has for some families only
safetensors.py          its weights
tokenizer_json.py       its tokenizer.json
byte_level.py           byte-level vocabularies, as tiktoken needs them
library_tokenizer.py    SentencePiece's vocabularies, on the library tokenizers
templates.py            chat templates, rendered in a process of their own
template_worker.py      that process: a sandbox, under limits of time and memory
rope_scaling.py         rotary embeddings, stretched to a longer context
gemma2.py               the blocks of Gemma 2
gemma3.py               the attention of Gemma 3
smollm3.py              the attention of SmolLM3
olmo2.py                the blocks of OLMo 2
transformers_model.py   a transformers model, called like minaxis's own
published.py            the paper's published vectors and caps
reference.py            the files of its pipeline, read and written
transcripts.py          conversations that exist already
exports.py              steering and caps for other programs
"""
