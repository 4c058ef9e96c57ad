"""`romul acl`: users of the server and of the broker, one for each role."""

import os
import secrets
from pathlib import Path
from typing import Annotated

import typer

from romul_actors.cli.printing import echo
from romul_actors.errors import AclError
from romul_actors.mqtt.acl import password_line, topics
from romul_actors.store.acl import NO_DEFAULT_USER, ROLES, user


def acl(
    out: Annotated[
        Path, typer.Option("--out", dir_okay=False, help="ACL file for the server (aclfile ...).")
    ],
    passwords: Annotated[
        Path,
        typer.Option(
            "--secrets",
            file_okay=False,
            help="Folder for the passwords, USER/password each; those that are there are kept.",
        ),
    ],
    experiment: Annotated[
        str, typer.Option(help="Experiments that the users are for: a pattern with * and ?.")
    ] = "*",
    roles: Annotated[
        str, typer.Option(help=f"Some of {', '.join(ROLES)}, as role or role=user.")
    ] = ",".join(ROLES),
    broker: Annotated[
        Path | None,
        typer.Option(
            file_okay=False,
            help="Folder for mosquitto's files, passwords and acl: the same users and passwords.",
        ),
    ] = None,
) -> None:
    """Make a user of the server for each role, with a password and the rights it needs."""
    passwords.mkdir(mode=0o700, parents=True, exist_ok=True)
    lines, known = [NO_DEFAULT_USER], []
    for part in roles.split(","):
        role, _, name = part.partition("=")
        file = passwords / (name or role) / "password"
        file.parent.mkdir(mode=0o700, exist_ok=True)
        if not file.exists():
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as writing:
                writing.write(secrets.token_urlsafe(24))
        password = file.read_text().strip()
        lines.append(user(role, name or role, password, experiment))
        known.append((role, name or role, password))
    if out.exists() and not out.read_text().startswith(NO_DEFAULT_USER):
        raise AclError(f"{out} exists, and is not of this command: name a new file")
    out.write_text("\n".join(lines) + "\n")
    if broker is not None:
        broker.mkdir(parents=True, exist_ok=True)
        hashes = [password_line(name, password) for _, name, password in known]
        (broker / "passwords").write_text("\n".join(hashes) + "\n")
        (broker / "acl").write_text(topics((role, name) for role, name, _ in known))
    echo(f"{out}: {len(lines) - 1} users; passwords in {passwords}")
