"""How many tokens of a long text one call reads."""


def whole_chunks(num_tokens: int, chunk_size: int) -> int:
    """Round a number of tokens down to whole chunks of `chunk_size` - 1; below one it stays.

    A segment of whole chunks ends where a chunk does, so that the next one begins with a chunk and
    is planned as the one before: the results are the same, the host has less to do.
    """
    return num_tokens - num_tokens % (chunk_size - 1) or num_tokens
