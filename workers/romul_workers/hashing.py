"""Hashes of checkpoint files: BLAKE3, a tree hash, several times as fast as SHA-256."""

from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3


@dataclass(frozen=True, slots=True)
class Written:
    """A file as it was when it was hashed.

    Attributes:
        bytes: its length.
        blake3: its hash, hexadecimal.
        mtime_ns: when it was last changed, in nanoseconds since the epoch.
    """

    bytes: int
    blake3: str
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> "Written":
        """Hash a file, with all cores."""
        stat = path.stat()
        hasher = blake3(max_threads=blake3.AUTO)
        if stat.st_size:
            hasher.update_mmap(path)
        return cls(stat.st_size, hasher.hexdigest(), stat.st_mtime_ns)

    def describes(self, path: Path) -> bool:
        """Whether a file has the length and the time of change that it had then."""
        stat = path.stat()
        return (stat.st_size, stat.st_mtime_ns) == (self.bytes, self.mtime_ns)
