"""Checks of server, broker, experiments and checkpoint stores, with a remedy for each fault."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import aiomqtt
import fsspec

from romul_actors.errors import (
    AccessError,
    ExperimentError,
    RomulError,
    StoredDataError,
    StoreError,
    StoreUnavailableError,
)
from romul_actors.mqtt.broker import Broker, Message
from romul_actors.mqtt.connection import UNTRUSTED
from romul_actors.mqtt.topics import publish
from romul_actors.observe.alarms import Finding, alarms
from romul_actors.observe.snapshot import snapshot
from romul_actors.protocol.statuses import ENDED
from romul_actors.store.redis import RedisStore

FULL = 0.8
"""Share of the server's memory limit above which there is a warning."""
SLOW_S = 0.05
"""A server that takes longer to answer counts as slow."""
CLOCK_S = 2.0
"""If clocks differ by more, there is a warning."""


async def examine(url: str, broker: Broker | None) -> list[Finding]:
    """Check the server at `url`, its experiments with their checkpoint stores, and the broker."""
    store = RedisStore(url)
    try:
        found = [replace(finding, server=True) for finding in await _server(store)]
        if not any(finding.level == "fault" for finding in found):
            for name in await store.experiments():
                found += await _experiment(store, name)
    finally:
        await store.close()
    return found + await _broker(broker)


async def _server(store: RedisStore) -> list[Finding]:
    began = time.perf_counter()
    try:
        warnings = await store.check()
    except StoreError as error:
        return [
            Finding("fault", str(error), "start it, or correct --redis and the server's settings")
        ]
    took_s = time.perf_counter() - began
    found = [Finding("ok", f"the server answers in {1000 * took_s:.0f} ms")]
    if took_s > SLOW_S:
        what = f"the server took {1000 * took_s:.0f} ms to answer"
        remedy = "is it far away, swapping, or forking for a snapshot?"
        found = [Finding("warning", what, remedy)]
    for warning in warnings:
        what, _, remedy = warning.partition("; ")
        found.append(Finding("warning", what, remedy))
    for info in await store.info():
        found += _role(info)
        found += _memory(info)
        found += _persistence(info)
    apart_s = await store.now_ms() / 1000 - time.time()
    if abs(apart_s) > CLOCK_S:
        what = f"the clocks of the server and this machine differ by {abs(apart_s):.1f} s"
        remedy = "leases use only the server's clock, but deadlines and logs may be off: run NTP"
        found.append(Finding("warning", what, remedy))
    else:
        found.append(Finding("ok", "the server's clock agrees with this machine's"))
    return found


def _role(info: Mapping[str, Any]) -> list[Finding]:
    if info.get("role") != "slave":
        return []
    what = f"the server is a replica of {info.get('master_host')}:{info.get('master_port')}"
    remedy = "it takes no writes: give the primary or its Sentinels with --redis"
    return [Finding("fault", what, remedy)]


def _memory(info: Mapping[str, Any]) -> list[Finding]:
    used, limit = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    text = f"the server uses {used / 2**20:.0f} MiB"
    if not limit:
        return [Finding("ok", f"{text}, without a limit")]
    remedy = "raise maxmemory, lower history_keep, or remove experiments that have ended"
    if used - int(info.get("mem_not_counted_for_evict", 0)) > limit:
        return [Finding("fault", f"{text} of {limit / 2**20:.0f}: it refuses writes", remedy)]
    if used > FULL * limit:
        return [Finding("warning", f"{text} of {limit / 2**20:.0f}", remedy)]
    return [Finding("ok", f"{text} of {limit / 2**20:.0f}")]


def _persistence(info: Mapping[str, Any]) -> list[Finding]:
    last = {
        "rdb_last_bgsave_status": "the last snapshot",
        "aof_last_write_status": "the last write of the append-only file",
    }
    return [
        Finding("fault", f"{what} failed", "is the server's disk full? see its log")
        for key, what in last.items()
        if info.get(key, "ok") != "ok"
    ]


async def _experiment(store: RedisStore, name: str) -> list[Finding]:
    try:
        found = await snapshot(store, name)
        holders = set((await store.leases(name)).values())
    except ExperimentError as error:
        return [
            Finding(
                "warning",
                f"{name}: {error}",
                "it is of another version: upgrade ROMUL, or remove it",
            )
        ]
    except StoredDataError as error:
        return [Finding("fault", error.what, error.remedy)]
    except StoreUnavailableError:
        raise
    except AccessError as error:
        remedy = "give --redis a user that may read it, such as `romul acl`'s reader"
        return [Finding("fault", f"{name}: {error}", remedy)]
    except StoreError as error:
        return [Finding("fault", f"{name}: {error}", "compare its keys with docs/redis.md")]
    findings = [replace(one, what=f"{name}: {one.what}") for one in alarms(found, holders)]
    if not findings:
        what = f"{name}: {found.status}, {len(found.alive)} workers alive"
        findings = [Finding("ok", what)]
    if found.status not in ENDED:
        findings += await _checkpoints(name, str(found.experiment.checkpoints))
    return findings


async def _checkpoints(name: str, url: str) -> list[Finding]:
    """Whether checkpoints can be listed from here. Workers may see another file system."""

    def list_them() -> None:
        system, path = fsspec.core.url_to_fs(url)
        if system.exists(path):
            system.ls(path)

    try:
        await asyncio.to_thread(list_them)
    except Exception as error:  # noqa: BLE001  (any file system, any error)
        what = f"{name}: {url}: {type(error).__name__}: {error}"
        remedy = "they cannot be read from here: check the path and the credentials"
        return [Finding("warning", what, remedy)]
    return [Finding("ok", f"{name}: checkpoints at {url} can be listed from here")]


async def _broker(broker: Broker | None) -> list[Finding]:
    if broker is None:
        what = "no broker was given: lost workers are noticed when their leases end"
        remedy = (
            "with --mqtt on actors and workers, killed workers are noticed in about two seconds"
        )
        return [Finding("ok", what, remedy)]
    where = f"{broker.host}:{broker.port}"
    try:
        await publish(broker, Message("romul/doctor", {"at": time.time()}))
    except (aiomqtt.MqttError, OSError, RomulError) as error:
        remedy = "start it, or correct --mqtt"
        if UNTRUSTED in str(error):
            remedy = "renew its certificate, or give the authority's with --mqtt-ca"
        return [Finding("fault", f"the broker at {where}: {error}", remedy)]
    return [Finding("ok", f"the broker at {where} answers")]
