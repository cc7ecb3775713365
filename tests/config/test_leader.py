"""`[leader]`: who leads, with the settings of the arbiter and its secrets."""

from __future__ import annotations

import pytest

from ha_controller.adapters.arbiter.etcd import EtcdConfig
from ha_controller.adapters.arbiter.opennebula import OpenNebulaConfig
from ha_controller.config import describe

ETCD = '[leader]\nkind = "etcd"\n'
HOSTS = 'endpoints = ["https://192.0.2.11:2379", "https://192.0.2.12:2379"]\n'


def test_one_controller_is_the_default(site):
    assert site.load(site.good).leader.kind == "single"


def test_etcd_with_a_user_whose_password_is_read_and_never_shown(site):
    site.secret("etcd", "not-for-eyes")
    config = site.load(
        site.good + ETCD + HOSTS + f'username = "ha"\npassword = {{ file = "{site.folder}/etcd" }}\nlease = "20s"\n'
    )
    settings = EtcdConfig.model_validate(config.leader.settings)
    assert settings.password is not None
    assert settings.password.get_secret_value() == "not-for-eyes"
    assert (settings.lease_s, settings.timeout_s, settings.prefix) == (20.0, 1.0, "/ha-controller")
    assert "not-for-eyes" not in str(list(describe(config))) + repr(config)


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("", "leader.endpoints: is missing"),
        ("endpoints = []\n", "leader.endpoints"),
        ('endpoints = ["192.0.2.11:2379"]\n', "not the address of an etcd member"),
        ('endpoints = ["https://ha:secret@192.0.2.11:2379"]\n', "must not name a user"),
        (HOSTS + 'lease = "4s"\n', "leader.lease is too short for that leader.timeout. Set it to 6s at least"),
        (HOSTS + 'lease = "7500ms"\n', "leader.lease must be whole seconds"),
        (HOSTS + 'username = "ha"\n', "leader.username and leader.password belong together"),
        (HOSTS + 'cert_file = "/etc/hostname"\n', "leader.cert_file and leader.key_file belong together"),
        (HOSTS + 'ca_file = "/nowhere.pem"\n', "no such file"),
        (HOSTS + 'prefix = "ha"\n', "leader.prefix"),
        (HOSTS + "endpoint = 3\n", 'leader.endpoint: unknown key. Did you mean "endpoints"?'),
    ],
)
def test_what_cannot_work_is_refused_with_its_remedy(site, lines: str, told: str):
    problems = site.told(site.good + ETCD + lines)
    assert any(told in problem for problem in problems), problems
    assert not any("ha:secret" in problem for problem in problems)


def test_a_password_over_plain_http_is_refused_and_on_this_machine_it_is_not(site):
    site.secret("etcd", "not-for-eyes")
    user = f'username = "ha"\npassword = {{ file = "{site.folder}/etcd" }}\n'
    [problem] = site.told(site.good + ETCD + 'endpoints = ["http://192.0.2.11:2379"]\n' + user)
    assert "can be read by everybody on its way" in problem
    site.load(site.good + ETCD + 'endpoints = ["http://127.0.0.1:2379"]\n' + user)


ZONE = '[leader]\nkind = "opennebula"\n'
FRONT_ENDS = 'servers = ["http://192.0.2.11:2633/RPC2", "http://192.0.2.12:2633/RPC2", "http://192.0.2.13:2633/RPC2"]\n'


def test_opennebula_itself_needs_no_settings_and_its_front_ends_may_be_named(site):
    settings = OpenNebulaConfig.model_validate(site.load(site.good + ZONE).leader.settings)
    assert (settings.servers, settings.timeout_s, settings.takeover_s) == ((), 1.0, 20.0)
    named = OpenNebulaConfig.model_validate(site.load(site.good + ZONE + FRONT_ENDS).leader.settings)
    assert len(named.servers) == 3


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ('servers = ["192.0.2.11:2633"]\n', "not the address of a front-end"),
        ('servers = ["http://ha:secret@192.0.2.11:2633/RPC2"]\n', "must not name a user"),
        ('servers = ["http://192.0.2.11:2633/RPC2"]\n', "fewer than three front-ends cannot decide by majority"),
        ('takeover = "5s"\n', "Set it to 10s at least"),
        ('lease = "10s"\n', "leader.lease: unknown key"),
    ],
)
def test_what_cannot_work_with_opennebula_is_refused_with_its_remedy(site, lines: str, told: str):
    problems = site.told(site.good + ZONE + lines)
    assert any(told in problem for problem in problems), problems
    assert not any("ha:secret" in problem for problem in problems)


@pytest.mark.parametrize(
    "lines",
    [
        '[[opennebula]]\nendpoint = "http://a:2633/RPC2"\n[[opennebula]]\nendpoint = "http://b:2633/RPC2"\n',
        '[opennebula.zone1]\nendpoint = "http://a:2633/RPC2"\n[opennebula.zone2]\nendpoint = "http://b:2633/RPC2"\n',
        '[opennebula]\nendpoint = ["http://a:2633/RPC2", "http://b:2633/RPC2"]\n',
    ],
)
def test_two_zones_in_one_configuration_are_refused_with_the_reason(site, lines: str):
    problems = site.told(lines)
    assert any("a controller serves one zone. Each zone of a federation has its own hosts" in each for each in problems)


def test_an_arbiter_that_nobody_provides_is_told_with_the_known_ones(site):
    [problem] = site.told(site.good + '[leader]\nkind = "etdc"\n')
    assert (
        'leader.kind: no plugin provides this arbiter: "etdc". Did you mean "etcd"? Installed: etcd, opennebula, single'
        in problem
    )


def test_a_single_controller_takes_no_settings(site):
    [problem] = site.told(site.good + '[leader]\nlease = "10s"\n')
    assert "leader.lease: unknown key" in problem
