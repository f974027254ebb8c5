"""How many tokens of a long text one call reads."""

# a segment may be longer than was asked for by this part of it
MORE = 1 / 16


def whole_chunks(num_tokens: int, chunk_size: int) -> int:
    """Round a number of tokens to whole chunks of `chunk_size` - 1; below one it stays.

    A segment of whole chunks ends where a chunk does, so that the next one begins with a chunk and
    is planned as the one before: the results are the same, the host has less to do. The number is
    rounded up where that adds little: a text of 64K tokens in segments of 64K is then read in one
    call instead of two, the second of which would be as much work for the host as the first.
    """
    whole = chunk_size - 1
    rest = num_tokens % whole
    if num_tokens < whole or not rest:
        return num_tokens
    missing = whole - rest
    return num_tokens + missing if missing <= MORE * num_tokens else num_tokens - rest
