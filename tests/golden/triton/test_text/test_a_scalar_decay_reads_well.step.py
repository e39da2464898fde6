@triton.jit
def scan_M_fwd_step(
    cuts_ptr,
    M_ptr,
    M_out_ptr,
    x_2_since_begin_kept_ptr,
    M_next_kept_ptr,
    M_begin_ptr,
    BV: tl.constexpr,
    REAL: tl.constexpr,
):
    """The loop over the segments of a sequence.

        M <- exp(-rate * exp(log_a)) * M - rate * grad(alignment(read(b), x), M)    (gated_linear.nl:45)

    Grid: (number of sequences * lanes, 64 / BV columns). A program goes from the first segment to the last.
    Reads M [64, 64], x_2_since_begin_kept [1], M_next_kept [64, 64].
    Gives M_out [64, 64].
    Leaves M_begin [64, 64] for scan_M_fwd_finish, the way back.
    """
    sequence = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BV
    i_v = column + tl.arange(0, BV)
    i_64 = tl.arange(0, 64)
    M = tl.load(M_ptr + sequence * 4096 + (i_v[:, None] * 64 + i_64[None, :])).to(REAL)
    low = tl.load(cuts_ptr + sequence)
    high = tl.load(cuts_ptr + sequence + 1)
    for n in range(low, high):
        tl.store(M_begin_ptr + n * (64 * 64) + (i_v[:, None] * 64 + i_64[None, :]), M)
        x_2_since_begin = tl.load(x_2_since_begin_kept_ptr + n).to(REAL)
        M_next_kept_at = M_next_kept_ptr + n * (64 * 64)
        M_next = tl.load(M_next_kept_at + (i_v[:, None] * 64 + i_64[None, :])).to(REAL)
        M = M * x_2_since_begin + M_next
    tl.store(M_out_ptr + sequence * 4096 + (i_v[:, None] * 64 + i_64[None, :]), M)
