"""Each piece of configuration that a page shows is taken as it stands there, but for files that only its reader has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ha_controller.adapters.plugins import find_plugins
from ha_controller.config import ConfigError, load

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    {ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("docs/operations/*.md"), *ROOT.glob("plugins/*/README.md")}
)
#: the language of scenarios is another one
NOT_OURS = {"docs/scenarios.md"}
_FENCED = re.compile(r"(?ms)^```toml\n(.*?)^```")
_INDENTED = re.compile(r"(?m)(?:^\n)((?:    .*\n|\n)+)")
_SECRET = re.compile(r'(\w+) = \{ file = "[^"]*" \}')


def examples() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        text, name = page.read_text(), str(page.relative_to(ROOT))
        indented = [re.sub(r"(?m)^    ", "", each) for each in _INDENTED.findall(text)]
        tables = [each for each in indented if re.match(r"\[+[a-z]", each)]
        # a table of a table belongs to the example before it, and a project is configured elsewhere
        whole = [each for each in [*_FENCED.findall(text), *tables] if not each.startswith(("[fence.", "[project."))]
        found += [(name, each) for each in whole if name not in NOT_OURS]
    return found


@pytest.mark.parametrize(("page", "example"), examples())
def test_an_example_is_taken(tmp_path: Path, page: str, example: str):
    def secret(found: re.Match[str]) -> str:
        path = tmp_path / found[1]
        path.write_text("json://localhost/a" if found[1] == "url" else "somebody:a-secret")
        path.chmod(0o600)
        return f'{found[1]} = {{ file = "{path}" }}'

    if "[opennebula]" not in example:
        example += '\n[opennebula]\nauth = { file = "" }\n'
    config = tmp_path / "config.toml"
    config.write_text('mode = "observe"\n' + _SECRET.sub(secret, example))
    registry = find_plugins()
    try:
        load(config, environ={}, **registry.models())
    except ConfigError as error:
        wrong = [line for line in str(error).splitlines() if "no such file" not in line]
        assert not wrong, f"{page}: {example}"
