"""What can be sent and stored: text that has a form in bytes, and whole numbers of 64 bits."""

BITS = 64
"""Whole numbers travel in so many bits."""


def is_text(text: str) -> bool:
    """Whether text can be encoded: half of a character cannot, as a shell or JSON may give it."""
    # Most text: looked at without being copied.
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def fits(number: int) -> bool:
    """Whether a whole number has no more than 64 bits, its sign among them."""
    return -(1 << BITS - 1) <= number < 1 << BITS - 1
