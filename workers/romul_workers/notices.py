"""Notices that a machine is about to go: from a file, a URL, or a cloud's metadata service.

Each source is polled until one of them says how many seconds are left. Addresses and answers are as
the providers document them: AWS "instance-action" (IMDSv2), Google Cloud "preempted", Azure
"Scheduled Events".
"""

import asyncio
import contextlib
import json
import logging
import math
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import ClassVar

from romul_actors.errors import RomulError

log = logging.getLogger("romul.worker")

POLL_S = 2.0
TIMEOUT_S = 1.0
METADATA = "http://169.254.169.254"


class NoticeError(RomulError, ValueError):
    """Not a source of notices."""


class Source(ABC):
    """A source of notices that this machine goes."""

    @abstractmethod
    def seconds_left(self) -> float | None:
        """Seconds left; None: nothing is known of an end. May take a second."""


@dataclass(frozen=True)
class FileSource(Source):
    """A file whose existence is the notice; the seconds left may stand in it.

    Attributes:
        path: the file.
        seconds: what is left if the file does not say.
    """

    path: Path
    seconds: float

    def seconds_left(self) -> float | None:
        """Read the file, if it is there."""
        try:
            return _seconds(self.path.read_text(errors="replace"), self.seconds)
        except FileNotFoundError:
            return None


@dataclass(frozen=True)
class UrlSource(Source):
    """A URL whose answer 200 is the notice; the seconds left may stand in it.

    Attributes:
        url: http:// or https://.
        seconds: what is left if the answer does not say.
    """

    url: str
    seconds: float

    def seconds_left(self) -> float | None:
        """Request the URL once."""
        answer = _get(self.url)
        return None if answer is None else _seconds(answer, self.seconds)


@dataclass(frozen=True)
class AwsSource(Source):
    """Amazon EC2 spot instances: two minutes' notice."""

    base: str = METADATA
    seconds: float = 120.0

    def seconds_left(self) -> float | None:
        """Request the instance action, with a session token (IMDSv2)."""
        headers = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
        token = _get(f"{self.base}/latest/api/token", headers, method="PUT")
        authorization = {"X-aws-ec2-metadata-token": token} if token else {}
        answer = _get(f"{self.base}/latest/meta-data/spot/instance-action", authorization)
        if answer is None:
            return None
        with contextlib.suppress(ValueError, KeyError, TypeError):
            return _until(datetime.fromisoformat(json.loads(answer)["time"]))
        return self.seconds


@dataclass(frozen=True)
class GcpSource(Source):
    """Google Cloud preemptible and spot machines: half a minute's notice."""

    base: str = "http://metadata.google.internal"
    seconds: float = 30.0

    def seconds_left(self) -> float | None:
        """Request whether the machine is being preempted."""
        url = f"{self.base}/computeMetadata/v1/instance/preempted"
        answer = _get(url, {"Metadata-Flavor": "Google"})
        return self.seconds if (answer or "").strip().upper() == "TRUE" else None


@dataclass(frozen=True)
class AzureSource(Source):
    """Azure spot machines: half a minute's notice or more."""

    base: str = METADATA
    seconds: float = 30.0

    ENDS: ClassVar = ("Preempt", "Terminate")

    def seconds_left(self) -> float | None:
        """Request the scheduled events, and look for one that ends the machine."""
        url = f"{self.base}/metadata/scheduledevents?api-version=2020-07-01"
        answer = _get(url, {"Metadata": "true"})
        events = []
        with contextlib.suppress(ValueError, KeyError, TypeError):
            events = json.loads(answer or "{}")["Events"]
            events = [event for event in events if event["EventType"] in self.ENDS]
        if not events:
            return None
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
            # Empty once it has begun.
            return _until(parsedate_to_datetime(events[0]["NotBefore"]))
        return self.seconds


CLOUDS: Mapping[str, Callable[[], Source]] = {
    "aws": AwsSource,
    "gcp": GcpSource,
    "azure": AzureSource,
}


def source(text: str, seconds: float) -> Source:
    """Make a source of aws, gcp, azure, a URL, or a file's path.

    Raises:
        NoticeError: it is none of them.
    """
    if text in CLOUDS:
        return CLOUDS[text]()
    if text.startswith(("http://", "https://")):
        return UrlSource(text, seconds)
    if "://" in text or not text:
        raise NoticeError(f"{text!r} is not aws, gcp, azure, an http(s) URL or a file's path")
    return FileSource(Path(text), seconds)


async def watch(
    sources: list[Source], announce: Callable[[float], None], every_s: float = POLL_S
) -> None:
    """Poll all sources until one of them has a notice, and pass the seconds on.

    Whatever a source answers, it keeps no notice of another one.
    """
    odd: set[Source] = set()
    while True:
        for each in sources:
            try:
                seconds = await asyncio.to_thread(each.seconds_left)
            except OSError as error:
                log.debug("no answer of %s: %s", each, error)
                continue
            except Exception as error:  # noqa: BLE001  (what a server sends is anything)
                level = logging.DEBUG if each in odd else logging.WARNING
                log.log(level, "%s cannot be understood: %r", each, error)
                odd.add(each)
                continue
            if seconds is not None:
                announce(seconds)
                return
        await asyncio.sleep(every_s)


def _get(url: str, headers: Mapping[str, str] | None = None, method: str = "GET") -> str | None:
    """Body of the answer; None if there is none of that name."""
    request = urllib.request.Request(url, headers=dict(headers or {}), method=method)  # noqa: S310
    # The metadata service is never behind a proxy.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=TIMEOUT_S) as answer:
            return str(answer.read(65_536).decode(errors="replace"))
    except urllib.error.HTTPError:
        return None


def _seconds(text: str, default: float) -> float:
    with contextlib.suppress(ValueError):
        if math.isfinite(seconds := float(text)):
            return max(0.0, seconds)
    return default


def _until(moment: datetime) -> float:
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
