"""Compare what quantrs and llama.cpp write when both always take the most likely token.

``python tools/compare_greedy_text.py MODEL LLAMA_COMPLETION`` prints, for five prompts, how far the texts agree, and where they part
the difference of the logits that quantrs gives the two tokens, with int8 activations (which both programs use) and without.
It fails if that difference is not small: then it is not rounding that parts them.
"""

from __future__ import annotations

import subprocess
import sys

import quantrs as qr

PROMPTS = ("The capital of France is", "Once upon a time, in a small village,", "def fibonacci(n):", "Water boils at", "1, 2, 3, 5, 8,")
N_TOKENS = 64
NEAR = 0.5
"""A few times the spread of the logits that different ways of rounding make: 0.13 to 0.23 for small models."""


def main() -> int:
    """Print the comparison; the exit code."""
    model, peer = sys.argv[1:3]
    session, exact = qr.Session(model), qr.Session(model, activations="float")
    worst = 0.0
    for prompt in PROMPTS:
        command = [peer, "-m", model, "-p", prompt, "-n", str(N_TOKENS), "--temp", "0", "-no-cnv", "--no-display-prompt", "--ignore-eos"]
        theirs = subprocess.run(command, capture_output=True, text=True, check=True).stdout.rstrip("\n")
        generation = session.generate(prompt, max_tokens=N_TOKENS, temperature=0, ignore_eos=True)
        ours = "".join(generation)
        if ours.rstrip("\n") == theirs:
            print(f"{prompt!r}: {N_TOKENS} tokens agree")
            continue
        mine, peers = generation.prompt_ids + generation.ids, session.tokenize(prompt + theirs)
        split = next(i for i, (a, b) in enumerate(zip(mine, peers, strict=False)) if a != b)
        pair = mine[split], peers[split]
        gaps = [float(row[pair[0]] - row[pair[1]]) for row in (s.logits(mine[:split])[-1] for s in (session, exact))]
        worst = max(worst, *map(abs, gaps))
        words = " and ".join(repr(session.tokenizer.token_text(i)) for i in pair)
        n_agreed = split - len(generation.prompt_ids)
        print(f"{prompt!r}: {n_agreed} tokens agree, then {words} differ by {gaps[0]:.3f} (float activations {gaps[1]:.3f})")
    return int(worst > NEAR)


if __name__ == "__main__":
    sys.exit(main())
