"""Notices of preemption: from a file, a URL, or a cloud's metadata service.

All sources are polled until one of them says how many seconds are left. The addresses and answers
are those that the providers document: AWS "instance-action" (IMDSv2), Google Cloud "preempted",
Azure "Scheduled Events".
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
from romul_actors.waiting import cancel
from romul_workers.checkpoints.detached import detached

log = logging.getLogger("romul.worker")

POLL_S = 2.0
TIMEOUT_S = 1.0
"""Longest silence of a server during a request, in seconds."""
LIMIT_S = 10.0
"""Longest time for a whole answer of a source, in seconds."""
METADATA = "http://169.254.169.254"


class NoticeError(RomulError, ValueError):
    """A text that does not name a source of notices."""


class Source(ABC):
    """A source of preemption notices for this machine."""

    @abstractmethod
    def seconds_left(self) -> float | None:
        """Ask the source for the seconds left; None: there is no notice. This call may take long.

        Raises:
            OSError: the source does not answer, or refuses.
        """


@dataclass(frozen=True)
class FileSource(Source):
    """A file whose existence is the notice; it may contain the seconds left.

    Attributes:
        path: the file.
        seconds: seconds left, if the file does not say.
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
    """A URL whose answer with status 200 is the notice; it may contain the seconds left.

    Attributes:
        url: http:// or https://.
        seconds: seconds left, if the answer does not say.
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
        # There is no such entry until the machine is about to be stopped.
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
        """Request the scheduled events, and find the first that ends this machine.

        The answer lists events of all machines in the same scale set or availability set.
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
        """This machine's name as it is in the resources of events, in lower case."""
        asked = "instance/compute/name?api-version=2021-02-01&format=text"
        return self._ask(asked).strip().casefold()

    def _ask(self, what: str) -> str:
        return _get(f"{self.base}/metadata/{what}", {"Metadata": "true"})

    def _until_begin(self, event: Mapping[str, Any]) -> float:
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
            # `NotBefore` is empty once the event has begun.
            return _until(parsedate_to_datetime(event["NotBefore"]))
        return self.seconds


CLOUDS: Mapping[str, Callable[[], Source]] = {
    "aws": AwsSource,
    "gcp": GcpSource,
    "azure": AzureSource,
}


_KINDS = f"{', '.join(CLOUDS)}, an http(s) URL or a file's path"


def source(text: str, seconds: float) -> Source:
    """Make a source from its name.

    Args:
        text: "aws", "gcp", "azure", a URL, or a path. The file need not exist, but a path without a
            dot or slash must, because it would otherwise hide a misspelt name of a cloud.
        seconds: seconds left, if the URL or the file does not say.

    Raises:
        NoticeError: `text` is none of these.
    """
    if text in CLOUDS:
        return CLOUDS[text]()
    if text.startswith(("http://", "https://")):
        return UrlSource(text, seconds)
    path = Path(text)
    if "://" in text or not text:
        raise NoticeError(f"{text!r} is not {_KINDS}")
    if not set(text) & set("/.") and not path.exists():
        raise NoticeError(f"{text!r} is not {_KINDS}; for a file in this folder write ./{text}")
    return FileSource(path, seconds)


async def watch(
    sources: list[Source],
    announce: Callable[[float], None],
    every_s: float = POLL_S,
    limit_s: float = LIMIT_S,
) -> None:
    """Poll all sources until one of them has a notice, and pass on the seconds left.

    A slow or failing source does not delay the others. A source that does not answer causes one
    warning, and another one only after it has answered again.

    Args:
        sources: what to poll.
        announce: called once with the seconds left.
        every_s: time between two polls of a source, in seconds.
        limit_s: longest time for an answer before the warning, in seconds.
    """
    polls = [asyncio.create_task(_poll(each, every_s, limit_s)) for each in sources]
    try:
        done, _ = await asyncio.wait(polls, return_when=asyncio.FIRST_COMPLETED)
        announce(min(poll.result() for poll in done))
    finally:
        await cancel(*polls)


async def _poll(source: Source, every_s: float, limit_s: float) -> float:
    """Poll one source until it has a notice, and return the seconds left."""
    failing = False

    def warn(what: str, why: object) -> None:
        nonlocal failing
        level = logging.DEBUG if failing else logging.WARNING
        log.log(level, "no notice can come: %s %s: %s", source, what, why)
        failing = True

    while True:
        # Detached, because an answer may come byte by byte for hours.
        request = asyncio.create_task(detached(source.seconds_left))
        try:
            if not (await asyncio.wait([request], timeout=limit_s))[0]:
                warn("does not answer", f"not within {limit_s:g} s")
            # Wait for this request, so that slow requests do not pile up.
            seconds = await request
        except Exception as error:  # noqa: BLE001  (a server may send anything)
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
    """Send a request, and return the body of the answer.

    Raises:
        OSError: there is no answer, or its status is an error.
    """
    request = urllib.request.Request(url, headers=dict(headers or {}), method=method)  # noqa: S310
    # The metadata service is never behind a proxy.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=TIMEOUT_S) as answer:
            return str(answer.read(65_536).decode(errors="replace"))
    except urllib.error.HTTPError as error:
        # The error object keeps the connection open.
        error.close()
        raise


def _find(url: str, headers: Mapping[str, str] | None = None) -> str | None:
    """Get a URL, and return the body of the answer; None if the status is 404.

    Raises:
        OSError: there is no answer, or its status is another error.
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
