"""Hashes of checkpoint files: BLAKE3, which is several times as fast as SHA-256."""

from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3


@dataclass(frozen=True, slots=True)
class Written:
    """Length, hash and modification time of a file when it was hashed.

    Attributes:
        bytes: length of the file.
        blake3: its hash, hexadecimal.
        mtime_ns: modification time, in nanoseconds since the epoch.
    """

    bytes: int
    blake3: str
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> "Written":
        """Hash a file on all cores."""
        stat = path.stat()
        hasher = blake3(max_threads=blake3.AUTO)
        if stat.st_size:
            hasher.update_mmap(path)
        return cls(stat.st_size, hasher.hexdigest(), stat.st_mtime_ns)

    def describes(self, path: Path) -> bool:
        """Whether a file still has this length and modification time."""
        stat = path.stat()
        return (stat.st_size, stat.st_mtime_ns) == (self.bytes, self.mtime_ns)
