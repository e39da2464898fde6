"""Functions that kernels call, copied into the modules that need them. Matrices come as stacks: [Z, N, N].

Decays may have any sign and size: nothing divides by a product or takes the logarithm of a factor.
"""

# mypy: ignore-errors

import triton
import triton.language as tl


@triton.jit
def log1p(x):
    """log(1 + x) without loss for small x."""
    u = 1.0 + x
    return tl.where(u == 1.0, x, tl.log(u) * (x / tl.where(u == 1.0, 1.0, u - 1.0)))


@triton.jit
def expm1(x):
    """exp(x) - 1 without loss for small x."""
    u = tl.exp(x)
    small = tl.abs(x) < 0.5
    safe = tl.where(small & (u != 1.0), u, 2.0)
    return tl.where(small, tl.where(u == 1.0, x, (safe - 1.0) * (x / tl.log(safe))), u - 1.0)


@triton.jit
def tanh(x):
    """tanh without loss for small x."""
    e = expm1(-2.0 * tl.abs(x))
    y = -e / (2.0 + e)
    return tl.where(x < 0, -y, y)


@triton.jit
def softplus(x):
    """log(1 + exp(x))."""
    return tl.maximum(x, 0.0) + log1p(tl.exp(-tl.abs(x)))


@triton.jit
def arctan(x):
    """The angle, from an eighth of it: arctan z = 2 arctan (z / (1 + sqrt(1 + z^2))), then its series."""
    large = tl.abs(x) > 1.0
    z = tl.where(large, 1.0 / tl.where(large, x, 1.0), x)
    z = z / (1.0 + tl.sqrt(1.0 + z * z))
    z = z / (1.0 + tl.sqrt(1.0 + z * z))
    z = z / (1.0 + tl.sqrt(1.0 + z * z))
    y = z * z
    rest = 1.0 / 9.0 - y * (1.0 / 11.0 - y * (1.0 / 13.0 - y * (1.0 / 15.0)))
    angle = 8.0 * z * (1.0 - y * (1.0 / 3.0 - y * (1.0 / 5.0 - y * (1.0 / 7.0 - y * rest))))
    right = tl.where(x > 0.0, 1.0, -1.0).to(x.dtype) * 1.5707963267948966
    return tl.where(large, right - angle, angle)


@triton.jit
def modulo(x, y):
    """The remainder, with the sign of y."""
    return x - tl.floor(x / y) * y


@triton.jit
def power(x, y):
    """x ** y, also of a negative x with a whole y."""
    y = tl.where(x == x, y, y)  # of x's shape: the interpreter does not stretch a condition that is a number
    size = tl.exp(y * tl.log(tl.where(x == 0.0, 1.0, tl.abs(x))))
    odd = (tl.floor(y) - 2.0 * tl.floor(tl.floor(y) / 2.0)) != 0.0
    value = tl.where((x < 0.0) & odd, -size, size)
    value = tl.where((x < 0.0) & (tl.floor(y) != y), float("nan"), value)
    return tl.where(x == 0.0, tl.where(y == 0.0, 1.0, tl.where(y < 0.0, float("inf"), 0.0)), value)


@triton.jit
def rounded(x, DOT: tl.constexpr):
    """``x.to(DOT)``, done where ``x`` lies. The condition always holds, but the compiler, which moves what is only made
    of loads to where a product reads it, does not look behind it."""
    here = tl.arange(0, x.shape[len(x.shape) - 1]) >= 0
    return tl.where(here, x, 0.0).to(DOT)


@triton.jit
def rest(x, DOT: tl.constexpr):
    """What rounding leaves of ``x``, rounded: with both ``x`` has as many bits again."""
    return rounded(x - rounded(x, DOT).to(x.dtype), DOT)


@triton.jit
def with_rest(product, a, b, REAL: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr):
    """``product + a @ b``, where one of the two is the rest of an operand, for bfloat16: others have more bits."""
    if tl.bfloat16 == DOT:
        product = tl.dot(a, b, product, input_precision=PRECISION, out_dtype=REAL)
    return product


@triton.jit
def unseen(column, T, BV: tl.constexpr):
    """``column``, for ``T`` is not negative, which the compiler does not know: where it sees how a loop goes on, it
    keeps for each piece of each tile an address that it increases, two registers from the kernel's beginning on."""
    return tl.multiple_of(column ^ tl.minimum(T, 0), BV)


@triton.jit
def solution(a, b, n, N: tl.constexpr):
    """[Z, N, N], [Z, N, M] -> [Z, N, M]: the solutions of systems of n unknowns, whose padding is 0.

    Gauss-Jordan elimination with partial pivots: the rows are changed by the largest entry from the diagonal on."""
    row = tl.arange(0, N)[None, :, None]
    column = tl.arange(0, N)[None, None, :]
    for p in range(n):
        entries = tl.sum(tl.where(column == p, a, 0.0), 2)
        size = tl.where((tl.arange(0, N) >= p)[None, :], tl.abs(entries), -1.0)
        pivot = tl.argmax(size, 1)[:, None, None]
        lower_a = tl.sum(tl.where(row == p, a, 0.0), 1)[:, None, :]
        lower_b = tl.sum(tl.where(row == p, b, 0.0), 1)[:, None, :]
        upper_a = tl.sum(tl.where(row == pivot, a, 0.0), 1)[:, None, :]
        upper_b = tl.sum(tl.where(row == pivot, b, 0.0), 1)[:, None, :]
        a = tl.where(row == pivot, lower_a, a)
        b = tl.where(row == pivot, lower_b, b)
        scale = tl.sum(tl.where(column == p, upper_a, 0.0), 2)[:, :, None]
        upper_a = upper_a / scale
        upper_b = upper_b / scale
        factor = tl.sum(tl.where(column == p, a, 0.0), 2)[:, :, None]
        a = tl.where(row == p, upper_a, a - factor * upper_a)
        b = tl.where(row == p, upper_b, b - factor * upper_b)
    return b


@triton.jit
def times(
    a,
    b,
    Z: tl.constexpr,
    M: tl.constexpr,
    K: tl.constexpr,
    N: tl.constexpr,
    REAL: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """[Z, M, K] @ [Z, K, N], summed in REAL."""
    if Z == 1:
        product = tl.dot(tl.reshape(a, (M, K)), tl.reshape(b, (K, N)), input_precision=PRECISION, out_dtype=REAL)
        return tl.reshape(product, (1, M, N))
    return tl.dot(a, b, input_precision=PRECISION, out_dtype=REAL)


@triton.jit
def small_inverses(a, Z: tl.constexpr, N: tl.constexpr, REAL: tl.constexpr):
    """[Z, N, N] -> [Z, N, N]: the inverses of its diagonal blocks of 16, by substitution, and 0 elsewhere."""
    M: tl.constexpr = N // 16
    block = tl.arange(0, M)
    r = tl.arange(0, 16)
    same = block[:, None] == block[None, :]
    parts = tl.where(same[None, :, None, :, None], tl.reshape(a, (Z, M, 16, M, 16)), 0.0)
    lower = tl.where((r[:, None] > r[None, :])[None, None, :, :], -tl.sum(parts, 3), 0.0)
    inverse = lower
    for i in range(2, 16):
        row = tl.sum(tl.where((r == i)[None, None, :, None], lower, 0.0), 2)
        new = row + tl.sum(row[:, :, :, None] * inverse, 2)
        inverse = tl.where((r == i)[None, None, :, None], new[:, :, None, :], inverse)
    inverse += tl.where(r[:, None] == r[None, :], 1.0, 0.0)[None, None, :, :]
    whole = tl.where(same[None, :, None, :, None], inverse[:, :, :, None, :], 0.0)
    return tl.reshape(whole, (Z, N, N)).to(REAL)


@triton.jit
def joined_inverses(
    a, inverse, Z: tl.constexpr, N: tl.constexpr, H: tl.constexpr, REAL: tl.constexpr, PRECISION: tl.constexpr
):
    """[Z, N, N]: the inverses of the diagonal blocks of ``2 * H``, from those of their two halves and what is between
    these in ``a``. Only those blocks are multiplied: products of whole matrices, mostly zeros, fill all registers."""
    P: tl.constexpr = N // (2 * H)
    pair = tl.arange(0, P)
    half = tl.arange(0, 2)
    same = (pair[:, None] == pair[None, :])[None, :, None, None, :, None, None]
    row = half[None, None, :, None, None, None, None]
    column = half[None, None, None, None, None, :, None]
    blocks = tl.reshape(a, (Z, P, 2, H, P, 2, H))
    known = tl.reshape(inverse, (Z, P, 2, H, P, 2, H))
    corner = same & (row == 1) & (column == 0)
    between = tl.sum(tl.sum(tl.sum(tl.where(corner, blocks, 0.0), 5), 4), 2)
    upper = tl.sum(tl.sum(tl.sum(tl.where(same & (row == 0) & (column == 0), known, 0.0), 5), 4), 2)
    lower = tl.sum(tl.sum(tl.sum(tl.where(same & (row == 1) & (column == 1), known, 0.0), 5), 4), 2)
    between = tl.reshape(between, (Z * P, H, H))
    upper = tl.reshape(upper, (Z * P, H, H))
    lower = tl.reshape(lower, (Z * P, H, H))
    part = times(lower, between, Z * P, H, H, H, REAL, PRECISION)
    new = tl.reshape(times(part, upper, Z * P, H, H, H, REAL, PRECISION), (Z, P, 1, H, 1, 1, H))
    return tl.reshape(tl.where(corner, -new, known), (Z, N, N))


@triton.jit
def triangular_inverse(
    a, Z: tl.constexpr, N: tl.constexpr, LEVELS: tl.constexpr, REAL: tl.constexpr, PRECISION: tl.constexpr
):
    """The inverse of [Z, N, N], unit lower triangular: its diagonal and upper part are not read.

    Blocks of 16 on the diagonal, then blocks of twice the size from two inverses and what is between them, which is as
    stable as substitution."""
    inverse = small_inverses(a, Z, N, REAL)
    for level in tl.static_range(4, LEVELS):
        inverse = joined_inverses(a, inverse, Z, N, 1 << level, REAL, PRECISION)
    return inverse


@triton.jit
def products_between(a, T, N: tl.constexpr):
    """[N] -> [N, N]: entry t, s is a[s+1] * .. * a[t] for s <= t, and 0 above and from T on.

    The factors are taken from a diagonal by a sum, which the compiler does not copy: else it would do the scan again
    for each layout in which something reads the table (three times for a derivative), and hold all of them."""
    t = tl.arange(0, N)[:, None]
    s = tl.arange(0, N)[None, :]
    a = tl.sum(tl.where(t == s, a[None, :], 0.0), 1)
    factor = tl.where(t > s, a[:, None], 1.0)
    return tl.where((t >= s) & (t < T), tl.cumprod(factor, 0), 0.0)


@triton.jit
def products_between_columns(a, T, N: tl.constexpr):
    """[N, K] -> [N, N, K], column by column."""
    t = tl.arange(0, N)[:, None, None]
    s = tl.arange(0, N)[None, :, None]
    factor = tl.where(t > s, a[:, None, :], 1.0)
    return tl.where((t >= s) & (t < T), tl.cumprod(factor, 0), 0.0)


@triton.jit
def shifted(x, by, low, high, fill, Z: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
    """[Z, N, K]: entry i is entry i + by where low <= i < high, else ``fill``."""
    row = tl.arange(0, N)[None, :, None]
    source = tl.minimum(tl.maximum(row + by, 0), N - 1)
    y = tl.gather(x, tl.broadcast_to(source, (Z, N, K)), 1)
    return tl.where((row >= low) & (row < high), y, fill)


@triton.jit
def after(a_one, b_one, a_two, b_two):
    """x -> a_one x + b_one, then x -> a_two x + b_two."""
    return a_one * a_two, b_one * a_two + b_two


@triton.jit
def decays_in_blocks(a, later, level, N: tl.constexpr):
    """[Z, N, K]: the products from the first tick of a block of 2**level ticks to each one, and from behind each one to
    the last: ``later`` is ``a`` of the tick after."""
    tick = tl.arange(0, N)[None, :, None]
    first = (tick & ((1 << level) - 1)) == 0
    last = (tick & ((1 << level) - 1)) == (1 << level) - 1
    pair = tl.where(first, 0.0, a), tl.where(first, a, 0.0)
    before = tl.associative_scan(pair, 1, after)[1]
    pair = tl.where(last, 0.0, later), tl.broadcast_to(tl.where(last, 1.0, 0.0).to(a.dtype), a.shape)
    return before, tl.associative_scan(pair, 1, after, reverse=True)[1]


@triton.jit
def decay_gram_narrow(
    q,
    a,
    k,
    T,
    Z: tl.constexpr,
    N: tl.constexpr,
    K: tl.constexpr,
    LEVELS: tl.constexpr,
    REAL: tl.constexpr,
    DOT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """``decay_gram`` of as many columns as registers hold at once.

    Pairs of ticks by the size of the block at which they part: products of q with the decays since the beginning of its
    half, and of k with those to the end of its half."""
    row = tl.arange(0, N)[:, None]
    column = tl.arange(0, N)[None, :]
    later = shifted(a, 1, 0, T - 1, 1.0, Z, N, K)
    gram = tl.where((row == column)[None, :, :], tl.sum(q * k, 2)[:, :, None], 0.0)
    for level in range(LEVELS):
        before, behind = decays_in_blocks(a, later, level, N)
        left, right = (q * before).to(DOT), tl.permute((k * behind).to(DOT), (0, 2, 1))
        part = times(left, right, Z, N, K, N, REAL, PRECISION)
        half = ((row >> level) == (column >> level) + 1) & ((row >> level) % 2 == 1)
        gram += tl.where(half[None, :, :], part, 0.0)
    return gram


@triton.jit
def decay_gram(
    q,
    a,
    k,
    T,
    Z: tl.constexpr,
    N: tl.constexpr,
    K: tl.constexpr,
    LEVELS: tl.constexpr,
    REAL: tl.constexpr,
    DOT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """[Z, N, K] -> [Z, N, N]: entry t, s <= t is the sum over K of q[t] * a[s+1] * .. * a[t] * k[s]."""
    if K > 64:
        q_even, q_odd = tl.split(tl.reshape(q, (Z, N, K // 2, 2)))
        a_even, a_odd = tl.split(tl.reshape(a, (Z, N, K // 2, 2)))
        k_even, k_odd = tl.split(tl.reshape(k, (Z, N, K // 2, 2)))
        gram = decay_gram_narrow(q_even, a_even, k_even, T, Z, N, K // 2, LEVELS, REAL, DOT, PRECISION)
        gram += decay_gram_narrow(q_odd, a_odd, k_odd, T, Z, N, K // 2, LEVELS, REAL, DOT, PRECISION)
    else:
        gram = decay_gram_narrow(q, a, k, T, Z, N, K, LEVELS, REAL, DOT, PRECISION)
    return gram


@triton.jit
def decay_gram_grad(
    d,
    q,
    a,
    k,
    T,
    Z: tl.constexpr,
    N: tl.constexpr,
    K: tl.constexpr,
    LEVELS: tl.constexpr,
    REAL: tl.constexpr,
    DOT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The cotangents of q, a and k where ``decay_gram(q, a, k)`` has the cotangent d: [Z, N, N].

    Level by level, as there. The cotangent of a decay is the product of those before it in its half, times what comes
    back from the ticks behind it by a scan: nothing is divided by a decay."""
    row = tl.arange(0, N)[:, None]
    column = tl.arange(0, N)[None, :]
    tick = tl.arange(0, N)[None, :, None]
    later = shifted(a, 1, 0, T - 1, 1.0, Z, N, K)
    own = tl.sum(tl.where((row == column)[None, :, :], d, 0.0), 2)[:, :, None]
    dq = own * k
    dk = own * q
    da = tl.zeros((Z, N, K), REAL)
    for level in range(LEVELS):
        before, behind = decays_in_blocks(a, later, level, N)
        half = ((row >> level) == (column >> level) + 1) & ((row >> level) % 2 == 1)
        part = tl.where(half[None, :, :], d, 0.0).to(DOT)
        d_left = times(part, (k * behind).to(DOT), Z, N, N, K, REAL, PRECISION)
        dq += d_left * before
        last = (tick & ((1 << level) - 1)) == (1 << level) - 1
        back = tl.associative_scan((tl.where(last, 0.0, later), d_left * q), 1, after, reverse=True)[1]
        first = (tick & ((1 << level) - 1)) == 0
        da += tl.where(first, 1.0, shifted(before, -1, 1, N, 1.0, Z, N, K)) * back
    for level in range(LEVELS):  # a loop of its own: together they need too many registers
        before, behind = decays_in_blocks(a, later, level, N)
        half = ((row >> level) == (column >> level) + 1) & ((row >> level) % 2 == 1)
        part = tl.where(half[None, :, :], d, 0.0).to(DOT)
        d_right = times(tl.permute(part, (0, 2, 1)), (q * before).to(DOT), Z, N, N, K, REAL, PRECISION)
        dk += d_right * behind
        first = (tick & ((1 << level) - 1)) == 0
        ahead = tl.associative_scan((tl.where(first, 0.0, a), d_right * k), 1, after)[1]
        da += behind * tl.where(first, 0.0, shifted(ahead, -1, 1, N, 0.0, Z, N, K))
    return dq, da, dk
