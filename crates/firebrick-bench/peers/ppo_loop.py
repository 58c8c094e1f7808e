"""PPO as a plain loop of PyTorch: the same maths as TRL's trainer, without what that does beside."""

import copy

import torch
import torch.nn.functional as F

from model import Decoder, ScoredDecoder, open_model


def token_log_probs(logits, targets):
    return F.log_softmax(logits, -1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)


def whitened(values):
    return (values - values.mean()) * torch.rsqrt(values.var(correction=0) + 1e-8)


class PpoLoop:
    """Every response has its full length, so that nothing is masked."""

    def __init__(self, job, folder):
        task = job["task"]
        self.prompts, self.ppo, self.eoc = torch.tensor(task["prompts"]), task["ppo"], task["eoc"]
        self.policy = open_model(Decoder, folder / "model")
        self.critic = open_model(ScoredDecoder, folder / "critic")
        self.scorer = open_model(ScoredDecoder, folder / "scorer").requires_grad_(False)

    def check(self, _path):
        raise RuntimeError("the samples differ, so that there is nothing to compare")

    def run(self, clock, steps):
        policy, critic = copy.deepcopy(self.policy), copy.deepcopy(self.critic)
        reference = copy.deepcopy(self.policy).requires_grad_(False)
        adamw = self.ppo["adamw"]
        options = {"betas": (adamw["beta_1"], adamw["beta_2"]), "eps": adamw["epsilon"], "fused": True}
        optimizers = [
            torch.optim.AdamW(model.parameters(), lr=self.ppo[rate], weight_decay=0.0, **options)
            for model, rate in ((policy, "policy_learning_rate"), (critic, "value_learning_rate"))
        ]
        return clock.each(lambda: self.iteration(policy, critic, reference, optimizers), steps)

    def log_probs(self, model, ids):
        """Of the responses, and nothing else."""
        start = self.prompts.shape[1]
        logits = model.unembed(model.hidden(ids[:, :-1])[:, start - 1 :]) / self.ppo["temperature"]
        return token_log_probs(logits, ids[:, start:])

    def values(self, critic, ids):
        return critic.head(critic.body.hidden(ids[:, :-1])[:, self.prompts.shape[1] - 1 :]).squeeze(-1)

    @torch.no_grad()
    def sampled(self, policy):
        batch, past = self.prompts.shape
        steps = self.ppo["max_response_tokens"]
        caches = policy.caches(batch, past + steps)
        ids, read, written = self.prompts, 0, [self.prompts]
        for _ in range(steps):
            logits = policy.unembed(policy.hidden(ids, caches, read)[:, -1])
            read += ids.shape[1]
            ids = torch.multinomial(F.softmax(logits / self.ppo["temperature"], -1), 1)
            written.append(ids)
        return torch.cat(written, 1)

    @torch.no_grad()
    def targets(self, policy, critic, reference, ids):
        ppo = self.ppo
        old, values = self.log_probs(policy, ids), self.values(critic, ids)
        rewards = -ppo["kl_coefficient"] * (old - self.log_probs(reference, ids))
        judged = F.pad(ids, (0, 1), value=self.eoc)
        rewards[:, -1] += self.scorer.head(self.scorer.body.hidden(judged)[:, -1]).squeeze(-1)
        following, advantage, advantages = torch.zeros(len(ids)), torch.zeros(len(ids)), []
        for reward, value in zip(reversed(rewards.unbind(1)), reversed(values.unbind(1))):
            advantage = reward + ppo["gamma"] * (following + ppo["lambda"] * advantage) - value
            following = value
            advantages.append(advantage)
        advantages = torch.stack(advantages[::-1], 1)
        return old, values, whitened(advantages), advantages + values

    def iteration(self, policy, critic, reference, optimizers):
        ppo = self.ppo
        ids = self.sampled(policy)
        old, old_values, advantages, returns = self.targets(policy, critic, reference, ids)
        for _ in range(ppo["passes"]):
            for chosen in torch.randperm(len(ids)).split(ppo["sequences_per_update"]):
                ratio = torch.exp(self.log_probs(policy, ids[chosen]) - old[chosen])
                clipped = ratio.clamp(1 - ppo["policy_clip"], 1 + ppo["policy_clip"])
                loss = torch.max(-advantages[chosen] * ratio, -advantages[chosen] * clipped).mean()
                values = self.values(critic, ids[chosen])
                near = old_values[chosen] + (values - old_values[chosen]).clamp(-ppo["value_clip"], ppo["value_clip"])
                errors = torch.max((values - returns[chosen]).square(), (near - returns[chosen]).square())
                (loss + 0.5 * errors.mean()).backward()
                for model, optimizer in zip((policy, critic), optimizers):
                    torch.nn.utils.clip_grad_norm_(model.parameters(), ppo["clip_norm"])
                    optimizer.step()
                    optimizer.zero_grad(set_to_none=True)
