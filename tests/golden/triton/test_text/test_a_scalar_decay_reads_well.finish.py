@triton.jit
def scan_M_fwd_finish(
    bounds_ptr,
    x_2_ptr,
    x_ptr,
    b_ptr,
    rate_ptr,
    c_ptr,
    y_ptr,
    M_begin_ptr,
    BT: tl.constexpr,
    REAL: tl.constexpr,
    DOT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """What is left when the carried values are known.

        M <- exp(-rate * exp(log_a)) * M - rate * grad(alignment(read(b), x), M)    (gated_linear.nl:45)

    Grid: (number of segments * lanes).
    Reads x_2 [T], x [T, 64], b [T, 64], rate [T], c [T, 64], M_begin [64, 64].
    Gives y [T, 64].
    """
    n = tl.program_id(0).to(tl.int64)
    first = tl.load(bounds_ptr + n)
    T = (tl.load(bounds_ptr + n + 1) - first).to(tl.int32)
    i_T = tl.arange(0, BT)
    in_T = i_T < T
    x_2 = tl.load(x_2_ptr + first + i_T, mask=in_T, other=0).to(REAL)
    x_2_since_begin = tl.cumprod(tl.where(in_T, x_2, 1.0), 0)
    c_at = c_ptr + first * 64
    i_64 = tl.arange(0, 64)
    M_begin_at = M_begin_ptr + n * (64 * 64)
    M_begin = tl.load(M_begin_at + (i_64[:, None] * 64 + i_64[None, :])).to(REAL)
    M_begin_low = M_begin.to(DOT)
    c = tl.load(c_at + (i_T[:, None] * 64 + i_64[None, :]), mask=in_T[:, None], other=0).to(REAL)
    c_low = c.to(DOT)
    c_M = tl.dot(c_low, tl.trans(M_begin_low), input_precision=PRECISION, out_dtype=REAL)
    x_2_between = products_between(x_2, T, BT)
    b_at = b_ptr + first * 64
    b = tl.load(b_at + (i_T[:, None] * 64 + i_64[None, :]), mask=in_T[:, None], other=0).to(REAL)
    c_b = tl.dot(c_low, tl.trans(b.to(DOT)), input_precision=PRECISION, out_dtype=REAL)
    x_at = x_ptr + first * 64
    rate = tl.load(rate_ptr + first + i_T, mask=in_T, other=0).to(REAL)
    x = tl.load(x_at + (i_T[:, None] * 64 + i_64[None, :]), mask=in_T[:, None], other=0).to(REAL)
    c_b_x_2_between_low = (x_2_between * c_b).to(DOT)
    x_rate_low = (x * rate[:, None]).to(DOT)
    y = tl.dot(c_b_x_2_between_low, x_rate_low, input_precision=PRECISION, out_dtype=REAL)
    y_2 = x_2_since_begin[:, None] * c_M + y
    y_at = y_ptr + first * 64
    tl.store(y_at + (i_T[:, None] * 64 + i_64[None, :]), y_2, mask=in_T[:, None])
