"""Grouped options work in Typer as if they were declared one by one."""

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from romul_actors.cli.options.groups import with_groups


@dataclass(frozen=True)
class Machines:
    number: Annotated[int, typer.Option("--machines", min=1, help="How many.")] = 16
    zones: Annotated[list[str] | None, typer.Option(help="Where.")] = None


@dataclass(frozen=True)
class Costs:
    price: Annotated[float, typer.Option(help="Dollars.")]


def called(*arguments):
    """The arguments that the command received, or its exit code."""
    given = []

    @with_groups
    def simulate(
        machines: Machines,
        costs: Costs,
        *,
        as_json: Annotated[bool, typer.Option("--json")] = False,
    ) -> None:
        """Simulate."""
        given.append((machines, costs, as_json))

    app = typer.Typer()
    app.command()(simulate)
    result = CliRunner().invoke(app, arguments)
    return given[0] if given else result


def test_a_command_is_given_its_groups():
    assert called("--price=2") == (Machines(), Costs(2.0), False)
    assert called("--machines=3", "--price=1", "--json", "--zones=a", "--zones=b") == (
        Machines(3, ["a", "b"]),
        Costs(1.0),
        True,
    )


def test_options_keep_their_limits_defaults_and_order():
    assert called("--price=2", "--machines=0").exit_code == 2
    assert called().exit_code == 2
    text = called("--help").output
    places = [text.index(part) for part in ("--machines", "--zones", "--price", "--json")]
    assert places == sorted(places)
    assert "16" in text
    assert "Simulate." in text


def test_two_groups_may_not_share_a_name():
    @dataclass(frozen=True)
    class Others:
        zones: int = 0

    def simulate(machines: Machines, others: Others) -> None:
        """Simulate."""

    simulate.__annotations__["others"] = Others
    with pytest.raises(TypeError, match="simulate: parameters with the same name"):
        with_groups(simulate)
