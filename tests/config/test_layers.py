"""Of a file, its conf.d and variables each goes over the one before; a problem names the one that it stands in."""

from __future__ import annotations


def test_each_layer_goes_over_the_one_before(site):
    site.write('[guard]\nsettle = "40s"\nstorm_cooldown = "6m"\n', "conf.d/10-site.toml")
    site.write('[guard]\nsettle = "50s"\n', "conf.d/20-rack.toml")
    environ = {"HA_GUARD__STORM_COOLDOWN": "7m", "HA_MODE": "observe", "HA_GUARD__MAX_FENCES__COUNT": "3"}
    config = site.load(site.good, environ)
    assert config.guard.settle_s == 50
    assert config.guard.storm_cooldown_s == 420
    assert config.guard.max_fences.count == 3
    assert config.guard.self_check == ("192.0.2.1",)
    assert config.mode == "observe"


def test_fence_devices_of_all_files_are_taken_and_problems_point_into_the_right_file(site):
    device = site.good[site.good.index("[[fence]]") :]
    site.write(device.replace('"bmc"', '"spare"') + "colour = 1\n", "conf.d/10-site.toml")
    assert [problem.partition(": unknown")[0] for problem in site.told(site.good)] == [
        "conf.d/10-site.toml:7: fence.1.colour"
    ]


def test_a_secret_source_of_a_later_layer_replaces_the_earlier_one(site):
    config = site.load(site.good, {"HA_OPENNEBULA__AUTH": '{ env = "ONE_AUTH" }', "ONE_AUTH": "me:pw"})
    assert config.opennebula.auth.get_secret_value() == "me:pw"


def test_only_toml_files_that_are_not_hidden_belong_to_conf_d(site):
    site.write("nonsense", "conf.d/README")
    site.write("nonsense", "conf.d/.10-site.toml.swp")
    site.write("nonsense", "conf.d/.hidden.toml")
    assert site.load(site.good).mode == "auto"


def test_a_conf_d_that_cannot_be_listed_is_never_passed_over(site):
    site.write("", "conf.d")
    assert f"{site.folder}/conf.d: cannot be listed (Not a directory)" in site.told(site.good)[0]


def test_variables_may_be_toml_or_text(site):
    environ = {
        "HA_SCOPE__EXCLUDE": '["kvm-9", 7]',
        "HA_CHANNEL__SSH__PORT": "2222",
        "HA_STATE_DIR": "/srv/ha",
        "HA_GUARD__SELF_CHECK_WAIVED": "true",
        "HA_LEADER__KIND": "single",
    }
    config = site.load(site.good, environ)
    assert config.scope.exclude == ("kvm-9", "7")
    assert config.channel["ssh"]["port"] == 2222
    assert str(config.state_dir) == "/srv/ha"
    assert config.guard.self_check_waived is True


def test_a_variable_of_several_lines_is_one_text_and_sets_nothing_else(site):
    [told] = site.told(site.good, {"HA_DETECT__MISSES": "5\nother = 1"})
    assert told == 'HA_DETECT__MISSES: detect.misses: must be a valid integer: "5\\U0000000Aother = 1"'


def test_a_bad_variable_is_told_by_its_name(site):
    environ = {"HA_DETECT__MISES": "4", "HA_DETECT__MISSES": "1", "HA_NOWHERE__X": "1", "HA_MODE__X": "1"}
    told = site.told(site.good, environ)
    assert told[0] == 'HA_DETECT__MISES: detect.mises: unknown key. Did you mean "misses"?'
    assert told[1] == "HA_DETECT__MISSES: detect.misses: must be greater than or equal to 2: 1"
    assert told[2].startswith("HA_MODE__X: mode: must be 'observe', 'approve' or 'auto'")
    assert told[3].startswith("HA_NOWHERE__X: nowhere: unknown key")


def test_a_variable_for_a_fence_device_is_refused_with_the_way_to_do_it(site):
    [told] = site.told(site.good, {"HA_FENCE__0__LEVEL": "2"})
    assert told == "HA_FENCE__0__LEVEL: no variable can set this. Write it into a file in conf.d"


def test_a_literal_secret_in_a_variable_is_refused_and_not_repeated(site):
    [told] = site.told(site.good, {"HA_OPENNEBULA__AUTH": "oneadmin:topsecret"})
    assert told.startswith("HA_OPENNEBULA__AUTH: opennebula.auth: a secret does not belong into the configuration")
    assert "topsecret" not in told


def test_variables_of_others_are_left_alone(site, monkeypatch):
    environ = {"HA_CONFIG": "/x", "HA_SOCKET": "/y", "HA_HOME": "1", "HAPROXY__X": "1", "PATH": "/bin"}
    monkeypatch.setenv("HA_MODE", "observe")  # the environment that counts is the one that is handed over
    assert site.load(site.good, environ).mode == "auto"
