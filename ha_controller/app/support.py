"""What a support bundle may say of the configuration, and what must be hidden wherever it stands.

Secrets are read here only to look for them: what comes out has none of them, however it got in. When a secret cannot be
read it cannot be looked for either, so that is told.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ha_controller.config.positions import as_toml, dotted, parse
from ha_controller.config.secret import SecretProblem, SecretSource, is_source

HIDDEN = "(hidden)"
ARGUMENT_MIN = 8  #: of the arguments of a command, shorter ones are taken for words
SECRET_MIN = 3  #: characters; shorter ones would hide half of every text
#: a literal value under such a key is hidden, whatever it is; sources only say where to read
TELLING_KEY = re.compile(
    r"pass|secret|token|credential|community|routing|auth|(^|[_-])(key|pin)$|webhook|url|dsn", re.I
)
PATH_KEY = re.compile(r"(_file|_path|^known_hosts|folder)$")
#: login data in a URL, and what programs print as key=value or a header
LOGIN_IN_URL = re.compile(r"(?<=://)[^\s/@\"']*@")
TOLD = re.compile(
    r"(?i)([\w-]*(?:pass(?:word|wd)?|secret|token|api[-_]?key|authorization))(\"?\s*[=:]\s*)"
    r"(?:\"(?:[^\"\\\n]|\\.)*\"?|(?:bearer |basic )?(?![{(])[^\s\",;]+)"
)


@dataclass(kw_only=True)
class Mask:
    """Takes secrets out of texts."""

    secrets: set[str] = field(default_factory=set, repr=False)
    unread: list[str] = field(default_factory=list)  #: sources that could not be read, so were not looked for
    hidden: int = 0  #: how many places were hidden so far

    def __call__(self, text: str) -> str:
        """The text without any of them, nor what looks like one."""
        for secret in sorted(self.secrets, key=len, reverse=True):
            self.hidden += text.count(secret)
            text = text.replace(secret, HIDDEN)
        text, count = LOGIN_IN_URL.subn(f"{HIDDEN}@", text)
        self.hidden += count
        text, count = TOLD.subn(rf"\1\2{HIDDEN}", text)
        self.hidden += count
        return text

    def learn(self, source: SecretSource) -> None:
        """Read a secret, to look for it: as it is, escaped as in JSON, and of user:password the password alone."""
        try:
            text = source.read(os.environ).get_secret_value()
        except SecretProblem as problem:
            self.unread.append(problem.message)
            return
        self.learn_text(text)

    def learn_text(self, text: str) -> None:
        """Look for a text that may be a secret, also where it does not belong into a configuration."""
        for each in (text, text.partition(":")[2], *text.splitlines()):
            self.secrets |= {form for form in (each, as_toml(each)[1:-1]) if len(form) >= SECRET_MIN}

    def learn_logins(self, text: str) -> None:
        """Login data in a URL may stand elsewhere without it."""
        for login in LOGIN_IN_URL.findall(text):
            self.learn_text(login[:-1])

    def learn_arguments(self, words: Iterable[str]) -> None:
        """Arguments of a command: some of them may be tokens; paths and options are none."""
        for word in words:
            if len(word) >= ARGUMENT_MIN and word[0] not in "/-":
                self.learn_text(word)


def configuration(path: Path, mask: Mask) -> str:
    """Each value of the configuration's files on a line, without secrets; `mask` learns them.

    A file that is no TOML is left out: what stands where in it cannot be told.
    """
    lines = []
    for layer in (path, *sorted(path.parent.glob("conf.d/*.toml"))):
        lines.append(f"# {layer}")
        try:
            values, _ = parse(layer.read_text(encoding="utf-8"))
        except OSError as error:
            lines.append(f"# {error.strerror}")
            mask.unread.append(f"what stands in {layer}: {error.strerror}")
            continue
        except ValueError:
            lines.append("# no TOML; see the problems that check-config tells")
            mask.unread.append(f"what stands in {layer}: it is no TOML")
            continue
        lines += [f"{dotted(place)} = {shown}" for place, shown in _leaves(values, (), mask)]
    names = sorted(name for name in os.environ if name.startswith("HA_"))
    for name in filter(TELLING_KEY.search, names):
        mask.learn_text(os.environ[name])
    return "\n".join([*lines, "", "# variables that go over it: " + (", ".join(names) or "none"), ""])


def _leaves(value: Any, place: tuple[str | int, ...], mask: Mask) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if isinstance(value, dict) and is_source(value):
        yield place, _source(value, mask)
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, (*place, key), mask)
    elif isinstance(value, list) and any(isinstance(each, dict) for each in value):
        for index, inner in enumerate(value):
            yield from _leaves(inner, (*place, index), mask)
    else:
        yield place, _literal(value, place, mask)


def _source(value: dict[str, Any], mask: Mask) -> str:
    """Where it is read; of a command its program only, as some have tokens as arguments."""
    try:
        source = SecretSource.parse(value)
    except SecretProblem:
        return f'"{HIDDEN}"'
    mask.learn(source)
    mask.learn_arguments(source.words[1:])
    return as_toml({source.kind: source.words[0] if len(source.words) == 1 else [source.words[0], HIDDEN]})


def _literal(value: Any, place: tuple[str | int, ...], mask: Mask) -> str:
    key = next((str(part) for part in reversed(place) if isinstance(part, str)), "")
    texts = [each for each in (value if isinstance(value, list) else [value]) if isinstance(each, str)]
    for text in texts:
        mask.learn_logins(text)
    if key in ("command", "program", "arguments") and isinstance(value, list):
        mask.learn_arguments(texts)
        return f'"{HIDDEN}"'
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if (texts or is_number) and TELLING_KEY.search(key) and not PATH_KEY.search(key):
        for text in texts or [str(value)]:
            mask.learn_text(text)
        return f'"{HIDDEN}"'
    return as_toml(value)
