"""Good input is taken as written; whatever is wrong is told at once, with file, line, path and remedy."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import structlog
from pydantic import SecretStr

from ha_controller.config import ConfigError, load
from ha_controller.config.loader import _DISTRIBUTIONS


def test_durations_shares_and_secrets_are_ready_to_use(site):
    config = site.load(site.good + '[detect]\nconfirm_interval = "150ms"\nsingle_domain_after = "2m"\n')
    assert config.detect.confirm_interval_s == pytest.approx(0.15)
    assert config.detect.single_domain_after_s == 120
    assert config.guard.max_failed_hosts == 0.25
    assert config.opennebula.auth.get_secret_value() == "oneadmin:opennebula"
    assert config.fence[0].settings["password"].get_secret_value() == "hunter2"


def test_rules_of_a_cluster_go_over_those_for_all(site):
    config = site.load(site.good + '[cluster.edge]\nneed = 3\nsingle_domain_after = "3m"\nchannels = ["icmp", "bmc"]\n')
    edge = config.cluster["edge"].over(config.detect)
    assert (edge.need, edge.single_domain_after_s, edge.channels) == (3, 180, ("icmp", "bmc"))
    assert (edge.misses, edge.fail_after_s) == (config.detect.misses, config.detect.fail_after_s)


@pytest.mark.parametrize(
    ("rules", "why"),
    [
        ('channels = ["storage"]', "storage is not in detect.channels"),
        ('fail_after = "2s"', "fail_after is shorter than detect.misses times detect.interval"),
        ('fail_after = "100s"', "single_domain_after is shorter than detect.fail_after"),
        ("weights = { management = 2 }", "need is not more than weights.management"),
        ("nead = 3", "unknown key"),
    ],
)
def test_rules_of_a_cluster_that_make_no_sense_are_refused(site, rules, why):
    (told,) = site.told(f"{site.good}[cluster.edge]\n{rules}\n")
    assert "cluster" in told
    assert why in told


# --- problems ---------------------------------------------------------------------------------------------------------


def test_everything_wrong_is_told_at_once_in_the_order_of_the_lines(site):
    text = site.good.replace('agent = "ipmi"', 'agnet = "ipmi"').replace('mode = "auto"', 'mode = "atuo"')
    told = site.told(text + '[detect]\ninterval = 5\nmisses = "many"\nfail_aftr = "10s"\n', {"HA_LOG__LEVEL": "loud"})
    assert told == [
        """config.toml:1: mode: must be 'observe', 'approve' or 'auto': "atuo". Did you mean "auto"?""",
        'config.toml:8: fence.0.agnet: unknown key. Did you mean "agent"?',
        "config.toml:13: detect.interval: not a duration: 5. "
        'Write a text with a unit, like "200ms", "10s", "2m" or "1h"',
        'config.toml:14: detect.misses: must be a valid integer: "many"',
        'config.toml:15: detect.fail_aftr: unknown key. Did you mean "fail_after"?',
        """HA_LOG__LEVEL: log.level: must be 'debug', 'info', 'warning' or 'error': "loud\"""",
    ]


def test_a_problem_has_its_parts_for_programs(site):
    [problem] = site.problems(site.good + "[detect]\nmisses = 0\n")
    assert (problem.file, problem.line, problem.path, problem.value) == ("config.toml", 13, "detect.misses", "0")
    assert problem.message == "must be greater than or equal to 2"


def test_an_unknown_key_is_told_without_its_value_which_may_be_a_secret(site):
    told = site.told(site.good + 'pasword = "topsecret"\nusrname = "topsecret"\n')
    assert told == [
        'config.toml:12: fence.0.pasword: unknown key. Did you mean "password"?',
        'config.toml:13: fence.0.usrname: unknown key. Did you mean "username"?',
    ]


def test_an_unknown_key_that_holds_a_placeholder_is_told_too(site):
    assert site.told(site.good.replace("address", "adress")) == [
        'config.toml:9: fence.0.adress: unknown key. Did you mean "address"?'
    ]


def test_a_misspelt_key_of_ours_is_told_for_a_device_whose_agent_is_known(site):
    assert site.told(site.good + "levle = 2\n") == ['config.toml:12: fence.0.levle: unknown key. Did you mean "level"?']


def test_a_key_in_the_wrong_table_is_told_where_it_belongs(site):
    told = site.told(site.good + '[detect]\nmode = "auto"\nmax_failed_hosts = "10%"\nnonsense = 1\n')
    assert "detect.mode: unknown key. It belongs to the top of the file" in told[0]
    assert told[1].endswith("detect.max_failed_hosts: unknown key. It belongs into [guard]")
    assert "detect.nonsense: unknown key. Known here: channels, confirm_interval" in told[2]


def test_an_unknown_key_of_a_channel_is_told_with_a_suggestion(site):
    assert site.told(site.good + "[channel.ssh]\nprot = 22\n") == [
        'config.toml:13: channel.ssh.prot: unknown key. Did you mean "port"?'
    ]


def test_settings_of_a_channel_are_checked_by_its_own_model(site):
    [told] = site.told(site.good + "[channel.ssh]\nport = 70000\n")
    assert "config.toml:13: channel.ssh.port: must be less than or equal to 65535: 70000" in told


def test_an_unknown_agent_is_told_with_the_known_ones(site):
    assert site.told(site.good.replace('"ipmi"', '"ipmy"')) == [
        'config.toml:8: fence.0.agent: no plugin provides this agent: "ipmy". '
        'Did you mean "ipmi"? Installed: broken, ipmi'
    ]


def test_an_agent_that_is_not_installed_is_told_with_its_distribution(site):
    site.write(site.good)
    with pytest.raises(ConfigError, match=r"Install the distribution ha-controller-ipmi\. Installed: none"):
        load(site.path, environ={}, agents={}, channels={}, arbiters={}, notifiers={})


def test_every_distribution_that_is_named_exists_here():
    for kind, distribution in (pair for kinds in _DISTRIBUTIONS.values() for pair in kinds.items()):
        folder = distribution.removeprefix("ha-controller-")
        path = Path(__file__).parents[2] / "plugins" / folder / "pyproject.toml"
        project = tomllib.loads(path.read_text())["project"]
        assert project["name"] == distribution
        assert kind in project["entry-points"]["ha_controller"]


def test_pages_that_need_no_login_are_for_this_machine_unless_that_is_wanted(site):
    table = '[api]\nmetrics_port = 9788\nmetrics_address = "192.0.2.7"\n'
    assert site.told(site.good + table) == [
        "config.toml:12: api.metrics_open: must be true for an address that others reach (192.0.2.7): "
        "the pages need no login: false"
    ]
    assert site.load(site.good + table + "metrics_open = true\n").api.metrics_address == "192.0.2.7"
    assert site.load(site.good + "[api]\nmetrics_port = 9788\n").api.metrics_open is False


def test_the_api_leaves_this_machine_with_tls_or_a_word_of_the_operator_only(site):
    assert site.load(site.good + '[api]\nlisten = "[::1]:9931"\n').api.listen == "[::1]:9931"
    far = '[api]\nlisten = "192.0.2.7:9931"\n'
    assert "api.insecure: must be true to serve 192.0.2.7:9931 without TLS" in site.told(site.good + far)[0]
    assert site.load(site.good + far + "insecure = true\n").api.insecure is True
    tls = 'tls_cert = "/etc/tls.crt"\n'
    assert "api.tls_key: goes with api.tls_cert" in "".join(site.told(site.good + far + tls))
    assert site.load(site.good + far + tls + 'tls_key = "/etc/tls.key"\n').api.insecure is False
    for wrong in ("9931", "192.0.2.7:0", "192.0.2.7:70000", "one-1:9931", "::1:9931", "[192.0.2.7]:1"):
        assert "api.listen: " in site.told(site.good + f'[api]\nlisten = "{wrong}"\n')[0]


def test_settings_of_a_notifier_are_checked_by_its_own_model_and_its_secrets_read(site):
    table = '[[notify]]\nname = "oncall"\nnotifier = "pager"\n'
    config = site.load(site.good + table + f'key = {{ file = "{site.folder}/bmc" }}\n')
    [notify] = config.notify
    assert (notify.name, notify.notifier, notify.severity) == ("oncall", "pager", "warning")
    assert isinstance(notify.settings["key"], SecretStr)
    assert site.told(site.good + table + "kee = 1\n") == [
        'config.toml:15: notify.0.kee: unknown key. Did you mean "key"?'
    ]
    assert site.told(site.good + table.replace("pager", "slack")) == [
        'config.toml:14: notify.0.notifier: no plugin provides this notifier: "slack". '
        "Install the distribution ha-controller-messages. Installed: pager"
    ]


def test_channels_that_nobody_provides_are_told_with_the_known_ones(site):
    told = site.told(site.good + '[detect]\nchannels = [\n "icmp",\n "pigeon"]\n[channel.drum]\n[channel.ssh]\n')
    assert told[0].startswith('config.toml:15: detect.channels.1: no plugin provides this channel: "pigeon". Installed')
    assert told[1].startswith('config.toml:16: channel.drum: no plugin provides this channel: "drum". Installed: bmc')


def test_default_channels_that_are_not_installed_are_told(site):
    site.write(site.good)
    with pytest.raises(ConfigError, match=r"detect.channels.0: no plugin provides this channel: \"icmp\""):
        load(site.path, environ={}, agents={}, channels={}, arbiters={}, notifiers={})


def test_two_devices_of_one_name_are_told(site):
    device = site.good[site.good.index("[[fence]]") :]
    assert site.told(site.good + device) == [
        'config.toml:13: fence.1.name: already names fence.0: "bmc". Give each its own'
    ]


def test_a_device_in_single_brackets_is_told(site):
    [told] = site.told(site.good.replace("[[fence]]", "[fence]"))
    assert told == "config.toml:6: fence: must be a list of tables. Write [[fence]], with two brackets"


def test_nothing_configured_at_all_tells_what_must_be_set(site):
    [told] = site.told("")
    assert told.startswith("config.toml: opennebula.auth: is missing. Write where to read it: { file = ")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ('fail_after = "2s"', "detect.fail_after: shorter than detect.misses times detect.interval (3s)"),
        ('interval = "2s"\nmisses = 6', "detect.fail_after: shorter than detect.misses times detect.interval (12s)"),
        ('single_domain_after = "5s"', "detect.single_domain_after: shorter than detect.fail_after (10s)"),
        ('hung_after = "5s"', "detect.hung_after: shorter than detect.fail_after (10s)"),
        ("need = 1", "detect.need: must be greater than or equal to 2: 1"),
        ("weights = { management = 2 }", "detect.need: not more than weights.management (2)"),
        ("weights = { moon = 2 }", "detect.weights.moon: unknown key"),
        ('confirm_interval = "3s"', "detect.confirm_interval: longer than detect.interval (1s)"),
        ('evidence_ttl = "1s"', "detect.evidence_ttl: shorter than two detect.interval (2s)"),
        ('interval = "-1s"', "detect.interval: must be longer than nothing"),
        ('interval = "0s"', "detect.interval: must be longer than nothing"),
        ("interval = 1", "detect.interval: not a duration: 1"),
        ("misses = true", "detect.misses: must be a valid integer: true"),
        ('misses = "3"', 'detect.misses: must be a valid integer: "3"'),
        ("channels = []", "detect.channels: must have at least 1 item"),
        ('channels = "icmp"', "detect.channels: must be a list"),
        ('channels = ["icmp", "ssh", "icmp"]', "detect.channels: names icmp more than once"),
    ],
)
def test_detection_that_cannot_work_is_refused(site, lines, expected):
    told = site.told(site.good + f"[detect]\n{lines}\n")
    assert len(told) == 1
    assert expected in told[0]


def test_one_impossible_value_does_not_hide_or_invent_others(site):
    told = site.told(site.good + '[detect]\nfail_after = "soon"\nhung_after = "1s"\nconfirm_interval = "2s"\n')
    assert [problem.split(": ")[1] for problem in told] == ["detect.fail_after", "detect.confirm_interval"]


@pytest.mark.parametrize("mode", ["approve", "auto"])
def test_a_mode_that_acts_needs_a_fence_device_and_a_witness(site, mode):
    text = site.good[: site.good.index("[guard]")].replace("auto", mode)
    assert site.told(text) == [
        f'config.toml: guard.self_check: mode "{mode}" needs addresses that show whether we are cut off ourselves. '
        "Name your gateway or switch, or set self_check_waived = true",
        f'config.toml:1: mode: needs at least one [[fence]]: "{mode}". Add one, or observe',
    ]


def test_a_witness_can_be_waived_and_observing_needs_none(site):
    assert site.load(site.good.replace('self_check = ["192.0.2.1"]', "self_check_waived = true")).mode == "auto"
    assert site.load(site.good[: site.good.index("[guard]")].replace("auto", "observe")).fence == ()


@pytest.mark.parametrize("address", ["gateway.example.com", "", "192.0.2", "192.0.2.1/24", "192.0.2.1:", ":22"])
def test_a_witness_that_is_no_literal_address_is_refused(site, address):
    [told] = site.told(site.good.replace("192.0.2.1", address))
    assert "config.toml:5: guard.self_check.0: not a literal IP address" in told


def test_a_relative_path_and_a_socket_path_that_is_too_long_are_refused(site):
    told = site.told(f'state_dir = "state"\n{site.good}[api]\nsocket = "/{"x" * 107}"\n')
    assert 'config.toml:1: state_dir: depends on the working directory: "state"' in told[0]
    assert "config.toml:14: api.socket: too long for a socket" in told[1]


@pytest.mark.parametrize(
    "endpoint", ["oned", "ftp://oned/", "http://", "http://[::1", "http://h:99999/", "http://a b/"]
)
def test_an_endpoint_that_is_none_is_refused(site, endpoint):
    assert "opennebula.endpoint" in site.told(site.good.replace("[guard]", f'endpoint = "{endpoint}"\n[guard]'))[0]


def test_a_setting_of_an_agent_is_not_taken_for_a_key_of_ours_that_sounds_like_it(site):
    assert site.told(site.good + 'timeout = "5s"\ntimeout_s = -1\n') == [
        "config.toml:13: fence.0.timeout_s: must be greater than 0: -1"
    ]


# --- secrets ----------------------------------------------------------------------------------------------------------


def test_a_secret_that_cannot_be_had_is_told_where_it_was_asked_for(site):
    [told] = site.told(site.good.replace(f"{site.folder}/bmc", f"{site.folder}/nothing"))
    assert told.startswith(f"config.toml:11: fence.0.password: {site.folder}/nothing cannot be read (No such file")


def test_several_bad_secrets_are_told_at_once_and_nothing_follows_from_them(site):
    site.secret("bmc", "hunter2", mode=0o644)
    site.secret("one_auth", "")
    told = site.told(site.good + '[channel.ssh]\ntoken = { env = "TOKEN" }\n')
    assert [problem.split(": ")[:2] for problem in told] == [
        ["config.toml:3", "opennebula.auth"],
        ["config.toml:11", "fence.0.password"],
        ["config.toml:13", "channel.ssh.token"],
    ]


@pytest.mark.parametrize("key", ["auth", "password"])
def test_a_literal_secret_is_refused_and_not_repeated(site, key):
    lines = [f'{key} = "topsecret"' if line.startswith(key) else line for line in site.good.splitlines()]
    [told] = site.told("\n".join(lines))
    assert f"{key}: a secret does not belong into the configuration. Write where to read it" in told
    assert "topsecret" not in told


def test_a_secret_that_the_plugin_quotes_is_masked(site):
    site.secret("bmc", "a-very-long-password-of-mine")
    [told] = site.told(site.good)
    assert told == "config.toml:11: fence.0.password: *** is too long. At most 20 bytes"


def test_login_data_without_a_user_are_refused_without_quoting_them(site):
    site.secret("one_auth", "topsecret")
    [told] = site.told(site.good)
    assert "config.toml:3: opennebula.auth: the secret is not of the form user:password" in told
    assert "topsecret" not in told


def test_login_data_in_the_endpoint_are_refused_because_it_is_logged(site):
    [problem] = site.problems(site.good.replace("[guard]", 'endpoint = "http://me:topsecret@oned/RPC2"\n[guard]'))
    assert "must not name a user" in problem.message
    assert "topsecret" not in str(problem)


def test_a_plugin_that_falls_over_is_told_and_logged_without_the_secret(site):
    text = site.good.replace("ipmi", "broken").replace('address = "{FENCE_IP}"\nusername = "admin"\n', "")
    with structlog.testing.capture_logs() as logs:
        [told] = site.told(text)
    assert told.startswith("config.toml:6: fence.0: its plugin cannot check these settings (TypeError)")
    assert "_falls_over" in logs[0]["frames"]
    assert "hunter2" not in told + str(logs)


# --- placeholders -----------------------------------------------------------------------------------------------------


def test_a_value_with_a_placeholder_is_checked_per_host_only(site):
    config = site.load(site.good + 'port = "{FENCE_PORT}"\nkg = "{FENCE_KG}"\n')
    assert config.fence[0].settings["port"] == "{FENCE_PORT}"


def test_a_placeholder_beside_does_not_excuse_another_value(site):
    assert "fence.0.port: must be less than or equal to 65535: 99999" in site.told(site.good + "port = 99999\n")[0]


def test_a_secret_with_a_placeholder_inside_is_a_literal_one(site):
    [told] = site.told(site.good + 'kg = "topsecret{X}"\n')
    assert "a secret does not belong into the configuration" in told
    assert "topsecret" not in told


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('mode = "auto"\nnonsense\n', "config.toml:2: not TOML: Expected '='"),
        ('mode = "auto"\n\nx = [1,\n', "config.toml:4: not TOML: Invalid value (at end of document)"),
        ('mode = "auto"\n"\\q" = 1\n', "config.toml:2: not TOML: Unescaped"),
        ("a = 1\na = 2\n", "config.toml:2: not TOML: Cannot overwrite a value"),
        (f"a = {'9' * 5000}\n", "config.toml: not TOML: Exceeds the limit"),
        (f"a = {'[' * 5000}{']' * 5000}\n", "config.toml: not TOML: nested too deeply"),
        (f"a{'.a' * 5000} = 1\n", "config.toml: not TOML: nested too deeply"),
    ],
)
def test_text_that_is_no_toml_is_told_with_its_line(site, text, expected):
    assert site.told(text)[0].startswith(expected)


def test_a_file_that_is_not_utf_8_is_told(site):
    site.path.write_bytes(b'mode = "\xff"\n')
    assert site.told() == ["config.toml: not UTF-8 text. Save it as UTF-8"]


def test_a_missing_file_is_one_clear_problem(site):
    assert site.told() == [
        f"{site.path}: cannot be read (No such file or directory). "
        "It must be there, for the user that runs ha-controller. Another place: --config FILE"
    ]


def test_a_folder_is_no_file(site):
    site.path.mkdir()
    assert "cannot be read (Is a directory)" in site.told()[0]


def test_all_files_that_cannot_be_read_are_told_together(site):
    site.write("nonsense", "conf.d/10.toml")
    site.write("also nonsense", "conf.d/20.toml")
    places = [told.split(": ")[0] for told in site.told("= 1\n")]
    assert places == ["config.toml:1", "conf.d/10.toml:1", "conf.d/20.toml:1"]
