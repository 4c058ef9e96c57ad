"""`romul acl`: users of the server and of the broker, one for each role."""

import os
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated

import typer

from romul_actors.cli.output.printing import echo
from romul_actors.errors import AclError
from romul_actors.mqtt.acl import password_line, with_users
from romul_actors.store.acl import NO_DEFAULT_USER, ROLES, asks_for_a_user, reads_all, user, user_of


def acl(
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            dir_okay=False,
            help="ACL file for the server (`aclfile`). Other users in the file are kept.",
        ),
    ],
    passwords: Annotated[
        Path,
        typer.Option(
            "--secrets",
            file_okay=False,
            help="Folder for the passwords, as USER/password. Existing passwords are kept.",
        ),
    ],
    experiment: Annotated[
        str, typer.Option(help="Experiments that the users may access: a pattern with * and ?.")
    ] = "*",
    roles: Annotated[
        str,
        typer.Option(
            help=f"Roles, separated by commas: {', '.join(ROLES)}; ROLE=USER names the user."
        ),
    ] = ",".join(ROLES),
    broker: Annotated[
        Path | None,
        typer.Option(
            file_okay=False,
            help="Folder for mosquitto's files `passwords` and `acl`, with the same users.",
        ),
    ] = None,
) -> None:
    """Create a server user for each role, with a password and the permissions it needs.

    Other users in the same files are kept. A user that already exists is replaced.
    """
    users = dict(_named(roles))
    # An empty file is as good as none: it refuses nobody.
    held = _held(out) if _held(out).strip() else ""
    if held and not asks_for_a_user(held):
        raise AclError(
            f"{out} has no line {NO_DEFAULT_USER!r}: either this command did not write it, or its "
            "server admits connections without a user: give a new file, or add the line"
        )
    passwords.mkdir(mode=0o700, parents=True, exist_ok=True)
    known = {name: _password(passwords / name / "password") for name in users}
    lines = {name: user(role, name, known[name], experiment) for name, role in users.items()}
    default = {} if reads_all(held) else {"default": NO_DEFAULT_USER}
    _write(out, _merged(held, default | lines, user_of))
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
        _write(file, with_users(((role, name) for name, role in users.items()), held))
        _tell(file, held, users, user_of)


def _named(roles: str) -> Iterator[tuple[str, str]]:
    """Names of users with the role of each."""
    seen = set()
    for part in roles.split(","):
        role, _, name = part.partition("=")
        name = name or role
        if name in seen:
            raise AclError(f"{name!r} is given twice: a user has one role")
        seen.add(name)
        yield name, role


def _password(file: Path) -> str:
    """The password in a file, which is created if it does not exist."""
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
    """The file's lines in order, with each user's old line replaced by the new one."""
    left, lines = dict(made), []
    for line in text.splitlines():
        name = whose(line)
        if name not in made:
            lines.append(line)
        elif name in left:
            lines.append(left.pop(name))
    return "\n".join([*lines, *left.values()]) + "\n"


def _write(file: Path, text: str) -> None:
    """Replace a file atomically, since a server may be reading it; keep its mode and owner.

    Raises:
        AclError: the file cannot be replaced in its folder.
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
            f"{file} cannot be replaced: {error.strerror}; its folder must be writable and "
            "mounted as a whole"
        ) from None
    finally:
        beside.unlink(missing_ok=True)


def _give(descriptor: int, owner: os.stat_result, file: Path) -> None:
    try:
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
    except PermissionError:
        raise AclError(
            f"{file} belongs to user {owner.st_uid}, group {owner.st_gid}, and a new file would "
            "not: run this command as that user or as root"
        ) from None


def _tell(file: Path, held: str, made: Collection[str], whose: Callable[[str], str]) -> None:
    """Print which users of a file were replaced, and which were kept."""
    there = dict.fromkeys(name for line in held.splitlines() if (name := whose(line)))
    for what, names in (
        ("replaced", [name for name in there if name in made]),
        ("kept", [name for name in there if name not in (*made, "default")]),
    ):
        if names:
            echo(f"{file}: {what}: {', '.join(names)}")
