"""Computes the golden numbers with PyTorch in float64 and writes them beside this file, one JSON file a topic.

    python -m venv /tmp/goldens && /tmp/goldens/bin/pip install -r requirements.txt
    /tmp/goldens/bin/python make.py            # write the files
    /tmp/goldens/bin/python make.py --check    # compare the files with what would be written

Every case is flat: field name -> number, list or nested list. Conventions:

- `grad_x` is the gradient of the field `loss` with respect to the field `x`; `grad_k2_x` that of `loss_k2`.
- `mask` is true where a position counts; the others hold junk on the way in. What a mask takes part in is zero there
  on the way out; what none takes part in (log-probabilities, entropies, ratios) is given everywhere.
- A masked mean divides by the number of positions that count in the whole batch.
- Position t of `logits` predicts position t of `targets`: nothing is shifted, except where a case says so.
- Inputs are small multiples of a power of two, so that float32 holds them exactly.
- KL in nats, logarithms natural, standard deviations biased (divided by n) unless named otherwise.
"""

import json
import math
import platform
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

HERE = Path(__file__).parent
torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)


def draw(seed, shape, scale=1.0, grain=256):
    """Normal numbers, rounded to multiples of 1/grain."""
    values = np.random.Generator(np.random.PCG64(seed)).standard_normal(shape) * scale
    return torch.from_numpy(np.round(values * grain) / grain)


def leaf(tensor):
    return tensor.detach().clone().requires_grad_(True)


def mask_of(lengths, steps):
    return torch.arange(steps)[None, :] < torch.tensor(lengths)[:, None]


def masked_mean(x, mask):
    return torch.where(mask, x, 0.0).sum() / mask.sum()


def zeroed(x, mask):
    return torch.where(mask, x, torch.zeros((), dtype=x.dtype))


def grad(loss, *leaves):
    grads = torch.autograd.grad(loss, leaves, retain_graph=True)
    return grads if len(grads) > 1 else grads[0]


def gather(logits, targets):
    return logits.log_softmax(-1).gather(-1, targets[..., None])[..., 0]


# Language modeling -----------------------------------------------------------------------------------------------


def lm():
    logits, other = leaf(draw(1, (2, 5, 7), 1.5)), leaf(draw(2, (2, 5, 7), 1.5))
    targets = torch.tensor([[3, 0, 6, 2, 5], [1, 1, 4, 0, 2]])
    mask = torch.tensor([[True, True, True, True, True], [False, True, True, False, False]])
    cases = {}

    log_probs = gather(logits, targets)
    loss = masked_mean(-log_probs, mask)
    cases["cross_entropy"] = dict(
        logits=logits, targets=targets, mask=mask, log_probs=log_probs, loss=loss, grad_logits=grad(loss, logits)
    )

    extreme = leaf(torch.tensor([[[1e4, 0.0, -1e4, 9999.0], [-1e4, -1e4, -1e4, -1e4]]]))
    extreme_targets = torch.tensor([[3, 2]])
    log_probs = gather(extreme, extreme_targets)
    loss = -log_probs.mean()
    cases["cross_entropy_extreme"] = dict(
        logits=extreme,
        targets=extreme_targets,
        mask=torch.tensor([[True, True]]),
        log_probs=log_probs,
        loss=loss,
        grad_logits=grad(loss, extreme),
    )

    log_p = logits.log_softmax(-1)
    entropy = -(log_p.exp() * log_p).sum(-1)
    loss = masked_mean(entropy, mask)
    cases["entropy"] = dict(logits=logits, mask=mask, entropy=entropy, loss=loss, grad_logits=grad(loss, logits))

    kl = F.kl_div(other.log_softmax(-1), log_p, reduction="none", log_target=True).sum(-1)
    loss = masked_mean(kl, mask)
    grad_p, grad_q = grad(loss, logits, other)
    cases["kl"] = dict(
        p_logits=logits, q_logits=other, mask=mask, kl=kl, loss=loss, grad_p_logits=grad_p, grad_q_logits=grad_q
    )

    # Samples come from p; x = log p - log q. k1 = x, k2 = x^2/2, k3 = e^-x - 1 + x.
    p, q = leaf(-draw(3, (2, 5), 1.0).abs()), leaf(-draw(4, (2, 5), 1.0).abs())
    x = p - q
    fields = dict(log_probs=p, ref_log_probs=q, mask=mask)
    for name, k in dict(k1=x, k2=x**2 / 2, k3=torch.expm1(-x) + x).items():
        loss = masked_mean(k, mask)
        fields |= {name: k, f"loss_{name}": loss, f"grad_{name}_log_probs": grad(loss, p)}
    cases["kl_estimators"] = fields

    p, q = torch.tensor([0.5, 0.5]), torch.tensor([0.9, 0.1])
    x = p.log() - q.log()
    cases["kl_t05"] = dict(
        p=p,
        q=q,
        kl=(p * x).sum(),
        k1=(p * x).sum(),
        k2=(p * x**2 / 2).sum(),
        k3=(p * (q / p - 1 + x)).sum(),
        k3_inverted=(p * (p / q - 1 - x)).sum(),
    )
    return cases


# Context distillation (A-07) -------------------------------------------------------------------------------------


def distill():
    def case(teacher, student, k):
        """KL over the k most probable tokens of the teacher and one category for all the others."""
        log_p = teacher.log_softmax(-1)
        top = log_p.topk(k, dim=-1)
        rest_ids = log_p.argsort(dim=-1, descending=True)[..., k:]
        student = leaf(student)
        log_q = student.log_softmax(-1)
        kl = (top.values.exp() * (top.values - log_q.gather(-1, top.indices))).sum(-1)
        rest = torch.zeros(teacher.shape[:-1])
        if k < teacher.shape[-1]:
            # Summed over the complement: 1 - sum(top) would lose a small rest to rounding.
            log_rest = log_p.gather(-1, rest_ids).logsumexp(-1)
            kl = kl + log_rest.exp() * (log_rest - log_q.gather(-1, rest_ids).logsumexp(-1))
            rest = log_rest.exp()
        else:
            full = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)
            assert torch.allclose(kl, full, rtol=0, atol=1e-14)
        loss = kl.mean()
        return dict(
            teacher_logits=teacher,
            student_logits=student,
            top_ids=top.indices,
            top_log_probs=top.values,
            rest=rest,
            kl=kl,
            loss=loss,
            grad_student_logits=grad(loss, student),
        )

    teacher, student = draw(11, (2, 3, 7), 2.0), draw(12, (2, 3, 7), 1.0)
    # Three tokens share all the mass but about 1e-9: the four others lie about ln(4e9/3) = 21 below them.
    peaked = torch.tensor([[[0.25, 0.0, -0.25, -21.0, -20.75, -21.25, -21.5]]])
    flat = torch.tensor([[[0.5, -0.75, 0.25, 0.0, 1.0, -0.25, 0.75]]])
    # The same peaks, on the three tokens that `flat` finds most probable.
    peaked_on_flat = torch.tensor([[[-0.25, -21.0, -20.75, -21.25, 0.25, -21.5, 0.0]]])
    return dict(
        top_3=case(teacher, student, 3),
        top_all=case(teacher, student, 7),
        equal=case(teacher, teacher, 3),
        teacher_rest_tiny=case(peaked, flat, 3),
        # The student's rest is about 1e-9 while the teacher's is not: ln(1 - sum) in float32 would be -inf here.
        student_rest_tiny=case(flat, peaked_on_flat, 3),
    )


# Preference modeling ---------------------------------------------------------------------------------------------


def preference():
    def ranked(chosen, rejected):
        chosen, rejected = leaf(chosen), leaf(rejected)
        # Not F.softplus: it rounds ln(1 + e^x) to x above its threshold of 20.
        losses = torch.logaddexp(rejected - chosen, torch.zeros(()))
        loss = losses.mean()
        grad_chosen, grad_rejected = grad(loss, chosen, rejected)
        return dict(
            chosen=chosen,
            rejected=rejected,
            losses=losses,
            loss=loss,
            accuracy=(chosen > rejected).double().mean(),
            grad_chosen=grad_chosen,
            grad_rejected=grad_rejected,
        )

    def composite(lam, mu):
        chosen, rejected = leaf(torch.tensor([0.5, -1.25, 2.0])), leaf(torch.tensor([0.25, 0.75, -1.0]))
        logits = leaf(draw(21, (3, 4, 5), 1.0))
        targets = torch.tensor([[1, 4, 0, 2], [3, 3, 1, 0], [2, 0, 0, 0]])
        mask = mask_of([4, 3, 1], 4)
        pm_loss = F.softplus(rejected - chosen).mean()
        lm_loss = masked_mean(-gather(logits, targets), mask)
        loss = lam * pm_loss + mu * lm_loss
        grads = grad(loss, chosen, rejected, logits)
        return {
            "chosen": chosen,
            "rejected": rejected,
            "logits": logits,
            "targets": targets,
            "mask": mask,
            "lambda": lam,
            "mu": mu,
            "pm_loss": pm_loss,
            "lm_loss": lm_loss,
            "loss": loss,
            "grad_chosen": grads[0],
            "grad_rejected": grads[1],
            "grad_logits": grads[2],
        }

    return dict(
        ranked=ranked(torch.tensor([0.5, -1.0, 3.0, 0.25]), torch.tensor([0.25, 2.0, -4.5, 1.0])),
        ranked_tie=ranked(torch.tensor([1.5, -2.0]), torch.tensor([1.5, -2.0])),
        ranked_extreme=ranked(torch.tensor([1e4, -5e3, 60.0, 0.0]), torch.tensor([0.0, 5e3, 0.0, 60.0])),
        composite=composite(1.0, 1.0),
        composite_weighted=composite(0.5, 2.0),
    )


# Reinforcement learning ------------------------------------------------------------------------------------------


def gae(rewards, values, continues, bootstrap, gamma, lam):
    """delta_t = r_t + gamma c_t V_{t+1} - V_t;  A_t = delta_t + gamma lambda c_t A_{t+1}  (one row)."""
    advantages, after, next_value = [0.0] * len(rewards), 0.0, bootstrap
    for t in reversed(range(len(rewards))):
        delta = rewards[t] + gamma * continues[t] * next_value - values[t]
        after = delta + gamma * lam * continues[t] * after
        advantages[t], next_value = after, values[t]
    return advantages


def rl():
    cases = {}

    def gae_case(rewards, values, lengths, gamma, lam):
        rows = rewards.shape[1]
        advantages = []
        for r, v, n in zip(rewards.tolist(), values.tolist(), lengths):
            advantages.append(gae(r[:n], v[:n], [1.0] * n, 0.0, gamma, lam) + [0.0] * (rows - n))
        advantages, mask = torch.tensor(advantages), mask_of(lengths, rows)
        return {
            "rewards": rewards,
            "values": values,
            "mask": mask,
            "gamma": gamma,
            "lambda": lam,
            "advantages": advantages,
            "returns": zeroed(advantages + values, mask),
        }

    cases["gae_t15"] = gae_case(torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[0.5, 0.6, 0.7]]), [3], 1.0, 0.95)
    rewards, values = draw(31, (3, 5)), draw(32, (3, 5))
    for name, gamma, lam in [("", 1.0, 0.95), ("_discounted", 0.99, 0.9), ("_one", 1.0, 1.0), ("_zero", 0.9, 0.0)]:
        cases[f"gae_ragged{name}"] = gae_case(rewards, values, [5, 3, 1], gamma, lam)

    continues = torch.tensor([[1.0, 1.0, 1.0, 1.0], [1.0, 0.0, 1.0, 0.0]])
    rewards, values, bootstrap = draw(33, (2, 4)), draw(34, (2, 4)), torch.tensor([0.75, -2.0])
    rows = zip(rewards.tolist(), values.tolist(), continues.tolist(), bootstrap.tolist())
    advantages = torch.tensor([gae(*row, 0.99, 0.95) for row in rows])
    cases["gae_bootstrap"] = {
        "rewards": rewards,
        "values": values,
        "continues": continues,
        "bootstrap": bootstrap,
        "gamma": 0.99,
        "lambda": 0.95,
        "advantages": advantages,
        "returns": advantages + values,
    }

    # Log ratios of both signs, inside and outside the clip, with advantages of both signs; the last two are masked.
    old = -draw(35, (2, 4), 1.0).abs() - 0.5
    log_ratio = torch.tensor([[0.0, 0.125, 0.5, 0.5], [-0.5, -0.5, 3.0, -3.0]])
    advantages = torch.tensor([[1.0, -0.5, 1.5, -2.0], [0.75, -1.25, 9.0, -9.0]])
    mask = torch.tensor([[True, True, True, True], [True, True, False, False]])
    new = leaf(old + log_ratio)
    ratio = (new - old).exp()
    unclipped, clipped = -advantages * ratio, -advantages * ratio.clamp(0.8, 1.2)
    losses = torch.maximum(unclipped, clipped)
    loss = masked_mean(losses, mask)
    cases["policy_loss"] = dict(
        log_probs=new,
        old_log_probs=old,
        advantages=advantages,
        mask=mask,
        clip=0.2,
        ratio=ratio,
        losses=zeroed(losses, mask),
        loss=loss,
        grad_log_probs=grad(loss, new),
        # Where the clipped term is the greater one and so stops the gradient.
        clipped=(clipped > unclipped) & mask,
        clip_fraction=masked_mean((clipped > unclipped).double(), mask),
        approx_kl_k1=masked_mean(old - new, mask),
        approx_kl_k3=masked_mean(torch.expm1(new - old) - (new - old), mask),
    )

    old_values = draw(36, (2, 4))
    change = torch.tensor([[0.125, 0.75, -0.75, 0.5], [-0.5, 0.0, 5.0, -5.0]])
    values, mask = leaf(old_values + change), mask_of([4, 2], 4)
    returns = old_values + torch.tensor([[1.0, 2.0, 2.0, -1.0], [-0.0625, 0.25, 7.0, 7.0]])
    near = old_values + (values - old_values).clamp(-0.2, 0.2)
    losses = 0.5 * torch.maximum((values - returns) ** 2, (near - returns) ** 2)
    loss = masked_mean(losses, mask)
    cases["value_loss"] = dict(
        values=values,
        old_values=old_values,
        returns=returns,
        mask=mask,
        clip=0.2,
        losses=zeroed(losses, mask),
        loss=loss,
        grad_values=grad(loss, values),
        # Where the clipped error is the greater one.
        clipped=((near - returns) ** 2 > (values - returns) ** 2) & mask,
        clip_fraction=masked_mean(((near - returns) ** 2 > (values - returns) ** 2).double(), mask),
    )

    def whiten(x, mask, shift_mean):
        mean = masked_mean(x, mask)
        variance = masked_mean((x - mean) ** 2, mask)
        whitened = (x - mean) / (variance + 1e-8).sqrt()
        if not shift_mean:
            whitened = whitened + mean
        return dict(
            x=x, mask=mask, epsilon=1e-8, mean=mean, variance=variance, whitened=zeroed(whitened, mask)
        )

    x, mask = draw(37, (3, 5), 2.0) + 1.5, mask_of([5, 3, 1], 5)
    cases["whiten"] = whiten(x, mask, True)
    cases["whiten_keep_mean"] = whiten(x, mask, False)
    cases["whiten_single"] = whiten(x[2:], mask[2:], True)

    log_probs, ref_log_probs = -draw(38, (3, 5)).abs(), -draw(39, (3, 5)).abs()
    scores, mask, beta = torch.tensor([1.5, -0.75, 3.0]), mask_of([5, 3, 1], 5), 0.125
    rewards = zeroed(-beta * (log_probs - ref_log_probs), mask)
    rewards[torch.arange(3), mask.sum(1) - 1] += scores
    cases["shaped_rewards"] = dict(
        log_probs=log_probs, ref_log_probs=ref_log_probs, scores=scores, mask=mask, beta=beta, rewards=rewards
    )

    # One row a prompt, one column a sample; the last group is all equal.
    rewards = torch.cat([draw(40, (2, 4), 1.5), torch.full((1, 4), 0.5)])
    centred = rewards - rewards.mean(1, keepdim=True)
    cases["group_relative"] = dict(
        rewards=rewards,
        epsilon=1e-4,
        centred=centred,
        advantages=centred / (rewards.std(1, keepdim=True, unbiased=False) + 1e-4),
        advantages_unbiased_std=centred / (rewards.std(1, keepdim=True, unbiased=True) + 1e-4),
    )
    others = (rewards.sum(1, keepdim=True) - rewards) / 3
    cases["leave_one_out"] = dict(rewards=rewards, baselines=others, advantages=rewards - others)
    return cases


# Optimisation ----------------------------------------------------------------------------------------------------


def optim():
    cases = {}

    # Clipped to global norm 1 before every step: all but the third step exceed it. PyTorch divides by norm + 1e-6.
    start_a, start_b = draw(41, (3,)), draw(42, (2, 2))
    gradients_a, gradients_b = draw(43, (5, 3), 1.0), draw(44, (5, 2, 2), 1.0)
    gradients_a[2] /= 16
    gradients_b[2] /= 16
    a, b = leaf(start_a), leaf(start_b)
    adamw = torch.optim.AdamW([a, b], lr=0.05, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    norms, after_a, after_b = [], [], []
    for grad_a, grad_b in zip(gradients_a, gradients_b):
        a.grad, b.grad = grad_a.clone(), grad_b.clone()
        norms.append(torch.nn.utils.clip_grad_norm_([a, b], 1.0).item())
        adamw.step()
        after_a.append(a.tolist())
        after_b.append(b.tolist())
    cases["adamw"] = dict(
        learning_rate=0.05,
        beta_1=0.9,
        beta_2=0.95,
        epsilon=1e-8,
        weight_decay=0.1,
        max_norm=1.0,
        a=start_a,
        b=start_b,
        gradients_a=gradients_a,
        gradients_b=gradients_b,
        norms=norms,
        after_a=after_a,
        after_b=after_b,
    )

    # The two places of epsilon (T-19), on gradients near epsilon. TensorFlow:
    # theta -= lr sqrt(1 - beta2^t) / (1 - beta1^t) * m / (sqrt(v) + eps).
    lr, beta_1, beta_2, epsilon = 0.01, 0.9, 0.999, 2.0**-17
    start = torch.tensor([1.0, -0.5, 0.25])
    gradients = draw(45, (3, 3), 1.0) * 2.0**-15
    tensorflow, m, v, after = start.clone(), torch.zeros(3), torch.zeros(3), []
    for t, g in enumerate(gradients, 1):
        m = beta_1 * m + (1 - beta_1) * g
        v = beta_2 * v + (1 - beta_2) * g**2
        rate = lr * math.sqrt(1 - beta_2**t) / (1 - beta_1**t)
        tensorflow = tensorflow - rate * m / (v.sqrt() + epsilon)
        after.append(tensorflow.tolist())
    theta, after_pytorch = leaf(start), []
    adam = torch.optim.Adam([theta], lr=lr, betas=(beta_1, beta_2), eps=epsilon)
    for g in gradients:
        theta.grad = g.clone()
        adam.step()
        after_pytorch.append(theta.tolist())
    cases["adam_epsilon"] = dict(
        learning_rate=lr,
        beta_1=beta_1,
        beta_2=beta_2,
        epsilon=epsilon,
        a=start,
        gradients_a=gradients,
        after_a_tensorflow=after,
        after_a_pytorch=after_pytorch,
    )

    # Rates by the samples seen so far. Warm-up: peak s/w. Cosine: down to floor * peak at `total`, and flat after it.
    peak, warmup, total, floor = 0.0006, 1000, 11000, 0.1
    samples = [0, 1, 250, 999, 1000, 1001, 3500, 6000, 8500, 10999, 11000, 20000]

    def cosine(s):
        if s < warmup:
            return peak * s / warmup
        done = min((s - warmup) / (total - warmup), 1.0)
        return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done)))

    cases["warmup_cosine"] = dict(
        peak=peak,
        warmup_samples=warmup,
        total_samples=total,
        floor=floor,
        samples=samples,
        learning_rates=[cosine(s) for s in samples],
    )
    cases["linear_to_zero"] = dict(
        peak=peak,
        total_samples=total,
        samples=samples,
        learning_rates=[peak * max(0.0, 1 - s / total) for s in samples],
    )
    return cases


# A small decoder -------------------------------------------------------------------------------------------------


def transformer():
    vocab, d_model, layers, heads, d_ff, context = 11, 8, 2, 2, 32, 6
    shapes = {"wte.weight": (vocab, d_model), "wpe.weight": (context, d_model)}
    for i in range(layers):
        block = {
            "ln_1.weight": (d_model,),
            "ln_1.bias": (d_model,),
            "attn.qkv.weight": (d_model, 3 * d_model),
            "attn.qkv.bias": (3 * d_model,),
            "attn.proj.weight": (d_model, d_model),
            "attn.proj.bias": (d_model,),
            "ln_2.weight": (d_model,),
            "ln_2.bias": (d_model,),
            "mlp.fc.weight": (d_model, d_ff),
            "mlp.fc.bias": (d_ff,),
            "mlp.proj.weight": (d_ff, d_model),
            "mlp.proj.bias": (d_model,),
        }
        shapes |= {f"blocks.{i}.{name}": shape for name, shape in block.items()}
    shapes |= {"ln_f.weight": (d_model,), "ln_f.bias": (d_model,)}
    weights = {}
    for seed, (name, shape) in enumerate(shapes.items(), 100):
        one = 1.0 if "ln_" in name and name.endswith("weight") else 0.0
        weights[name] = leaf(one + draw(seed, shape, 0.3, grain=64))

    def norm(x, name):
        return F.layer_norm(x, (d_model,), weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-5)

    def linear(x, name):
        return x @ weights[f"{name}.weight"] + weights[f"{name}.bias"]

    ids = torch.tensor([[1, 5, 0, 10, 3, 7], [2, 2, 9, 4, 6, 8]])
    batch, seq = ids.shape
    causal = torch.ones(seq, seq, dtype=torch.bool).tril()
    x = weights["wte.weight"][ids] + weights["wpe.weight"][:seq]
    for i in range(layers):
        # Columns of qkv: all of q, then k, then v; inside each, head after head.
        qkv = linear(norm(x, f"blocks.{i}.ln_1"), f"blocks.{i}.attn.qkv")
        q, k, v = qkv.view(batch, seq, 3, heads, d_model // heads).permute(2, 0, 3, 1, 4)
        scores = (q @ k.transpose(-1, -2)) / math.sqrt(d_model // heads)
        attended = scores.masked_fill(~causal, -math.inf).softmax(-1) @ v
        x = x + linear(attended.transpose(1, 2).reshape(batch, seq, d_model), f"blocks.{i}.attn.proj")
        hidden = F.gelu(linear(norm(x, f"blocks.{i}.ln_2"), f"blocks.{i}.mlp.fc"))
        x = x + linear(hidden, f"blocks.{i}.mlp.proj")
    logits = norm(x, "ln_f") @ weights["wte.weight"].T
    # The one shifted loss here: position t predicts ids[t + 1], the last position nothing.
    loss = -gather(logits[:, :-1], ids[:, 1:]).mean()
    grads = grad(loss, *weights.values())
    sizes = dict(
        vocab=vocab, d_model=d_model, layers=layers, heads=heads, d_ff=d_ff, context=context, norm_epsilon=1e-5
    )
    return dict(
        forward=sizes | dict(ids=ids, logits=logits, loss=loss),
        weights=weights,
        gradient_norms={name: g.norm() for name, g in zip(weights, grads)},
    )


# Files -----------------------------------------------------------------------------------------------------------

TOPICS = {
    "lm": (lm, "token log-probabilities, cross-entropy, entropy, KL and its estimators"),
    "distill": (distill, "KL over the top k tokens and the rest (A-07)"),
    "preference": (preference, "ranked loss (A-16) and composite loss (A-33)"),
    "rl": (rl, "GAE, PPO losses, whitening, KL-shaped rewards, group advantages"),
    "optim": (optim, "AdamW, global-norm clipping, the two epsilon forms (T-19), schedules"),
    "transformer": (transformer, "a GPT-2-like decoder: weights, logits, loss, gradient norms"),
}


def plain(value):
    return value.tolist() if isinstance(value, torch.Tensor) else value


def render(topic):
    compute, about = TOPICS[topic]
    made_with = {
        "script": "make.py",
        "python": platform.python_version(),
        "torch": torch.__version__.split("+")[0],
        "numpy": np.__version__,
        "dtype": "float64",
    }
    cases = []
    for name, fields in compute().items():
        lines = [f"      {json.dumps(k)}: {json.dumps(plain(v), allow_nan=False)}" for k, v in fields.items()]
        cases.append(f"    {json.dumps(name)}: {{\n" + ",\n".join(lines) + "\n    }")
    header = f'{{\n  "about": {json.dumps(about)},\n  "made_with": {json.dumps(made_with)},\n  "cases": {{\n'
    return header + ",\n".join(cases) + "\n  }\n}\n"


def differences(old, new, path):
    """Where two JSON values differ by more than rounding."""
    if isinstance(old, dict) and isinstance(new, dict) and list(old) == list(new):
        return [d for key in old for d in differences(old[key], new[key], f"{path}.{key}")]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [d for i, (a, b) in enumerate(zip(old, new)) for d in differences(a, b, f"{path}[{i}]")]
    if isinstance(old, float) and isinstance(new, float) and math.isclose(old, new, rel_tol=1e-9, abs_tol=1e-12):
        return []
    return [] if old == new else [f"{path}: file has {old}, computed {new}"]


def main():
    check = sys.argv[1:] == ["--check"]
    found = []
    for topic in TOPICS:
        path, text = HERE / f"{topic}.json", render(topic)
        if check:
            found += differences(json.loads(path.read_text())["cases"], json.loads(text)["cases"], topic)
        else:
            path.write_text(text)
    print("\n".join(found), end="\n" if found else "")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
