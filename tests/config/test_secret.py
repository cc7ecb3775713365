"""Secrets: read from real files, variables and commands; refused when they are none or everybody's."""

from __future__ import annotations

import os
import time

import pytest

from ha_controller.config.secret import SecretProblem, SecretSource


def read(written, deadline_s=10.0, **environ):
    return SecretSource.parse(written).read(environ, deadline_s=deadline_s).get_secret_value()


def refused(written, **environ):
    with pytest.raises(SecretProblem) as caught:
        read(written, **environ)
    return f"{caught.value.message}. {caught.value.remedy}"


def test_a_file_is_read_without_the_newline_at_its_end(site):
    assert read({"file": str(site.secret("s", " pass word \n"))}) == " pass word "
    assert read({"file": str(site.secret("s", "a\nb\r\n"))}) == "a\nb"


def test_a_variable_is_read():
    assert read({"env": "TOKEN"}, TOKEN="geheim-ü") == "geheim-ü"


def test_a_credential_of_systemd_is_read(site):
    site.secret("bmc-credential", "s3cret", mode=0o400)
    assert read({"credential": "bmc-credential"}, CREDENTIALS_DIRECTORY=str(site.folder)) == "s3cret"


def test_a_command_is_run_without_a_shell(search_path):
    assert read({"command": ["printf", "%s\n", "a; $HOME"]}, PATH=search_path) == "a; $HOME"


def test_a_command_sees_the_variables_that_were_given(search_path):
    assert read({"command": ["sh", "-c", "echo $ONLY_HERE"]}, PATH=search_path, ONLY_HERE="yes") == "yes"


@pytest.mark.parametrize("mode", [0o644, 0o604])
def test_a_file_that_everybody_may_read_is_refused_with_the_remedy(site, mode):
    path = site.secret("s", "hunter2", mode=mode)
    assert f"everybody may read {path}. Do: chmod o-rwx {path}" in refused({"file": str(path)})


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o440])
def test_a_file_for_owner_and_group_is_good(site, mode):
    assert read({"file": str(site.secret("s", "hunter2", mode=mode))}) == "hunter2"


def test_a_file_that_is_not_there_is_told(site):
    assert "cannot be read (No such file or directory)" in refused({"file": f"{site.folder}/nothing"})


def test_a_pipe_is_refused_instead_of_waited_for(site):
    os.mkfifo(site.folder / "pipe", mode=0o600)
    assert "is no regular file" in refused({"file": f"{site.folder}/pipe"})


def test_a_relative_path_is_refused():
    assert "depends on the working directory" in refused({"file": "secrets/bmc"})


def test_a_credential_cannot_be_a_path(site):
    assert "is a path" in refused({"credential": "../bmc"}, CREDENTIALS_DIRECTORY=str(site.folder))


def test_what_is_empty_is_refused(site, search_path):
    assert "is empty" in refused({"file": str(site.secret("s", "\n"))})
    assert "is empty" in refused({"env": "TOKEN"}, TOKEN="")
    assert "is empty" in refused({"command": ["true"]}, PATH=search_path)


def test_what_is_not_there_is_refused():
    assert "has no variable TOKEN" in refused({"env": "TOKEN"})
    assert "LoadCredential=bmc" in refused({"credential": "bmc"})


def test_what_is_not_text_is_refused_without_quoting_it(site):
    assert "is not UTF-8 text" in refused({"file": str(site.secret("s", b"\xff\xfe\x00"))})


def test_a_command_that_fails_is_told_without_its_output_and_arguments(search_path):
    told = refused({"command": ["sh", "-c", "echo topsecret; echo topsecret >&2; exit 3"]}, PATH=search_path)
    assert "sh failed with exit code 3" in told
    assert "topsecret" not in told


def test_a_command_that_does_not_exist_is_told(search_path):
    assert "cannot be started (No such file or directory)" in refused({"command": ["no-such-thing"]}, PATH=search_path)


def test_a_command_that_hangs_ends_at_the_deadline_with_its_children(site, search_path):
    pid_file = site.folder / "pid"
    script = f"sleep 600 & echo $! > {pid_file}; wait"
    began_at = time.monotonic()
    with pytest.raises(SecretProblem) as caught:
        read({"command": ["sh", "-c", script]}, deadline_s=0.5, PATH=search_path)
    assert "did not end within 0.5 s" in caught.value.message
    assert time.monotonic() - began_at < 5
    child = int(pid_file.read_text())
    while _is_running(child):
        assert time.monotonic() - began_at < 10, "the child of the command lives on"


def _is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as status:  # noqa: PTH123
            return status.read().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize(
    "written",
    [5, True, ["x"], {}, {"file": "a", "env": "B"}, {"file": 5}, {"file": ""}, {"env": ["A"]}, {"command": []},
     {"command": ["a", 5]}, {"command": "pass one"}, {"file": "/a\0b"}],
)  # fmt: skip
def test_what_is_no_source_is_refused_with_an_example(written):
    if written == {"command": "pass one"}:
        assert "cannot be started" in refused(written)  # one word, which happens to have a blank in it
    else:
        assert '{ file = "/etc/ha-controller/secrets/NAME" }' in refused(written)


def test_a_misspelt_source_is_told_with_the_one_that_was_meant():
    assert 'Did you mean "file"?' in refused({"fiel": "/run/x"})


def test_a_literal_secret_is_refused_and_not_repeated():
    told = refused("topsecret")
    assert "does not belong into the configuration" in told
    assert "topsecret" not in told


def test_neither_source_nor_vault_shows_a_secret(site):
    assert "hunter2" not in repr(SecretSource.parse({"file": f"{site.folder}/bmc"}).read({}))
    assert "s3cret" not in str(SecretSource.parse({"command": ["vault", "--token", "s3cret"]}))
