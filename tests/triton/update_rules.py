"""Optimizers that no library has, and how to run one beside the reference interpreter."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from nldsl.api import load_program
from nldsl.backends.reference import Reference
from nldsl.runtime.optimizer import Rule

# Written from the language reference: sums over a tensor that need one another, states that are one number, clocks.
NOVEL = """
## Steps of a length that follows the weights' (a trust ratio), bounded by a moving mean of the largest entries seen.
memory Trusting(rate: real = 0.1) {
  state m, v: like g = 0
  state seen: [] = 1
  learn(g, weight: like g) -> like g every tick {
    clipped = g * min(1, 1 / (norm(g) + 1e-6))
    m <- 0.9 * m + 0.1 * clipped
    v <- 0.99 * v + 0.01 * clipped^2
    u = m / (sqrt(v / (1 - 0.99 ^ clock())) + 1e-8)
    seen <- 0.5 * seen + 0.5 * max(abs(u))
    trust = norm(weight) / (norm(u) + 1e-6)
    return -rate * trust * u / max(1, seen) - 0.01 * mean(u) * where(g > 0, u, sin(u)) / clock(3)
  }
}

## Two means of the gradient, one of which learns every third tick from the sum since then; the step's size wanders.
memory Wandering(keep: real = 0.8) {
  state fast, slow: like g = 0
  state length: [] = 1
  learn(g, weight: like g) -> like g {
    fast <- keep * fast + tanh(g)
    every 3 tick {
      slow <- slow + mean of g
      length <- 0.5 + 0.25 * length
    }
    return -0.01 * length * (fast + slow) / (1 + abs(weight))^1.5
  }
}

## A sum and a maximum of the same entries, most of them negative; numbers that read each other's old values.
memory Extremes() {
  state low, high: [] = 0.5
  learn(g, weight: like g) -> like g every tick {
    x = -exp(weight)
    old = low
    low <- 0.5 * high + 0.1 * sum(x) / (1 + abs(sum(x)))
    high <- 0.5 * old + 0.1 * max(x)
    return -0.1 * g * (high - low)
  }
}

## A row, a number and a matrix that read each other's old values.
memory Circle() {
  state r: [a] = 0.1
  state q: [] = 0.5
  state L: [a, a] = 0.3 * identity(a)
  learn(g: [a, b]) -> [a, b] every tick {
    before = r * q
    q <- 0.5 * q + 0.3 * dot(r, r)
    r <- before + 0.1 * (L @ r)
    L <- L' + 0.1 * outer(before, before + 1)
    return -0.1 * L @ g
  }
}

## Row and column means of squares, their product as the second moment, and a step through the matrix itself.
memory Factored(rate: real = 0.1) {
  state r: [a] = 0
  state c: [b] = 0
  state bound: [] = 1
  learn(g: [a, b], weight: like g) -> [a, b] every tick {
    r <- 0.9 * r + 0.1 * mean(g^2, axis = 1)
    c <- 0.9 * c + 0.1 * mean(g^2, axis = 0)
    u = g / (sqrt(outer(r, c) / mean(r)) + 1e-6)
    bound <- max(abs(u))
    return -rate * u / max(1, norm(u) / (size(g, 0) * size(g, 1)) ^ 0.5) - 0.01 * weight / (1 + bound)
  }
}

## Products in both orders, one of them symmetric, with pointwise work before and after each.
memory Twisted(rate: real = 0.05) {
  state m: like g = 0
  state L: [a, a] = 0.1 * identity(a)
  state seen: [] = 0
  learn(g: [a, b], weight: like g) -> [a, b] every tick {
    L <- 0.9 * L + 0.1 * g @ g'
    d = m - weight @ (weight' @ g) / (1 + norm(weight)^2)
    m <- 0.9 * m + 0.1 * tanh(L @ g + g)
    seen <- seen + sum(d)
    S = L @ L
    return -rate * ((S - 0.5 * L) @ m + d * sigmoid(seen)) / (1 + norm(S))
  }
}

## Filters of a convolution: no mean over the filters, steps by the size of each filter's momentum, and a bound on all.
memory Filters(rate: real = 0.1) {
  state m: like g = 0
  state spread: [o] = 1
  state mean_of: [i, h, w] = 0
  learn(g: [o, i, h, w], weight: like g) -> like g every tick {
    mean_of <- 0.5 * mean_of + 0.5 * mean(g, axis = 0)
    m <- 0.9 * m + g - mean_of
    spread <- 0.9 * spread + 0.1 * sum(sum(sum(m * g, axis = 3), axis = 2), axis = 1)
    u = m / reshape(sqrt(abs(spread)) + 1e-3, [size(g, 0), 1, 1, 1])
    return -rate * u / max(1, max(abs(u))) - 0.01 * weight / (1 + norm(m))
  }
}

## Rows of each of many matrices: the last dim alone.
memory LastDim() {
  state v: [a, b] = 0
  learn(g: [a, b, c]) -> [a, b, c] every tick {
    v <- 0.9 * v + 0.1 * mean(g^2, axis = 2)
    return -0.1 * g / reshape(sqrt(v) + 1e-3, [size(g, 0), size(g, 1), 1])
  }
}

## A number for each channel in the middle: neither rows nor columns.
memory Middle() {
  learn(g: [a, b, c]) -> [a, b, c] every tick {
    return -0.1 * g / reshape(1 + sum(sum(g^2, axis = 2), axis = 0), [1, size(g, 1), 1])
  }
}

## A preconditioner that is made only every other tick, by products, and used in between.
memory Patient(rate: real = 0.05) {
  state m, held: like g = 0
  learn(g: [a, b]) -> [a, b] every tick {
    m <- 0.9 * m + g
    every 2 tick {
      X = last of m / (norm(last of m) + 1e-3)
      held <- 1.5 * X - 0.5 * (X @ X') @ X
    }
    return -rate * (held + 0.1 * g)
  }
}
"""


def rule_of(call: str, file: str = "") -> Rule:
    """The rule that a call of an optimizer is, of the standard library or of ``NOVEL``."""
    name = call.partition("(")[0]
    head = f'from "optimizers/{file}" import {name}' if file else NOVEL
    body = "input x: [2]\nparam w: [2] = normal(1.0)\nminimize sum((w - x)^2) at outer"
    program = load_program("rule", text=f"{head}\nmodel R() {{\nlevel outer = every 1 step\n{body} with {call}\n}}")
    found: Rule = program.levels[0].optimizer
    return found


def reference(
    rule: Rule, start: torch.Tensor, gradients: list[torch.Tensor], rate: float
) -> tuple[np.ndarray[Any, Any], dict[str, Any]]:
    """The weight and the states after one tick of the reference interpreter for each gradient, in float64."""
    program = rule(tuple(start.shape))
    machine, weight = Reference(program, {}), start.double().numpy().copy()
    state = machine.init_state()
    for gradient in gradients:
        inputs = {"g": gradient.double().numpy()}
        if any(i.name == "weight" for i in program.inputs):
            inputs["weight"] = weight
        outputs, state = machine.tick(state, inputs)
        weight = weight + rate * outputs["change"]
    return weight, {s.name: state[s.name] for s in program.states}
