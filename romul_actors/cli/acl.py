"""`romul acl`: users of the server and of the broker, one for each role."""

import os
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated

import typer

from romul_actors.cli.printing import echo
from romul_actors.errors import AclError
from romul_actors.mqtt.acl import password_line, topics
from romul_actors.store.acl import NO_DEFAULT_USER, ROLES, asks_for_a_user, user, user_of


def acl(
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            dir_okay=False,
            help="ACL file for the server (aclfile ...); other users in it stay.",
        ),
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
    """Make a user of the server for each role, with a password and the rights it needs.

    Other users of the same files stay as they are; a user that is there already is made anew.
    """
    users = dict(_named(roles))
    # An empty file is as good as none: it refuses nobody.
    held = _held(out) if _held(out).strip() else ""
    if held and not asks_for_a_user(held):
        raise AclError(
            f"{out} has no line {NO_DEFAULT_USER!r}: it is not of this command, or its server lets "
            "connections in without a user: name a new file, or add the line"
        )
    passwords.mkdir(mode=0o700, parents=True, exist_ok=True)
    known = {name: _password(passwords / name / "password") for name in users}
    lines = {name: user(role, name, known[name], experiment) for name, role in users.items()}
    _write(out, _merged(held or NO_DEFAULT_USER, lines, user_of))
    echo(f"{out}: {len(lines)} users; passwords in {passwords}")
    _tell(out, held, lines, user_of)
    if broker is not None:
        broker.mkdir(parents=True, exist_ok=True)
        file = broker / "passwords"
        held = _held(file)
        hashes = {name: password_line(name, password) for name, password in known.items()}
        _write(file, _merged(held, hashes, _broker_user))
        _tell(file, held, hashes, _broker_user)
        file = broker / "acl"
        held = _held(file)
        _write(file, topics(((role, name) for name, role in users.items()), held))
        _tell(file, held, users, user_of)


def _named(roles: str) -> Iterator[tuple[str, str]]:
    """Names of users with the role of each."""
    seen = set()
    for part in roles.split(","):
        role, _, name = part.partition("=")
        name = name or role
        if name in seen:
            raise AclError(f"{name!r} is named twice: a user has one role")
        seen.add(name)
        yield name, role


def _password(file: Path) -> str:
    """The password in a file, which is made if it is not there."""
    file.parent.mkdir(mode=0o700, exist_ok=True)
    if not file.exists():
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as writing:
            writing.write(secrets.token_urlsafe(24))
    return file.read_text().strip()


def _held(file: Path) -> str:
    return file.read_text() if file.exists() else ""


def _broker_user(line: str) -> str:
    """The user of a line of mosquitto's password file."""
    name, colon, _ = line.partition(":")
    return name if colon else ""


def _merged(text: str, made: Mapping[str, str], whose: Callable[[str], str]) -> str:
    """The file's lines in their order, with the new line of each user in place of its old one."""
    left, lines = dict(made), []
    for line in text.splitlines():
        name = whose(line)
        if name not in made:
            lines.append(line)
        elif name in left:
            lines.append(left.pop(name))
    return "\n".join([*lines, *left.values()]) + "\n"


def _write(file: Path, text: str) -> None:
    """Replace a file whole, with the mode and the owner it has: a server may read it meanwhile.

    Raises:
        AclError: its folder does not admit that.
    """
    file = file.resolve()
    beside = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        # By the umask, as any new file: the server must read it, and it holds hashes alone.
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        with os.fdopen(descriptor, "w") as writing:
            if file.exists():
                before, new = file.stat(), os.fstat(descriptor)
                if (before.st_uid, before.st_gid) != (new.st_uid, new.st_gid):
                    _give(descriptor, before, file)
                os.fchmod(descriptor, before.st_mode & 0o7777)
            writing.write(text)
            writing.flush()
            os.fsync(descriptor)
        beside.replace(file)
    except OSError as error:
        raise AclError(
            f"{file} cannot be replaced: {error.strerror}; its folder must be writable, and be "
            "mounted whole"
        ) from None
    finally:
        beside.unlink(missing_ok=True)


def _give(descriptor: int, owner: os.stat_result, file: Path) -> None:
    try:
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
    except PermissionError:
        raise AclError(
            f"{file} belongs to user {owner.st_uid}, group {owner.st_gid}, and a new one would "
            "not: run this as that user or as root"
        ) from None


def _tell(file: Path, held: str, made: Collection[str], whose: Callable[[str], str]) -> None:
    """Say which users of a file were replaced, and which are kept."""
    there = dict.fromkeys(name for line in held.splitlines() if (name := whose(line)))
    for what, names in (
        ("replaced", [name for name in there if name in made]),
        ("kept as they were", [name for name in there if name not in (*made, "default")]),
    ):
        if names:
            echo(f"{file}: {what}: {', '.join(names)}")
