"""Secrets are read from a file, a variable, a systemd credential or a command, never from the configuration itself.

What is read goes into a `SecretStr` at once. No error text quotes it, nor what a command printed. Reading blocks, a
command for at most its deadline, so this runs at start and in the thread that reloads.
"""

from __future__ import annotations

import difflib
import os
import signal
import stat
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, get_args, get_origin

from pydantic import BaseModel, SecretStr

from ha_controller.config.model import Config, fields_at, leaf_types
from ha_controller.config.placeholders import is_placeholder
from ha_controller.config.positions import Location

COMMAND_DEADLINE_S: Final = 10.0
KINDS: Final = ("file", "env", "credential", "command")
WHERE_TO_READ: Final = (
    'Write where to read it: { file = "/etc/ha-controller/secrets/NAME" }, { env = "VARIABLE" }, '
    '{ credential = "NAME" } or { command = ["pass", "NAME"] }'
)
_STAND_IN: Final = SecretStr("stand-in:for a secret that could not be had")


class SecretProblem(Exception):
    """A secret cannot be had. The texts never contain it."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


@dataclass(frozen=True, kw_only=True, slots=True)
class SecretSource:
    """Where a secret is read."""

    kind: str  #: one of KINDS
    words: tuple[str, ...]  #: the path, the name, or the command and its arguments

    @classmethod
    def parse(cls, written: object) -> SecretSource:
        """Understand a value like `{ file = "/run/secrets/bmc" }`.

        Raises:
            SecretProblem: it is no source; above all, when it is the secret itself.
        """
        if not isinstance(written, dict):
            raise SecretProblem("a secret does not belong into the configuration", WHERE_TO_READ)
        if len(written) != 1:
            raise SecretProblem("a secret has exactly one source", WHERE_TO_READ)
        kind, value = next(iter(written.items()))
        if kind not in KINDS:
            near = difflib.get_close_matches(str(kind), KINDS, n=1)
            raise SecretProblem("not a source of secrets", f'Did you mean "{near[0]}"?' if near else WHERE_TO_READ)
        words = value if kind == "command" and isinstance(value, list) else [value]
        if not words or not all(isinstance(word, str) and word and "\0" not in word for word in words):
            raise SecretProblem(f"{kind} says nothing that can be read", WHERE_TO_READ)
        return cls(kind=kind, words=tuple(words))

    def read(self, environ: Mapping[str, str], *, deadline_s: float = COMMAND_DEADLINE_S) -> SecretStr:
        """Read the secret, without the newline at its end. Blocks; `deadline_s` is for a command.

        Raises:
            SecretProblem: it is not there, not text, empty, or everybody may read it.
        """
        match self.kind:
            case "file":
                content = _from_file(Path(self.words[0]))
            case "env":
                content = _from_variable(self.words[0], environ)
            case "credential":
                content = _from_credential(self.words[0], environ)
            case _:
                content = _from_command(self.words, environ, deadline_s)
        try:
            text = content.decode().rstrip("\r\n")
        except UnicodeDecodeError:
            raise SecretProblem(f"{self} is not UTF-8 text", "Store the secret as text") from None
        if not text:
            raise SecretProblem(f"{self} is empty", "Write the secret into it")
        return SecretStr(text)

    def __str__(self) -> str:
        """For messages. Arguments of a command are left out: some put tokens there."""
        return f"{self.kind} {self.words[0]}"


@dataclass(kw_only=True)
class Vault:
    """Reads the secrets that models ask for, and remembers what must not be told."""

    environ: Mapping[str, str] = field(repr=False)
    problems: dict[Location, SecretProblem] = field(default_factory=dict)  #: where a secret could not be had
    readers: dict[Location, Callable[[], SecretStr]] = field(default_factory=dict)  #: where one stands: reads it anew
    _texts: set[str] = field(default_factory=set, repr=False)

    def reveal(self, table: dict[str, Any], model: type[BaseModel], location: Location) -> None:
        """Replace each source in a table by its secret, where the model wants one; in place.

        A secret that cannot be had is replaced by a stand-in, so that the rest can be checked.
        """
        for key, info in fields_at(model, ()).items():
            if key in table:
                place = (*location, key)
                if get_origin(info.annotation) is dict and isinstance(table[key], dict):
                    inner = leaf_types(get_args(info.annotation)[1])
                    table[key] = {
                        name: self._revealed(each, inner, (*place, name)) for name, each in table[key].items()
                    }
                else:
                    table[key] = self._revealed(table[key], leaf_types(info.annotation), place)

    def masked(self, text: str) -> str:
        """The text without any of the secrets."""
        for secret in sorted(self._texts, key=len, reverse=True):
            text = text.replace(secret, "***")
        return text

    def _revealed(self, value: Any, types: set[type], location: Location) -> Any:
        if isinstance(value, list):
            return [self._revealed(item, types, (*location, index)) for index, item in enumerate(value)]
        if SecretStr in types:
            # a fence device may have its secret in the host's template, where OpenNebula can encrypt it
            return value if location[0] == "fence" and is_placeholder(value) else self._read(value, location)
        inner = next((kind for kind in types if issubclass(kind, BaseModel)), None)
        if isinstance(value, dict) and inner is not None:
            self.reveal(value, inner, location)
        return value

    def _read(self, written: object, location: Location) -> SecretStr:
        try:
            source = SecretSource.parse(written)
            secret = source.read(self.environ)
        except SecretProblem as problem:
            self.problems[location] = problem
            return _STAND_IN
        self.readers[location] = partial(source.read, self.environ)
        self._texts.add(secret.get_secret_value())
        return secret


def read_again(config: Config, *location: str) -> SecretStr:
    """A secret of a configuration, as it is now where it stands. Blocks.

    Raises:
        SecretProblem: it cannot be had any more.
        KeyError: it stands nowhere, because a program made the configuration.
    """
    return config._origins.readers[location]()


def is_source(table: Mapping[str, object]) -> bool:
    """Whether a table is a source and nothing else: a later layer then replaces it whole."""
    return bool(table) and table.keys() <= {*KINDS}


def _from_file(path: Path) -> bytes:
    if not path.is_absolute():
        raise SecretProblem(f"{path} depends on the working directory", "Write the whole path, from /")
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):  # a pipe could block for ever
            raise SecretProblem(f"{path} is no regular file", "Put the secret into a file of its own")
        if mode & stat.S_IROTH:
            raise SecretProblem(f"everybody may read {path}", f"Do: chmod o-rwx {path}. Then change the secret")
        return path.read_bytes()
    except OSError as error:
        who = "the user that runs ha-controller"
        raise SecretProblem(f"{path} cannot be read ({error.strerror})", f"It must be there, for {who}") from None


def _from_variable(name: str, environ: Mapping[str, str]) -> bytes:
    if name not in environ:
        raise SecretProblem(f"the environment has no variable {name}", "Set it for the service, or read a file")
    return os.fsencode(environ[name])


def _from_credential(name: str, environ: Mapping[str, str]) -> bytes:
    folder = environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        raise SecretProblem("systemd gave no credentials", f"Put LoadCredential={name}:PATH into the unit")
    if "/" in name:
        raise SecretProblem(f"{name} is a path, not the name of a credential", "Write the name from LoadCredential=")
    return _from_file(Path(folder) / name)


def _from_command(words: tuple[str, ...], environ: Mapping[str, str], deadline_s: float) -> bytes:
    by_hand = "Run it by hand, as the user that runs ha-controller"
    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=dict(environ),
            start_new_session=True,  # so that its children can be ended with it
        )
    except OSError as error:
        raise SecretProblem(f"{words[0]} cannot be started ({error.strerror})", by_hand) from None
    with process:
        try:
            content, _ = process.communicate(timeout=deadline_s)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise SecretProblem(f"{words[0]} did not end within {deadline_s:g} s", by_hand) from None
    if process.returncode != 0:
        raise SecretProblem(f"{words[0]} failed with exit code {process.returncode}", by_hand)
    return content
