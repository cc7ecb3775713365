"""`[[controller]]`: the other controllers, how they are reached, and a token that nobody sees."""

from __future__ import annotations

import pytest

from ha_controller.config import describe

TABLE = '[[controller]]\nname = "one-2"\nurl = "{url}"\ntoken = {{ file = "{folder}/one-2" }}\n'


def test_there_are_none_by_default(site):
    assert site.load(site.good).controller == ()


def test_one_is_reached_by_tls_with_a_token_that_is_never_shown(site):
    site.secret("one-2", "hac_not-for-eyes")
    config = site.load(site.good + TABLE.format(url="https://[2001:db8::12]:9931/", folder=site.folder))
    (other,) = config.controller
    assert (other.url, other.token.get_secret_value()) == ("https://[2001:db8::12]:9931", "hac_not-for-eyes")
    assert "not-for-eyes" not in str(list(describe(config))) + repr(config)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://192.0.2.12:9931", "the token would be readable on the network"),
        ("https://one-2:9931", "not a literal IP address"),
        ("https://ann@192.0.2.12:9931", "must not name a user"),
        ("https://192.0.2.12:9931/api/v1", "not the address of a controller"),
        ("192.0.2.12:9931", "not the address of a controller"),
    ],
)
def test_an_address_that_will_not_do_is_refused(site, url, told):
    site.secret("one-2", "hac_not-for-eyes")
    assert told in str(site.problems(site.good + TABLE.format(url=url, folder=site.folder)))


def test_two_of_one_name_are_refused(site):
    site.secret("one-2", "hac_not-for-eyes")
    table = TABLE.format(url="http://127.0.0.1:9931", folder=site.folder)
    assert "two have the same name" in str(site.problems(site.good + table + table))
