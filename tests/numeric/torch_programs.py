"""Small programs that between them use every feature a backend must get right."""

from __future__ import annotations

PROGRAMS: dict[str, str] = {
    "delta": """
memory Delta(dk: dim = 8, dv: dim = 6) {
  state S: [dv, dk] = 0
  step(q: [dk], k: [dk], v: [dv], rate: [], keep: []) -> [dv] {
    S <- keep * S
    S <- S - rate * grad(0.5 * sum((S @ k - v)^2), S)
    return S @ q
  }
}
""",
    "read before write": """
memory Hebb(d: dim = 8) {
  state S: [d, d] = learned normal(0.3)
  param w: [d, d] = normal(0.5)
  step(x: [d]) -> [d] {
    q = w @ x
    y = S @ q
    S <- 0.9 * S + outer(tanh(x), q)
    return y + q
  }
}
""",
    "momentum": """
memory Momentum(d: dim = 5) {
  state S: [d, d] = 0
  state m: [d, d] = 0
  step(k: [d], v: [d], rate: [], beta: []) -> [d] {
    g = grad(0.5 * sum((S @ k - v)^2), S)
    m <- beta * m - rate * g
    S <- S + m
    return S @ k
  }
}
""",
    "deep memory at the start of a chunk": """
memory Mlp(d: dim = 4, h: dim = 6, chunk: int = 3) {
  state w1: [h, d] = learned normal(0.5)
  state w2: [d, h] = learned normal(0.5)
  read(x: [d]) -> [d] = x + w2 @ silu(w1 @ x)
  step(q: [d], k: [d], v: [d], rate: [], keep: []) -> [d] {
    {g1, g2} = grad(0.5 * sum((read(k) - v)^2), {w1, w2}) at start of chunk
    {w1, w2} <- keep * {w1, w2} - rate * {g1, g2}
    return read(q)
  }
}
""",
    "slower clocks": """
memory Slow(d: dim = 4) {
  state fast: [d] = 0
  state slow: [d] = 1
  state slower: [d] = 0
  step(x: [d]) -> [d] {
    fast <- 0.5 * fast + x
    every 2 token { slow <- slow + 0.1 * sum of (x * slower) + last of fast }
    every 6 token { slower <- tanh(slower + mean of x) }
    return slow + fast * slower
  }
}
""",
    "slow block with much work": """
memory Work(d: dim = 4) {
  state S: [d, d] = 0
  state P: [d, d] = identity(1)
  step(x: [d], v: [d]) -> [d] {
    S <- S + outer(v, x)
    every 4 token {
      y = 0.1 * last of S
      iterate 3 { y = 1.5 * y - 0.5 * y @ y' @ y }
      P <- 0.5 * P + y
    }
    return P @ x
  }
}
""",
    "resets": """
memory Resets(d: dim = 3) {
  state a: [d] = learned normal(1.0)
  state b: [d] = 0 reset every 3 token
  state c: [d] = 2 * a reset every 4 token
  step(x: [d]) -> [d] {
    a <- 0.9 * a + x
    b <- b + a
    c <- c + b
    return a + b * c
  }
}
""",
    "resets of anchored states": """
memory AnchorResets(d: dim = 3) {
  state S: [d, d] = learned normal(0.5) reset every 5 token
  step(k: [d], v: [d]) -> [d] {
    g = grad(0.5 * sum((S @ k - v)^2), S) at start of 2
    S <- S - 0.3 * g
    return S @ v
  }
}
""",
    "heads": """
memory Delta(dk: dim, dv: dim) {
  state S: [dv, dk] = 0
  param scale: [dk] = ones
  read(q: [dk]) -> [dv] = S @ (scale * q)
  learn(k: [dk], v: [dv], rate: []) { S <- S - rate * grad(0.5 * sum((read(k) - v)^2), S) }
}
block Heads(x: [d], heads: dim = 2, d: dim = 6) {
  memory m: heads of Delta(d / heads, d / heads)
  param wq, wk, wv: [d, d] = normal(d ** -0.5)
  param wr: [heads, d] = normal(0.5)
  split_heads = reshape(wq @ x, [heads, d / heads])
  rate = sigmoid(wr @ x)
  m.learn(unit(reshape(wk @ x, [heads, d / heads])), reshape(wv @ x, [heads, d / heads]), rate)
  y = reshape(m.read(split_heads), [d])
  return y + m.read(reshape(x, [heads, d / heads]))[0][0]
}
""",
    "shared state": """
memory Shared(d: dim = 3) {
  shared state c: [d] = 0
  state own: [d] = 1
  step(x: [d]) -> [d] {
    c <- 0.9 * c + own * x
    own <- 0.5 * own + c
    return own * c
  }
}
""",
    "chain of memories": """
memory Delta(d: dim) {
  state S: [d, d] = 0
  step(x: [d], rate: []) -> [d] {
    S <- S - rate * grad(0.5 * sum((S @ x - 2 * x)^2), S)
    return S @ x
  }
}
block Chain(x: [d], d: dim = 5) {
  memory a, b: Delta(d)
  param w: [d, d] = normal(0.4)
  y = a.step(x, 0.3)
  z = b.step(tanh(w @ y), 0.2)
  return x + y + a.S @ z
}
""",
    "convolution and gates": """
block Conv(x: [d], d: dim = 4, width: int = 3) {
  param w: [width, d] = normal(0.5)
  u = einsum("tn,tn->n", window(x, width), w)
  return u * sigmoid(prev(u)) + prev(x, 2) + sum(window_mask(width)) / (1 + clock())
}
""",
    "attention over a window": """
block Attention(x: [d], d: dim = 4, n: int = 5) {
  param wk, wv: [d, d] = normal(0.5)
  K = window(wk @ x, n)
  V = window(wv @ x, n)
  scores = K @ x - 1e9 * (1 - window_mask(n))
  return softmax(scores) @ V
}
""",
    "long window": """
memory Omega(d: dim = 3) {
  state S: [d, d] = 0
  step(k: [d], v: [d], gamma: []) -> [d] {
    S <- 0.9 * S - 0.1 * grad(sum(gamma[i] * 0.5 * sum((S @ k[i] - v[i])^2) for i in window(24)), S)
    return S @ k
  }
}
""",
    "two outputs and integers": """
model Pair(vocab: int = 7, d: dim = 4) {
  input token: int[]
  input x: [d]
  param table: [vocab, d] = normal(1.0)
  state count: [vocab] = 0
  e = table[token]
  count <- 0.9 * count + one_hot(token, vocab)
  return {e * x, clamp(count, 0.2, 1.5)}
}
""",
    "functions": """
block Functions(x: [d], y: [d], d: dim = 3) {
  a = exp(-abs(x)) + log1p(x^2) - expm1(0.1 * y) + sqrt(1 + y^2) * rsqrt(2 + x^2)
  b = sin(x) * cos(y) + tanh(x) - softplus(y) + relu(x) + silu(x) - gelu(y) + gelu_erf(x) + floor(3 * y)
  c = where(x > y, min(x, 0.5), max(y, -0.5)) + sign(x) * (x >= 0.1) + (x != y) - clamp(x, -0.3, 0.4)
  m = outer(x, y) + identity(d) * 5
  s = solve(m, x) + triangle(m) @ y + diag(x) @ y + trace(m) * x
  t = concat(x, y, axis = 0)
  u = sum(split(t, 2)[1]) + norm(x) + dot(x, y) + mean(x) + max(y) + logsumexp(x)
  v = cumsum(x) + softmax(y) + log_softmax(x) + t[1:4] + column(x)[1] * row(y)[0]
  w = transpose(stack(x, y)) @ iota(2) + (x > 0 and y < 0) + (x > 0 or not y < 0) + (d % 2) * x ** 3
  return a + b * c + s * u + v + w
}
""",
    "gradients of gradients": """
memory Meta(d: dim = 3) {
  state w: [d, d] = learned normal(0.5)
  step(k: [d], v: [d]) -> [d] {
    inner = grad(0.5 * sum((tanh(w @ k) - v)^2), w)
    w <- w - 0.1 * grad(0.5 * sum(((w - 0.2 * inner) @ k - v)^2), w)
    return w @ v
  }
}
""",
    "stopped gradients": """
memory Stopped(d: dim = 3) {
  state S: [d, d] = learned normal(0.5)
  step(k: [d], v: [d]) -> [d] {
    S <- S - 0.2 * stop_grad(grad(0.5 * sum((S @ k - v)^2), S))
    S <- where(clock(3) >= 3, stop_grad(S), S)
    return straight_through(sign(S @ v), tanh(S @ v))
  }
}
""",
    "optimizer inside a memory": """
memory Adam() {
  state m, v: like g = 0
  learn(g) -> like g {
    m <- 0.9 * m + 0.1 * g
    v <- 0.99 * v + 0.01 * g^2
    t = clock()
    return -0.1 * (m / (1 - 0.9 ^ t)) / (sqrt(v / (1 - 0.99 ^ t)) + 1e-3)
  }
}
memory WithAdam(d: dim = 3) {
  state S: [d, d] = 0
  optimizer opt: Adam()
  step(k: [d], v: [d]) -> [d] {
    S <- S + opt.learn(grad(0.5 * sum((S @ k - v)^2), S))
    return S @ k
  }
}
""",
    "language model": """
memory Delta(d: dim) {
  state S: [d, d] = 0
  step(q: [d], k: [d], v: [d], rate: []) -> [d] {
    S <- S - rate * grad(0.5 * sum((S @ k - v)^2), S)
    return S @ q
  }
}
model Lm(vocab: int = 7, d: dim = 6, layers: int = 2) {
  level outer_level = every 1 step
  input tokens: int[]
  param table: [vocab, d] = normal(1.0)
  param head: [vocab, d] = normal(0.5)
  x = table[tokens]
  repeat layers {
    memory m: Delta(d)
    param wk, wv: [d, d] = normal(0.4)
    x = x + m.step(x, unit(wk @ x), wv @ x, 0.5)
  }
  minimize cross_entropy(head @ x, next(tokens)) at outer_level
  return head @ x
}
""",
    "fast weights": """
fn descent(g: [...]) -> like g = -0.1 * g
memory Sgd(rate: real = 0.1) { learn(g) -> like g = -rate * g }
model Fast(vocab: int = 5, d: dim = 4) {
  level fast = every 3 token with Sgd(rate = 0.1)
  level outer_level = every 1 step
  input tokens: int[]
  param table: [vocab, d] = normal(1.0)
  param w: [d, d] = normal(0.5) at fast
  param head: [vocab, d] = normal(0.5)
  y = head @ tanh(w @ table[tokens])
  minimize cross_entropy(y, next(tokens)) at outer_level
  return y
}
""",
    "nothing but parameters": """
block Constant(x: [d], d: dim = 3) {
  param w: [d] = normal(1.0)
  state S: [d] = learned normal(0.5)
  state n: [] = 3
  return w * S + n
}
""",
}
