"""Settings from the environment, and the sentence for each that is not usable."""

import pytest

from openclaw_operator.config import PREFIX, Config, ConfigError


def test_without_any_variable_every_setting_has_its_default() -> None:
    assert Config.from_environment({}) == Config()


def test_variables_are_read_by_their_name_and_others_left_alone() -> None:
    config = Config.from_environment(
        {
            "OPENCLAW_RUNTIME_IMAGE": "registry.example/runtime:1",
            "OPENCLAW_WORKERS": "4",
            "OPENCLAW_RESYNC_SECONDS": "30.5",
            "OPENCLAW_WATCH_NAMESPACES": " team-a, team-b ,",
            "OPENCLAW_DEFAULT_CPU": "",
            "OPENCLAW_PORT": "tcp://10.0.0.1:80",
            "PATH": "/bin",
        }
    )
    assert config == Config(
        runtime_image="registry.example/runtime:1",
        workers=4,
        resync_seconds=30.5,
        watch_namespaces=("team-a", "team-b"),
    )


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("WORKERS", "0", "OPENCLAW_WORKERS='0': Input should be greater than or equal to 1"),
        ("WORKERS", "many", "OPENCLAW_WORKERS='many': Input should be a valid integer"),
        ("IMAGE_PULL_POLICY", "Sometimes", "OPENCLAW_IMAGE_PULL_POLICY='Sometimes': String should match pattern"),
        ("HEALTH_PORT", "70000", "OPENCLAW_HEALTH_PORT='70000': Input should be less than or equal to 65535"),
        ("RESYNC_SECONDS", "1", "OPENCLAW_RESYNC_SECONDS='1': Input should be greater than or equal to 10"),
        ("RESYNC_SECONDS", "nan", "OPENCLAW_RESYNC_SECONDS='nan'"),
        ("OVERDUE_SECONDS", "inf", "OPENCLAW_OVERDUE_SECONDS='inf'"),
        ("LEASE_SECONDS", "2", "OPENCLAW_LEASE_SECONDS='2'"),
        ("LEASE_NAME", "x" * 64, "OPENCLAW_LEASE_NAME='xxx"),
        ("REVISION_HISTORY_LIMIT", "0", "OPENCLAW_REVISION_HISTORY_LIMIT='0'"),
        ("DEFAULT_CPU", "a lot", "OPENCLAW_DEFAULT_CPU='a lot': 'a lot' is not a quantity"),
        ("DEFAULT_MEMORY", "-1Gi", "OPENCLAW_DEFAULT_MEMORY='-1Gi': must not be negative"),
        ("OPTIMIZER_CACHE_URI", "http://host/x", "OPENCLAW_OPTIMIZER_CACHE_URI='http://host/x': must begin with"),
        ("OPTIMIZER_CACHE_URI", "file://x", "OPENCLAW_OPTIMIZER_CACHE_URI='file://x': must begin with one of s3://"),
        ("URL_TEMPLATE", "http://{host}", "OPENCLAW_URL_TEMPLATE='http://{host}': may hold {name} and {namespace}"),
        ("URL_TEMPLATE", "http://{name", "OPENCLAW_URL_TEMPLATE='http://{name': may hold {name} and {namespace}"),
        ("URL_TEMPLATE", "http://{}", "OPENCLAW_URL_TEMPLATE='http://{}': may hold {name} and {namespace}"),
    ],
)
def test_a_setting_that_is_not_usable_is_named_with_its_value_and_what_is_allowed(
    name: str, value: str, sentence: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        Config.from_environment({PREFIX + name: value})
    assert str(refused.value).startswith(sentence)


def test_every_wrong_setting_is_named_at_once() -> None:
    with pytest.raises(ConfigError, match=r"OPENCLAW_WORKERS=.*; OPENCLAW_HEALTH_PORT="):
        Config.from_environment({"OPENCLAW_HEALTH_PORT": "-1", "OPENCLAW_WORKERS": "0"})


def test_every_setting_is_described() -> None:
    assert [name for name, field in Config.model_fields.items() if not field.description] == []


def test_a_url_has_the_services_name_and_namespace() -> None:
    assert Config().url(namespace="vision", name="digits") == "http://digits.vision.svc"
