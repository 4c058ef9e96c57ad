"""An operator's actions on a page. Each asks for confirmation, and shows its error if it fails."""

from collections.abc import Awaitable, Callable
from typing import Any, Literal

from nicegui import ui

from romul_actors.client import Client, user
from romul_actors.errors import RomulError
from romul_actors.mqtt.broker import Broker
from romul_actors.store import Store

Action = Literal["pause", "resume", "stop", "pin", "unpin"]


class Actions:
    """An operator's actions on one experiment.

    Args:
        store: the store that holds the experiment.
        name: the experiment's name.
        broker: the broker that workers listen to; None if workers cannot be drained.

    Attributes:
        can_drain: whether workers can be drained.
    """

    def __init__(self, store: Store, name: str, broker: Broker | None) -> None:
        self._client = Client(store, by=f"{user()} (dashboard)", broker=broker)
        self._name = name
        self.can_drain = broker is not None

    async def control(self, action: Action, slot: int | None = None) -> None:
        """After confirmation, request an action; `slot` is for pin and unpin."""
        target = self._name if slot is None else f"slot {slot} of {self._name}"
        if not await _confirmed(f"{action} {target}?"):
            return
        client, name = self._client, self._name
        of_all = {"pause": client.pause, "resume": client.resume, "stop": client.stop}
        of_slot = {"pin": client.pin, "unpin": client.unpin}
        await _try(lambda: of_all[action](name) if slot is None else of_slot[action](name, slot))

    async def drain(self, worker: str) -> None:
        """After confirmation, drain a worker through the broker; the history records it."""
        if self.can_drain and await _confirmed(f"drain {worker}?"):
            await _try(lambda: self._client.drain(worker, names=[self._name]))


async def _confirmed(question: str) -> bool:
    with ui.dialog() as dialog, ui.card():
        ui.label(question)
        with ui.row():
            ui.button("yes", on_click=lambda: dialog.submit("yes")).props("data-answer=yes")
            ui.button("no", on_click=lambda: dialog.submit("no")).props("flat")
    return bool(await dialog == "yes")


async def _try(act: Callable[[], Awaitable[Any]]) -> None:
    """Perform an action, and show the error if it fails."""
    try:
        await act()
    except (RomulError, OSError) as error:
        ui.notify(str(error), type="negative")
    else:
        ui.notify("requested")
