"""PPO by TRL: its trainer, on GPT-2 models of `transformers` with the weights of our files."""

import copy
import tempfile
import time

import torch
import torch.nn.functional as F
from datasets import Dataset
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from transformers import GPT2ForSequenceClassification, GPT2LMHeadModel, PreTrainedTokenizerFast, TrainerCallback
from trl.experimental.ppo import PPOConfig, PPOTrainer

# Our names and GPT-2's; both keep matrices as `[d_input, d_output]`.
NAMES = [("blocks.", "h."), ("attn.qkv", "attn.c_attn"), ("attn.proj", "attn.c_proj")]
NAMES += [("mlp.fc", "mlp.c_fc"), ("mlp.proj", "mlp.c_proj")]


def their_name(name):
    for ours, theirs in NAMES:
        name = name.replace(ours, theirs)
    return f"transformer.{name}"


def scored_model(folder, shape):
    """A decoder with a scalar head; the bias of ours, which is 0 at first, has no place there."""
    model = GPT2ForSequenceClassification(shape)
    tensors = load_file(folder / "model.safetensors")
    assert not tensors.pop("head.bias").any(), "the head has a bias"
    state = {"score.weight": tensors.pop("head.weight").T.contiguous()}
    state |= {their_name(name.removeprefix("body.")): tensor for name, tensor in tensors.items()}
    model.load_state_dict(state)
    # A new model drops out, one that is read from a folder does not; the trainer turns it off for all.
    return model.eval()


class Marks(TrainerCallback):
    """The time between the ends of iterations."""

    def __init__(self):
        self.seconds = []

    def on_step_end(self, *_arguments, **_named):
        now = time.perf_counter()
        self.seconds.append(now - self.last)
        self.last = now


class TrlPpo:
    def __init__(self, job, folder, setting):
        task = job["task"]
        self.prompts, self.ppo, self.eoc = task["prompts"], task["ppo"], task["eoc"]
        self.bf16 = "bf16" in setting
        self.policy = GPT2LMHeadModel.from_pretrained(folder / "hugging-face")
        shape = copy.deepcopy(self.policy.config)
        shape.num_labels, shape.pad_token_id = 1, self.eoc
        self.critic, self.scorer = (scored_model(folder / name, shape) for name in ("critic", "scorer"))
        self.our_names = [name for name in load_file(folder / "model" / "model.safetensors")]
        words = {str(token): token for token in range(job["config"]["vocab"])}
        backend = Tokenizer(models.WordLevel(words, unk_token="0"))
        end = str(self.eoc)
        self.tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=end, pad_token=end)

    def check(self, path):
        ids = torch.tensor(self.prompts)
        loss = F.cross_entropy(self.policy(ids).logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        parameters = dict(self.policy.named_parameters())
        save_file({name: parameters[their_name(name)].grad.contiguous() for name in self.our_names}, path)
        with torch.no_grad():
            values = self.critic.score(self.critic.transformer(ids).last_hidden_state)
            scores = self.scorer.score(self.scorer.transformer(ids).last_hidden_state[:, -1])
        self.policy.zero_grad(set_to_none=True)
        losses = [loss, values.square().mean(), scores.square().mean()]
        return {"losses": [part.item() for part in losses], "tokens": []}

    def run(self, _clock, steps):
        ppo, prompts = self.ppo, len(self.prompts)
        with tempfile.TemporaryDirectory() as folder:
            arguments = PPOConfig(
                output_dir=folder,
                per_device_train_batch_size=prompts,
                gradient_accumulation_steps=1,
                num_mini_batches=prompts // ppo["sequences_per_update"],
                local_rollout_forward_batch_size=prompts,
                num_ppo_epochs=ppo["passes"],
                total_episodes=prompts * steps,
                response_length=ppo["max_response_tokens"],
                temperature=ppo["temperature"],
                kl_coef=ppo["kl_coefficient"],
                gamma=ppo["gamma"],
                lam=ppo["lambda"],
                cliprange=ppo["policy_clip"],
                cliprange_value=ppo["value_clip"],
                vf_coef=1.0,
                learning_rate=ppo["policy_learning_rate"],
                lr_scheduler_type="constant",
                max_grad_norm=ppo["clip_norm"],
                optim="adamw_torch_fused",
                num_sample_generations=0,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                use_cpu=True,
                bf16=self.bf16,
                seed=0,
            )
            marks = Marks()
            trainer = PPOTrainer(
                args=arguments,
                processing_class=self.tokenizer,
                model=copy.deepcopy(self.policy),
                ref_model=copy.deepcopy(self.policy),
                reward_model=self.scorer,
                value_model=copy.deepcopy(self.critic),
                train_dataset=Dataset.from_dict({"input_ids": self.prompts}),
                # It is asked for where no generation is wanted, too.
                eval_dataset=Dataset.from_dict({"input_ids": self.prompts}),
                callbacks=[marks],
            )
            marks.last = time.perf_counter()
            trainer.train()
        return marks.seconds
