from __future__ import annotations

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_executor.policy.redact import MASK, SHORTEST, Redactor, is_secret_name, secret_values

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

SHAPED = [
    "sk-ant-api03-" + "aB3_-" * 12,
    "sk-proj-" + "Zx9" * 12,
    "ghp_" + "a1B2" * 9,
    "github_pat_" + "A1_b" * 12,
    "glpat-" + "x7-y" * 6,
    "AKIA" + "Q7" * 8,
    "ASIA" + "Q7" * 8,
    "xoxb-1234567890-abcdefghij",
    "AIza" + "Sy_D-" * 7,
    "hf_" + "aB1" * 11,
    "npm_" + "aB1c" * 9,
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N",
    "Bearer abcdefghijklmnop.qrstuv/wxyz==",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\nabc\n-----END RSA PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----\\nMIIEpAIBAAKCAQEA\\n-----END PRIVATE KEY-----",
]


@pytest.mark.parametrize("name", [
    "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN", "GITHUB_TOKEN", "GH_PAT", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID",
    "DB_PASSWORD", "PGPASSWORD", "MYSQL_PASSWD", "SSH_PASSPHRASE", "MY_APIKEY", "NPM_CONFIG__AUTH", "JUPYTERHUB_API_TOKEN", "github_token", "SECRET",
    "GOOGLE_CREDENTIALS", "SESSION_COOKIE", "DJANGO_SECRET_KEY_1", "MYSQL_PWD",
])  # fmt: skip
def test_names_of_secrets(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize("name", [
    "PATH", "PWD", "OLDPWD", "HOME", "GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "SSH_AUTH_SOCK", "XAUTHORITY", "KEYBOARD_LAYOUT", "AUTH_TYPE", "TOKEN_URL", "",
    "GIT_CREDENTIAL_HELPER", "TOKENIZERS_PARALLELISM", "CONDA_DEFAULT_ENV", "PASSENGER_COUNT", "PATCH_LEVEL", "COMPASS", "AUTHOR", "KEY_FILE",
])  # fmt: skip
def test_names_that_only_look_like_it(name: str) -> None:
    assert not is_secret_name(name)


def test_secret_values_of_an_environment() -> None:
    environ = {
        "ANTHROPIC_API_KEY": "sk-dummy-0123456789",
        "SHORT_TOKEN": "1234567",
        "EIGHT_TOKEN": "12345678",
        "INDEX_URL": "https://me@index.example/simple",
        "BOOLEAN_KEY": "true",
        "WORD_PASSWORD": "Password",
        "SSH_KEY": "/home/me/.ssh/id_ed25519",
        "TLS_KEY": "~/keys/tls.pem",
        "CA_SECRET": "./secret.pem",
        "BASE64_SECRET": "/Ab3dEfGhIjKlMnOpQrStUvWxYz0123456789+/=",
        "DATABASE_URL": "postgres://me:s3cr%40t-value@db:5432/x",
        "BROKEN_URL": "http://[::1@x",
        "HTTPS_PROXY": "http://proxy:8080",
        "SAME_TOKEN": "sk-dummy-0123456789",
        "PATH": "/usr/bin:/bin:/something/long",
    }
    assert secret_values(environ) == (
        "%2FAb3dEfGhIjKlMnOpQrStUvWxYz0123456789%2B%2F%3D", "/Ab3dEfGhIjKlMnOpQrStUvWxYz0123456789%2B/%3D",
        "/Ab3dEfGhIjKlMnOpQrStUvWxYz0123456789+/=", "sk-dummy-0123456789", "s3cr%40t-value", "s3cr@t-value", "12345678",
    )  # fmt: skip


def test_a_secret_is_known_as_it_stands_in_a_url_and_without_the_newline_of_its_file() -> None:
    known = secret_values({"MY_TOKEN": "a/b c!d+e=fé%\n"})
    text = Redactor(known).text
    for seen in ("a/b c!d+e=fé%", "a%2Fb%20c%21d%2Be%3Df%C3%A9%25", "a%2Fb%20c!d%2Be%3Df%C3%A9%25", "a/b%20c%21d%2Be%3Df%C3%A9%25"):
        assert text(f"https://example.org/?token={seen}&x=1") == f"https://example.org/?token={MASK}&x=1"
    assert secret_values({"MY_TOKEN": "plain-enough_1.0~"}) == ("plain-enough_1.0~",), "no more to look for than there is"
    assert secret_values({"MY_TOKEN": "undefined\n", "SSH_KEY": " /home/me/.ssh/id\n"}) == ()


@pytest.mark.parametrize("value", [
    "host=db user=me password=hunter2-hunter2 dbname=x", "host=db password = 'hunter2-hunter2'", "Server=db;User Id=me;Pwd=hunter2-hunter2;Encrypt=True",
    "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=hunter2-hunter2;EndpointSuffix=core.windows.net",
])  # fmt: skip
def test_a_secret_within_a_connection_string_is_known(value: str) -> None:
    assert secret_values({"STORE": value}) == ("hunter2-hunter2",)


@pytest.mark.parametrize(
    "value", ["password=$OTHER_PASSWORD", "PWD=short", '() {  password="$(cat file)"; }', "mkpassword", "password", "PWD=/home/me/project"]
)
def test_a_word_for_a_secret_is_none(value: str) -> None:
    assert secret_values({"STORE": value}) == ()


def test_a_colour_in_the_midst_of_a_secret_does_not_hide_it() -> None:
    key = "sk-ant-REDACTED"
    assert Redactor().seen(f"{key[:9]}\x1b[01;31m{key[9:]}") == MASK
    assert Redactor(["line one\r\nline two"]).seen("line one\r\nline two") == MASK, "nor does what a terminal leaves away"


@pytest.mark.row("threats", "redaction", "known values first, shapes second; split, escaped and overlapping ones too")
@pytest.mark.parametrize("key", SHAPED)
def test_keys_of_known_shapes_need_not_be_named(key: str) -> None:
    for before, after in (("", ""), ("key=", " end"), ('{"k":"', '"}'), ("(", ")"), ("é", "\n")):
        assert Redactor().text(f"{before}{key}{after}") == f"{before}{MASK}{after}"


def test_a_secret_that_is_no_utf8_is_masked_as_it_is_written_down() -> None:
    redactor = Redactor([os.fsdecode(b"caf\xe9-password"), os.fsdecode(b"\xff" * 9 + b"abc"), "\ud800-password"])
    for seen in ("caf\udce9-password", "caf\ufffd-password", "caf\\ufffd-password", "\ud800-password"):
        assert redactor.text(f"it is {seen}!") == f"it is {MASK}!"
    assert redactor.text("\ufffd" * 9 + "abc") == "\ufffd" * 9 + "abc", "such as any file that is no text has"


def test_of_a_secret_within_another_and_around_it_nothing_is_left() -> None:
    redactor = Redactor(["12345678", "ab-12345678-cd"])
    assert redactor.text("x ab-12345678-cd y 12345678 z") == f"x {MASK} y {MASK} z"


def test_half_a_private_key_is_masked_to_the_end() -> None:
    assert Redactor().text("a -----BEGIN EC PRIVATE KEY-----\nMHcCAQ\nmore") == f"a {MASK}"


@pytest.mark.parametrize("text", [
    "", "the task-ant-hill", "sk-short", "risk-management-of-the-whole-organisation", "ghp_short", "AKIAshort", "eyJ.a.b", "-----BEGIN CERTIFICATE-----",
    "sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "https://example.org/a?b=c", "3f0c1a52-6c1f-4c77-8a35-0a4be1d7a001",
    "desk-" + "a" * 30,
])  # fmt: skip
def test_ordinary_text_stays(text: str) -> None:
    assert Redactor(["", "short"]).text(text) == text


@pytest.mark.row("threats", "redaction", "known values first, shapes second; split, escaped and overlapping ones too")
@given(
    st.lists(st.text(LETTERS, min_size=SHORTEST, max_size=30), min_size=1, max_size=4),
    st.lists(st.tuples(st.text(max_size=10), st.integers(0, 3)), max_size=8),
)
def test_no_canary_gets_through(canaries: list[str], story: list[tuple[str, int]]) -> None:
    text = "".join(words + canaries[number % len(canaries)] for words, number in story)
    redactor = Redactor(canaries)
    masked = redactor.text(text)
    assert not any(canary in masked for canary in canaries)
    value = {"a": [text, {"b": (text, 1, None, True, 2.5)}], text: text}
    assert not any(canary in json.dumps(redactor.json(value), ensure_ascii=False) for canary in canaries)


@pytest.mark.row("threats", "redaction", "known values first, shapes second; split, escaped and overlapping ones too")
@given(st.text(min_size=SHORTEST, max_size=30).filter(lambda text: "[" not in text and "masked" not in text))
def test_a_canary_in_json_is_found_however_often_it_is_escaped(canary: str) -> None:
    redactor = Redactor([canary])
    once, twice = json.dumps({"v": canary}), json.dumps({"v": json.dumps({"v": canary}, ensure_ascii=False)}, ensure_ascii=False)
    assert json.loads(redactor.text(once)) == {"v": MASK}
    assert json.loads(json.loads(redactor.text(twice))["v"]) == {"v": MASK}


@given(st.text(max_size=200))
def test_masking_twice_is_masking_once(text: str) -> None:
    redactor = Redactor(["abcdefgh"])
    assert redactor.text(redactor.text(text)) == redactor.text(text)


def test_numbers_and_structure_stay() -> None:
    value = {"n": 1, "f": 1.5, "none": None, "list": [True, ["x"]], "t": ("a",)}
    assert Redactor(["abcdefgh"]).json(value) == {"n": 1, "f": 1.5, "none": None, "list": [True, ["x"]], "t": ["a"]}
