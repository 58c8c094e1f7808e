//! What tensors are called in GGUF files and in folders of `transformers`, and how they lie in each.

use crate::DecoderConfig;
use crate::files::hugging_face::Family;

/// The names of an architecture's tensors.
#[derive(Debug)]
pub(super) struct Names {
    /// What `general.architecture` says.
    pub(super) architecture: &'static str,
    pub(super) family: Family,
    /// Tensors outside of the blocks: here, in `transformers`.
    whole: &'static [(&'static str, &'static str)],
    /// What the names of a block's tensors begin with in `transformers`, before the number of the block.
    blocks: &'static str,
    /// Parts of a block: here, in `transformers`.
    parts: &'static [(&'static str, &'static str)],
}

/// How a tensor lies in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// As in `transformers`.
    Same,
    /// With the two numbers of every turned pair of a head beside each other, which lie half a head apart in `transformers`.
    Pairs { heads: usize },
    /// Outputs as rows, which are columns in `transformers`.
    Transposed,
}

const GPT2: Names = Names {
    architecture: "gpt2",
    family: Family::Gpt2,
    whole: &[
        ("token_embd.weight", "transformer.wte.weight"),
        ("position_embd.weight", "transformer.wpe.weight"),
        ("output_norm.weight", "transformer.ln_f.weight"),
        ("output_norm.bias", "transformer.ln_f.bias"),
        ("output.weight", "lm_head.weight"),
    ],
    blocks: "transformer.h.",
    parts: &[
        ("attn_norm", "ln_1"),
        ("attn_qkv", "attn.c_attn"),
        ("attn_output", "attn.c_proj"),
        ("ffn_norm", "ln_2"),
        ("ffn_up", "mlp.c_fc"),
        ("ffn_down", "mlp.c_proj"),
    ],
};

const LLAMA: Names = Names {
    architecture: "llama",
    family: Family::Llama,
    whole: &[
        ("token_embd.weight", "model.embed_tokens.weight"),
        ("output_norm.weight", "model.norm.weight"),
        ("output.weight", "lm_head.weight"),
    ],
    blocks: "model.layers.",
    parts: &[
        ("attn_q", "self_attn.q_proj"),
        ("attn_k", "self_attn.k_proj"),
        ("attn_v", "self_attn.v_proj"),
        ("attn_output", "self_attn.o_proj"),
        ("attn_norm", "input_layernorm"),
        ("ffn_norm", "post_attention_layernorm"),
        ("ffn_gate", "mlp.gate_proj"),
        ("ffn_up", "mlp.up_proj"),
        ("ffn_down", "mlp.down_proj"),
    ],
};

const QWEN2: Names = Names { architecture: "qwen2", ..LLAMA };

const ALL: [&Names; 3] = [&GPT2, &LLAMA, &QWEN2];

impl Names {
    /// Those of an architecture, if it is built here.
    pub(super) fn of(architecture: &str) -> Option<&'static Self> {
        ALL.into_iter().find(|names| names.architecture == architecture)
    }

    /// The name in `transformers` of a tensor here.
    pub(super) fn theirs(&self, name: &str) -> Option<String> {
        if let Some((_, theirs)) = self.whole.iter().find(|(ours, _)| *ours == name) {
            return Some((*theirs).to_owned());
        }
        let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
        let (part, kind) = rest.split_once('.')?;
        let (_, theirs) = self.parts.iter().find(|(ours, _)| *ours == part)?;
        Some(format!("{}{layer}.{theirs}.{kind}", self.blocks))
    }

    /// The name here of a tensor in `transformers`.
    pub(super) fn ours(&self, name: &str) -> Option<String> {
        if let Some((ours, _)) = self.whole.iter().find(|(_, theirs)| *theirs == name) {
            return Some((*ours).to_owned());
        }
        let (layer, rest) = name.strip_prefix(self.blocks)?.split_once('.')?;
        let (part, kind) = rest.rsplit_once('.')?;
        let (ours, _) = self.parts.iter().find(|(_, theirs)| *theirs == part)?;
        Some(format!("blk.{layer}.{ours}.{kind}"))
    }

    /// How a tensor lies here. llama.cpp turns neighbours of Llama's heads and numbers half a head apart of Qwen2's; GPT-2's matrices lie in
    /// `transformers` with outputs as columns.
    pub(super) fn layout(&self, name: &str, config: &DecoderConfig) -> Layout {
        let part = name.strip_prefix("blk.").and_then(|rest| rest.split('.').nth(1));
        let heads = config.heads();
        match (self.architecture, part) {
            ("llama", Some("attn_q")) => Layout::Pairs { heads: heads.query },
            ("llama", Some("attn_k")) => Layout::Pairs { heads: heads.key_value },
            ("gpt2", Some("attn_qkv" | "attn_output" | "ffn_up" | "ffn_down")) => Layout::Transposed,
            _ => Layout::Same,
        }
    }
}
