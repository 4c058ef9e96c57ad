"""Checks whether values can be sent and stored: encodable text and 64-bit integers."""

BITS = 64
"""Size of integers in messages."""


def is_text(text: str) -> bool:
    """Whether text can be encoded as UTF-8. A lone surrogate, as in some JSON, cannot."""
    # The common case, checked without a copy.
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def fits(number: int) -> bool:
    """Whether an integer fits into 64 bits, including its sign."""
    return -(1 << BITS - 1) <= number < 1 << BITS - 1
