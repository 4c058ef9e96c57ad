"""Preemption notices, read from real HTTP servers that answer as the clouds do."""

import asyncio
import contextlib
import json
import socket
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from romul_workers.worker.notices import (
    AwsSource,
    AzureSource,
    FileSource,
    GcpSource,
    NoticeError,
    UrlSource,
    source,
    watch,
)


@pytest.fixture
def cloud():
    """A metadata service: (base URL, bodies or statuses by "METHOD path", requests seen)."""
    answers: dict[str, Any] = {}
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self):
            seen.append((self.command, self.path, dict(self.headers)))
            body = answers.get(f"{self.command} {self.path}")
            if callable(body):
                body = body(self.headers)
            status = body if isinstance(body, int) else 404 if body is None else 200
            self.send_response(status)
            self.end_headers()
            self.wfile.write((body if isinstance(body, str) else "").encode())

        do_GET = do_PUT = answer  # noqa: N815

        def log_message(self, *args):
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", answers, seen
    server.shutdown()
    server.server_close()
    thread.join(5)


AWS_ACTION = "GET /latest/meta-data/spot/instance-action"


def in_a_minute():
    return datetime.now(UTC) + timedelta(seconds=60)


def test_aws_needs_a_token_and_gives_the_time(cloud):
    base, answers, _ = cloud
    aws = AwsSource(base)
    answers["PUT /latest/api/token"] = "secret"
    assert aws.seconds_left() is None

    def action(headers):
        if headers["X-aws-ec2-metadata-token"] != "secret":
            return None
        time = in_a_minute().strftime("%Y-%m-%dT%H:%M:%SZ")
        return json.dumps({"action": "terminate", "time": time})

    answers[AWS_ACTION] = action
    assert 55 < aws.seconds_left() <= 60
    answers[AWS_ACTION] = "something new"
    assert aws.seconds_left() == 120.0


def test_gcp_says_true_or_false(cloud):
    base, answers, seen = cloud
    gcp, path = GcpSource(base), "GET /computeMetadata/v1/instance/preempted"
    answers[path] = "FALSE"
    assert gcp.seconds_left() is None
    assert seen[-1][2]["Metadata-Flavor"] == "Google"
    answers[path] = "TRUE"
    assert gcp.seconds_left() == 30.0


AZURE_NAME = "GET /metadata/instance/compute/name?api-version=2021-02-01&format=text"
AZURE_EVENTS = "GET /metadata/scheduledevents?api-version=2020-07-01"


def azure_event(kind, not_before="", *resources):
    return {"EventType": kind, "NotBefore": not_before, "Resources": resources or ["gpu_1"]}


def test_azure_lists_events_and_only_an_end_counts(cloud):
    base, answers, seen = cloud
    azure = AzureSource(base)
    answers |= {AZURE_NAME: "gpu_1", AZURE_EVENTS: json.dumps({"Events": []})}
    assert azure.seconds_left() is None
    reboot = azure_event("Reboot")
    answers[AZURE_EVENTS] = json.dumps({"Events": [reboot]})
    assert azure.seconds_left() is None
    assert seen[-1][2]["Metadata"] == "true"
    due = format_datetime(in_a_minute(), usegmt=True)
    answers[AZURE_EVENTS] = json.dumps({"Events": [reboot, azure_event("Preempt", due)]})
    assert 55 < azure.seconds_left() <= 60
    answers[AZURE_EVENTS] = json.dumps({"Events": [azure_event("Preempt")]})
    assert azure.seconds_left() == 30.0


def test_azure_events_of_other_machines_of_the_group_do_not_count(cloud):
    base, answers, seen = cloud
    azure = AzureSource(base)
    soon = format_datetime(in_a_minute(), usegmt=True)
    later = format_datetime(in_a_minute() + timedelta(hours=1), usegmt=True)
    others = azure_event("Preempt", "", "gpu_0", "gpu_2")
    answers |= {AZURE_NAME: "GPU_1\n", AZURE_EVENTS: json.dumps({"Events": [others]})}
    assert azure.seconds_left() is None
    own = [azure_event("Terminate", later), azure_event("Preempt", soon, "gpu_0", "gpu_1")]
    answers[AZURE_EVENTS] = json.dumps({"Events": [others, *own]})
    assert 55 < azure.seconds_left() <= 60
    # The name does not change, so it is requested once.
    assert sum("compute/name" in path for _, path, _ in seen) == 1


def test_a_url_answers_only_when_the_end_is_near(cloud):
    base, answers, _ = cloud
    url = UrlSource(f"{base}/going", 45.0)
    assert url.seconds_left() is None
    answers["GET /going"] = "soon"
    assert url.seconds_left() == 45.0
    answers["GET /going"] = "12.5"
    assert url.seconds_left() == 12.5


def test_a_file_is_a_notice_as_soon_as_it_is_there(tmp_path):
    file = FileSource(tmp_path / "going", 45.0)
    assert file.seconds_left() is None
    (tmp_path / "going").touch()
    assert file.seconds_left() == 45.0
    (tmp_path / "going").write_text("-3\n")
    assert file.seconds_left() == 0.0


@pytest.mark.parametrize("text", ["", "ftp://x", "azure://", "asw", "AWS"])
def test_what_is_no_source_is_refused(text):
    with pytest.raises(NoticeError, match=r"is not aws, gcp, azure, an http\(s\) URL or a file"):
        source(text, 60.0)


def test_sources_are_made_by_name(tmp_path):
    assert isinstance(source("aws", 1.0), AwsSource)
    assert source("http://x/y", 9.0) == UrlSource("http://x/y", 9.0)
    assert source(str(tmp_path), 9.0) == FileSource(tmp_path, 9.0)


def test_a_file_need_not_be_there_yet_where_it_has_a_folder_or_a_suffix(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for text in ("./going", str(tmp_path / "going"), "going.txt"):
        assert source(text, 9.0) == FileSource(Path(text), 9.0)
    (tmp_path / "going").touch()
    assert source("going", 9.0) == FileSource(Path("going"), 9.0)


async def test_all_sources_are_polled_until_one_has_a_notice(tmp_path):
    found: list[float] = []
    silent = UrlSource("http://127.0.0.1:1/", 5.0)
    watching = asyncio.create_task(
        watch([silent, FileSource(tmp_path / "f", 7.0)], found.append, every_s=0.01)
    )
    await asyncio.sleep(0.05)
    assert found == []
    (tmp_path / "f").touch()
    await asyncio.wait_for(watching, 5)
    assert found == [7.0]


NONSENSE = [
    (AWS_ACTION, '{"time": []}', AwsSource, 120.0),
    (AZURE_EVENTS, "[]", AzureSource, None),
    (AZURE_EVENTS, '{"Events": [{"EventType": "Preempt", "Resources": [1]}]}', AzureSource, None),
    (AZURE_EVENTS, json.dumps({"Events": [azure_event("Preempt", [1])]}), AzureSource, 30.0),
]


@pytest.mark.parametrize(("request_", "answer", "kind", "seconds"), NONSENSE)
def test_an_answer_that_makes_no_sense_is_no_error(cloud, request_, answer, kind, seconds):
    base, answers, _ = cloud
    answers |= {"PUT /latest/api/token": "secret", AZURE_NAME: "gpu_1", request_: answer}
    assert kind(base).seconds_left() == seconds


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e999", "soon"])
def test_a_notice_of_no_time_has_the_time_of_one_that_does_not_say(tmp_path, text):
    file = tmp_path / "going"
    file.write_text(text)
    assert FileSource(file, 7.0).seconds_left() == 7.0


def test_a_notice_whose_text_cannot_be_read_is_one_all_the_same(tmp_path):
    file = tmp_path / "going"
    file.write_bytes(b"\xff\xfe")
    assert FileSource(file, 7.0).seconds_left() == 7.0


@pytest.fixture
def babbling():
    """URL of a server that answers every request with something that is not HTTP."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    taken, _ = listening.accept()
                    with taken:
                        taken.recv(1000)
                        taken.sendall(b"hello\r\n\r\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(5)


async def test_a_source_that_talks_nonsense_does_not_keep_the_others_notices(
    tmp_path, caplog, babbling
):
    heard: list[float] = []
    file = tmp_path / "going"
    sources = [UrlSource(babbling, 1.0), FileSource(file, 7.0)]
    watching = asyncio.create_task(watch(sources, heard.append, every_s=0.01))
    async with asyncio.timeout(30):
        while "hello" not in caplog.text:
            await asyncio.sleep(0.01)
        file.write_text("5")
        await watching
    assert heard == [5.0]
    # Logged once, regardless of the number of requests.
    assert caplog.text.count("hello") == 1


@pytest.fixture
def dripping():
    """URL of a server whose response comes byte by byte and never ends."""
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve():
            with contextlib.suppress(OSError):
                taken, _ = listening.accept()
                with taken:
                    taken.recv(1000)
                    taken.sendall(b"HTTP/1.1 200 OK\r\nX: ")
                    while not ended.wait(0.1):
                        taken.sendall(b"x")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        ended.set()
    thread.join(5)


async def test_a_source_whose_answer_never_ends_does_not_keep_the_others_notices(
    tmp_path, caplog, dripping
):
    heard: list[float] = []
    file = tmp_path / "going"
    sources = [UrlSource(dripping, 1.0), FileSource(file, 7.0)]
    watching = asyncio.create_task(watch(sources, heard.append, every_s=0.01, limit_s=0.05))
    async with asyncio.timeout(30):
        while "not within 0.05 s" not in caplog.text:
            await asyncio.sleep(0.01)
        file.write_text("5")
        await watching
    assert heard == [5.0]
    assert caplog.text.count("does not answer") == 1


REFUSALS = [
    (AwsSource, {"PUT /latest/api/token": 403}),
    (AwsSource, {"PUT /latest/api/token": "secret", AWS_ACTION: 401}),
    (GcpSource, {}),
    (AzureSource, {AZURE_NAME: 400}),
    (AzureSource, {AZURE_NAME: "gpu_1", AZURE_EVENTS: 500}),
    (UrlSource, {"GET /": 503}),
]


@pytest.mark.parametrize(("kind", "refusal"), REFUSALS)
def test_a_refusal_is_not_taken_for_no_notice(cloud, kind, refusal):
    base, answers, _ = cloud
    answers |= refusal
    asked = UrlSource(f"{base}/", 5.0) if kind is UrlSource else kind(base)
    with pytest.raises(OSError, match="HTTP Error"):
        asked.seconds_left()


async def test_a_source_that_does_not_answer_is_said_once_and_so_is_its_return(
    cloud, caplog, tmp_path
):
    base, answers, seen = cloud
    answers["GET /going"] = 403
    caplog.set_level("INFO")
    found: list[float] = []
    sources = [UrlSource(f"{base}/going", 5.0), FileSource(tmp_path / "file", 7.0)]
    watching = asyncio.create_task(watch(sources, found.append, every_s=0.01))
    async with asyncio.timeout(30):
        while len(seen) < 4:
            await asyncio.sleep(0.01)
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "403" in caplog.text
        del answers["GET /going"]
        while "answers again" not in caplog.text:
            await asyncio.sleep(0.01)
        (tmp_path / "file").touch()
        await watching
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert found == [7.0]
