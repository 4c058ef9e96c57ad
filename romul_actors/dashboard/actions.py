"""An operator's actions from a page: each needs a confirmation and shows its error if it fails."""

import getpass
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from nicegui import ui

from romul_actors.core.events import Control
from romul_actors.errors import RomulError
from romul_actors.mqtt.broker import Broker
from romul_actors.mqtt.presence import ask
from romul_actors.protocol.messages import encode
from romul_actors.store import Store

Action = Literal["pause", "resume", "stop", "pin", "unpin"]


class Actions:
    """An operator's actions on one experiment.

    Args:
        store: where the experiment is stored.
        name: the experiment's name.
        broker: the broker that workers listen to; None: workers cannot be drained.
    """

    def __init__(self, store: Store, name: str, broker: Broker | None) -> None:
        self._store = store
        self._name = name
        self._broker = broker

    @property
    def can_drain(self) -> bool:
        """Whether workers can be drained."""
        return self._broker is not None

    async def control(self, action: Action, slot: int | None = None) -> None:
        """Send an action to the experiment's inbox, once confirmed; `slot` for pin and unpin."""
        target = self._name if slot is None else f"slot {slot} of {self._name}"
        if not await _confirmed(f"{action} {target}?"):
            return
        event = Control(action=action, by=_operator(), slot=slot)
        await _try(lambda: self._store.send(self._name, encode(event)))

    async def drain(self, worker: str) -> None:
        """Drain a worker through the broker, once confirmed; history has a line of it."""
        if self._broker is None or not await _confirmed(f"drain {worker}?"):
            return
        broker, name = self._broker, self._name
        event = Control(action="drain", by=_operator(), worker=worker)

        async def drain() -> None:
            await ask(broker, worker, {"do": "drain"})
            await self._store.send(name, encode(event))

        await _try(drain)


def _operator() -> str:
    return f"{getpass.getuser()} (dashboard)"


async def _confirmed(question: str) -> bool:
    with ui.dialog() as dialog, ui.card():
        ui.label(question)
        with ui.row():
            ui.button("yes", on_click=lambda: dialog.submit("yes")).props("data-answer=yes")
            ui.button("no", on_click=lambda: dialog.submit("no")).props("flat")
    return bool(await dialog == "yes")


async def _try(act: Callable[[], Awaitable[Any]]) -> None:
    """Act, and show the error if that fails."""
    try:
        await act()
    except (RomulError, OSError) as error:
        ui.notify(str(error), type="negative")
    else:
        ui.notify("asked")
