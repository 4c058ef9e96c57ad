"""Notices that a machine is about to go: from a file, a URL, or a cloud's metadata service.

Each source is polled until one of them says how many seconds are left. Addresses and answers are as
the providers document them: AWS "instance-action" (IMDSv2), Google Cloud "preempted", Azure
"Scheduled Events".
"""

import asyncio
import contextlib
import functools
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
from http import HTTPStatus
from pathlib import Path
from typing import Any, ClassVar

from romul_actors.errors import RomulError
from romul_workers.detached import detached

log = logging.getLogger("romul.worker")

POLL_S = 2.0
TIMEOUT_S = 1.0
"""How long a server may be silent."""
LIMIT_S = 10.0
"""How long a source may take in all, until it counts as one that does not answer."""
METADATA = "http://169.254.169.254"


class NoticeError(RomulError, ValueError):
    """Not a source of notices."""


class Source(ABC):
    """A source of notices that this machine goes."""

    @abstractmethod
    def seconds_left(self) -> float | None:
        """Seconds left; None: nothing is known of an end. May take long.

        Raises:
            OSError: the source does not answer, or refuses.
        """


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
        answer = _find(self.url)
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
        authorization = {"X-aws-ec2-metadata-token": token}
        # As long as the machine stays, there is no such entry.
        answer = _find(f"{self.base}/latest/meta-data/spot/instance-action", authorization)
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
        return self.seconds if answer.strip().upper() == "TRUE" else None


@dataclass(frozen=True)
class AzureSource(Source):
    """Azure spot machines: half a minute's notice or more."""

    base: str = METADATA
    seconds: float = 30.0

    ENDS: ClassVar = ("Preempt", "Terminate")

    def seconds_left(self) -> float | None:
        """Request the scheduled events, and look for the first that ends this machine.

        They are those of all machines of a scale set or an availability set.
        """
        name = self._name
        answer = self._ask("scheduledevents?api-version=2020-07-01")
        ends: list[float] = []
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
            for event in json.loads(answer)["Events"]:
                resources = [resource.casefold() for resource in event["Resources"]]
                if event["EventType"] in self.ENDS and name in resources:
                    ends.append(self._until_begin(event))
        return min(ends, default=None)

    @functools.cached_property
    def _name(self) -> str:
        """This machine's name, as events have it among their resources; case does not count."""
        asked = "instance/compute/name?api-version=2021-02-01&format=text"
        return self._ask(asked).strip().casefold()

    def _ask(self, what: str) -> str:
        return _get(f"{self.base}/metadata/{what}", {"Metadata": "true"})

    def _until_begin(self, event: Mapping[str, Any]) -> float:
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
            # Empty once it has begun.
            return _until(parsedate_to_datetime(event["NotBefore"]))
        return self.seconds


CLOUDS: Mapping[str, Callable[[], Source]] = {
    "aws": AwsSource,
    "gcp": GcpSource,
    "azure": AzureSource,
}


_KINDS = f"{', '.join(CLOUDS)}, an http(s) URL or a file's path"


def source(text: str, seconds: float) -> Source:
    """Make a source of aws, gcp, azure, a URL, or a file's path.

    A file need not be there yet. A plain word is one only if it is: else it is a misspelt name.

    Raises:
        NoticeError: it is none of them.
    """
    if text in CLOUDS:
        return CLOUDS[text]()
    if text.startswith(("http://", "https://")):
        return UrlSource(text, seconds)
    path = Path(text)
    if "://" in text or not text:
        raise NoticeError(f"{text!r} is not {_KINDS}")
    if not set(text) & set("/.") and not path.exists():
        raise NoticeError(f"{text!r} is not {_KINDS}; a file that is to appear here is ./{text}")
    return FileSource(path, seconds)


async def watch(
    sources: list[Source],
    announce: Callable[[float], None],
    every_s: float = POLL_S,
    limit_s: float = LIMIT_S,
) -> None:
    """Poll all sources until one of them has a notice, and pass the seconds on.

    Whatever a source answers, and however slowly, it keeps no notice of another one. One that does
    not answer is a warning once, until it answers again.
    """
    polls = [asyncio.create_task(_poll(each, every_s, limit_s)) for each in sources]
    try:
        done, _ = await asyncio.wait(polls, return_when=asyncio.FIRST_COMPLETED)
        announce(min(poll.result() for poll in done))
    finally:
        for poll in polls:
            poll.cancel()
        await asyncio.gather(*polls, return_exceptions=True)


async def _poll(source: Source, every_s: float, limit_s: float) -> float:
    """Poll one source until it has a notice; the seconds left."""
    failing = False

    def warn(what: str, why: object) -> None:
        nonlocal failing
        level = logging.DEBUG if failing else logging.WARNING
        log.log(level, "no notice can come: %s %s: %s", source, what, why)
        failing = True

    while True:
        # An answer may come byte by byte for hours: the worker's end waits for no such thread.
        request = asyncio.create_task(detached(source.seconds_left))
        try:
            if not (await asyncio.wait([request], timeout=limit_s))[0]:
                warn("does not answer", f"not within {limit_s:g} s")
            # No other request while this one is under way: they would only become more.
            seconds = await request
        except Exception as error:  # noqa: BLE001  (what a server sends is anything)
            silent = isinstance(error, OSError)
            warn("does not answer" if silent else "cannot be understood", repr(error))
        else:
            if failing:
                log.info("%s answers again", source)
                failing = False
            if seconds is not None:
                return seconds
        finally:
            request.cancel()
        await asyncio.sleep(every_s)


def _get(url: str, headers: Mapping[str, str] | None = None, method: str = "GET") -> str:
    """Body of the answer.

    Raises:
        OSError: there is none, or the status is none of success.
    """
    request = urllib.request.Request(url, headers=dict(headers or {}), method=method)  # noqa: S310
    # The metadata service is never behind a proxy.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=TIMEOUT_S) as answer:
            return str(answer.read(65_536).decode(errors="replace"))
    except urllib.error.HTTPError as error:
        # Else its connection would stay open for as long as the error is known.
        error.close()
        raise


def _find(url: str, headers: Mapping[str, str] | None = None) -> str | None:
    """Body of the answer; None if there is nothing of that name.

    Raises:
        OSError: there is no answer, or the status is another one.
    """
    try:
        return _get(url, headers)
    except urllib.error.HTTPError as error:
        if error.code == HTTPStatus.NOT_FOUND:
            return None
        raise


def _seconds(text: str, default: float) -> float:
    with contextlib.suppress(ValueError):
        if math.isfinite(seconds := float(text)):
            return max(0.0, seconds)
    return default


def _until(moment: datetime) -> float:
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
