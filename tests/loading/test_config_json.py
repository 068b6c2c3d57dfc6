"""config.json: what is read from it, and which settings are refused."""

import pytest

from minaxis.loading.config_json import read_config


@pytest.mark.parametrize(
    ("model_type", "field", "value", "message"),
    [
        ("llama", "model_type", "gpt2", "'gpt2' is unsupported, expected one of llama, mistral"),
        ("llama", "model_type", None, "None is unsupported"),
        ("llama", "hidden_act", "gelu", "hidden_act = 'gelu' is unsupported"),
        ("llama", "mlp_bias", True, "mlp_bias = True is unsupported"),
        ("llama", "partial_rotary_factor", 0.5, "partial_rotary_factor = 0.5"),
        ("llama", "quantization_config", {"bits": 4}, "quantization_config"),
        ("llama", "auto_map", {"AutoModel": "x.py"}, "auto_map"),
        ("llama", "rope_scaling", {"type": "linear", "factor": 2.0}, "not 'linear'"),
        ("llama", "rope_scaling", {"rope_type": "dynamic", "factor": 2.0}, "not 'dynamic'"),
        ("llama", "rope_parameters", {"rope_type": "yarn", "rope_theta": 1e4}, "not 'yarn'"),
        ("llama", "rope_parameters", {"full_attention": {}}, "expected one set"),
        ("llama", "rope_parameters", {"partial_rotary_factor": 0.25}, "rotates whole heads"),
        ("llama", "rope_parameters", {"rope_type": "llama3"}, "factor is None, expected a number"),
        ("llama", "rope_theta", "big", "rope_theta is 'big', expected a number"),
        ("llama", "layer_types", ["full_attention", "linear_attention"], "layer_types"),
        ("llama", "hidden_size", "24", "hidden_size is '24', expected a whole number from 1"),
        ("llama", "hidden_size", None, "hidden_size is None"),
        ("llama", "num_hidden_layers", -1, "num_hidden_layers is -1"),
        ("llama", "num_hidden_layers", True, "num_hidden_layers is True"),
        ("llama", "vocab_size", 2**60, "vocab_size is 1152921504606846976"),
        ("llama", "rms_norm_eps", float("nan"), "rms_norm_eps is nan"),
        ("llama", "tie_word_embeddings", "yes", "tie_word_embeddings is 'yes', expected true"),
        ("llama", "num_key_value_heads", 3, r"must be a multiple of num_key_value_heads \(3\)"),
        ("llama", "head_dim", 7, "head_dim must be even"),
        ("mistral", "sliding_window", 32, "the context of 96 is longer"),
        ("qwen2", "use_sliding_window", True, "use_sliding_window = True"),
        ("qwen3", "layer_types", ["sliding_attention"] * 4, "layer_types"),
        ("gemma2", "hidden_activation", "silu", "hidden_activation = 'silu'"),
        ("gemma2", "layer_types", ["full_attention"] * 4, "every other layer to slide"),
        ("gemma2", "attention_bias", True, "attention_bias = True"),
        ("gemma2", "use_bidirectional_attention", True, "use_bidirectional_attention"),
        ("gemma2", "sliding_window", None, "sliding_window is None"),
        ("gemma2", "attn_logit_softcapping", 0, "attn_logit_softcapping is 0, expected a number"),
        ("gemma3_text", "final_logit_softcapping", 30.0, "final_logit_softcapping = 30.0"),
        ("gemma3_text", "layer_types", ["full_attention"], "expected 4 of"),
        ("gemma3_text", "layer_types", ["chunked_attention"] * 4, "expected 4 of"),
        ("gemma3_text", "sliding_window", 0, "sliding_window is 0"),
        ("gemma3_text", "rope_parameters", [1], "rope_parameters = .* expected an object"),
        ("gemma3_text", "rope_parameters", {"full_attention": 1}, "numbers for each kind of layer"),
        ("gemma3_text", "rope_scaling", {"rope_type": "yarn"}, "the types default and linear"),
        ("gemma3_text", "rope_local_base_freq", -1, "rope_theta is -1"),
        ("smollm3", "no_rope_layers", [1, 0], "no_rope_layers = .* expected 4 times 0 or 1"),
        ("smollm3", "no_rope_layers", [1, 0, 1, "x"], "no_rope_layers = .* expected 4 times 0"),
        ("smollm3", "no_rope_layer_interval", 0, "no_rope_layer_interval is 0"),
        ("smollm3", "use_sliding_window", True, "use_sliding_window = True"),
        ("olmo2", "hidden_act", "gelu", "hidden_act = 'gelu'"),
        ("mistral", "sliding_window", "32", "sliding_window is '32', expected a whole number"),
        ("llama", "model_type", ["llama"], r"\['llama'\] is unsupported"),
        ("llama", "layer_types", 4, "layer_types = 4 is unsupported: expected a list"),
    ],
)
def test_an_unsupported_or_impossible_setting_is_an_error_that_names_it(
    config_json, model_type, field, value, message
):
    data = config_json(model_type)
    read_config(data, "config.json", "model")
    with pytest.raises(ValueError, match=r"^config\.json: .*" + message):
        read_config(data | {field: value}, "config.json", "model")
