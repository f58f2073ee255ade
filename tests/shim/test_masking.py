"""Secrets never reach the journal."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable

import pytest

import cc_executor.shim.records as fmt
from cc_executor.policy.redact import Redactor
from cc_executor.shim.mask import MASK, Masker, patterns
from support.shims import Run, until

Start = Callable[..., Run]

SECRET = "sk-ant-canary-0123456789"


def masked(secrets: list[str], blocks: list[bytes]) -> tuple[bytes, int]:
    masker = Masker(patterns(secrets))
    data = b"".join([masker.feed(block) for block in blocks] + [masker.close()])
    return data, masker.count


def every_split(data: bytes) -> list[list[bytes]]:
    return [[data[:place], data[place:]] for place in range(len(data) + 1)] + [[data[i : i + 1] for i in range(len(data))]]


@pytest.mark.row("threats", "redaction", "known values first, shapes second; split, escaped and overlapping ones too")
def test_a_secret_is_masked_however_it_is_split() -> None:
    data = f"a {SECRET} b {SECRET}{SECRET} sk-ant-canary-012345678x".encode()
    for blocks in every_split(data):
        assert masked([SECRET], blocks) == (b"a [masked] b [masked][masked] sk-ant-canary-012345678x", 3)


def test_overlapping_secrets_leave_no_part_of_either() -> None:
    secrets = ["12345678", "5678abcd", "12345678-long-form", "ab-12345678-cd"]
    for text, expected in (
        ("x12345678abcdy", "x[masked]y"),
        ("x12345678-long-formy", "x[masked]y"),
        ("x12345678-long-fory", "x[masked]-long-fory"),
        ("x1234567", "x1234567"),
        ("xab-12345678-cdy", "x[masked]y"),
        ("xab-12345678-cey", "xab-[masked]-cey"),
    ):
        for blocks in every_split(text.encode()):
            assert masked(secrets, blocks)[0] == expected.encode(), (text, blocks)


def test_a_secret_is_masked_in_its_json_forms() -> None:
    secret = 'pass"word\\with\nnewline-ü'
    for ascii_only in (True, False):
        once = json.dumps({"text": secret}, ensure_ascii=ascii_only)
        twice = json.dumps({"partial_json": once}, ensure_ascii=ascii_only)
        for text in (once, twice):
            data, count = masked([secret], [text.encode()])
            assert count == 1
            assert b"newline" not in data
            json.loads(data)


@pytest.mark.parametrize(
    "written",
    [
        r"wJal\/K7<&x=b'9",  # PHP's json_encode
        r"wJal/K7\u003c\u0026x=b'9",  # Go's encoding/json
        r"wJal/K7\u003c\u0026x\u003db\u00279",  # Gson
    ],
)
def test_a_secret_is_masked_where_json_escapes_more_than_it_must(written: str) -> None:
    secret = "wJal/K7<&x=b'9"
    assert json.loads(f'"{written}"') == secret
    for text in (written, json.dumps(written)[1:-1]):
        assert masked([secret], [f"it is {text}.".encode()]) == (b"it is [masked].", 1)
        assert Redactor([secret]).text(f"it is {text}.") == "it is [masked]."


def test_a_secret_that_is_no_text_is_masked_as_the_bytes_that_it_is() -> None:
    secret = b"caf\xe9-password"  # Latin-1, as an environment may hold it
    assert masked([os.fsdecode(secret)], [b"it is " + secret]) == (b"it is [masked]", 1)
    as_node_writes_it = secret.decode("utf-8", "replace")
    for told in (as_node_writes_it, json.dumps(as_node_writes_it)[1:-1]):
        assert masked([os.fsdecode(secret)], [f"it is {told}".encode()]) == (b"it is [masked]", 1)
    no_text = ("\ufffd" * 9 + "abc").encode()
    assert masked([os.fsdecode(b"\xff" * 9 + b"abc")], [no_text]) == (no_text, 0), "such as any file that is no text has"


def test_short_secrets_are_left_alone() -> None:
    assert masked(["short77", ""], [b"a short77 text"]) == (b"a short77 text", 0)


def test_what_is_held_back_is_bounded_by_the_longest_secret() -> None:
    masker = Masker(patterns(["aaaaaaaaaa"]))
    written = sum(len(masker.feed(b"a" * 1000)) for _ in range(100))
    rest = masker.close()
    assert written + len(rest) < 100
    assert masker.count == 1
    plain = Masker(patterns([SECRET]))
    data = SECRET[:-1].encode()
    assert plain.feed(data) == b""
    assert plain.feed(b"!") == data + b"!"


def test_random_streams_agree_with_masking_the_whole() -> None:
    choose = random.Random(20240607)  # noqa: S311  # a seed, so that a failure can be repeated
    for _ in range(300):
        secrets = ["".join(choose.choice("ab") for _ in range(choose.randint(8, 14))) for _ in range(choose.randint(1, 4))]
        data = "".join(choose.choice("aab") for _ in range(200)).encode()
        blocks: list[bytes] = []
        rest = data
        while rest:
            size = choose.randint(1, 40)
            blocks.append(rest[:size])
            rest = rest[size:]
        assert masked(secrets, blocks) == whole(secrets, data)


def whole(secrets: list[str], data: bytes) -> tuple[bytes, int]:
    """The same by marking each covered byte."""
    spans = sorted((at, at + len(s)) for s in {item.encode() for item in secrets} for at in range(len(data)) if data.startswith(s, at))
    out, place, count = b"", 0, 0
    for begin, end in spans:
        if begin >= place:
            out += data[place:begin] + MASK
            count += 1
        place = max(place, end)
    return out + data[place:], count


@pytest.mark.row("threats", "redaction", "known values first, shapes second; split, escaped and overlapping ones too")
def test_the_journal_never_sees_a_secret_that_comes_in_two_writes(start: Start) -> None:
    code = """
import os, time
os.write(1, b"begin sk-ant-cana")
time.sleep(0.2)
os.write(1, b"ry-0123456789 middle\\n")
os.write(2, b"err sk-ant-canary-0123456789")
os.write(1, b"tail sk-ant-can")
"""
    run = start(code, secrets=[SECRET])
    facts = run.wait()
    assert run.read() == b"begin [masked] middle\ntail sk-ant-can"
    assert run.read(fmt.STDERR) == b"err [masked]"
    assert facts["masked"] == {"stdout": 1, "stderr": 1}
    assert facts["written"]["stdout"] == len(run.read())


def test_only_what_could_become_a_secret_is_held_back(start: Start) -> None:
    run = start("import os, time; os.write(1, b'line\\nsk-a'); time.sleep(60)", secrets=[SECRET])
    until(lambda: run.read() == b"line\n")
    run.ask(op="cancel", now=True)
    run.wait()
    assert run.read() == b"line\nsk-a"


@pytest.mark.row("threats", "redaction", "known values first, shapes second; split, escaped and overlapping ones too")
def test_a_secret_in_a_leftover_command_is_masked(start: Start) -> None:
    far = "x" * 170  # what is told of a command ends in the midst of the secret
    # It ends when its child is what it is to be: until `exec` that has the shell's own command.
    left = f"sh -c 'sleep 61; : {far} {SECRET}' >/dev/null 2>&1 & until grep -qa ^sh /proc/$!/cmdline; do :; done"
    run = start(("/bin/sh", "-c", f"sleep 60 >/dev/null 2>&1 & {left}"), secrets=[SECRET])
    facts = run.wait()
    commands = " ".join(item["command"] for item in facts["left_behind"])
    assert "[masked]" in commands
    assert SECRET[:6] not in commands
    assert SECRET[:6].encode() not in run.read(fmt.CONTROL)
