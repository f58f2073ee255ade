"""The key that signs: made once whoever comes first, private, replaced on request, and never a reason to lose a run."""

from __future__ import annotations

import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cc_executor.errors import InvalidRequest, StateUnusable
from cc_executor.store import keys, lock
from cc_executor.store.home import StateHome
from cc_executor.store.keys import (
    PRIVATE,
    PUBLIC,
    holds,
    line_of,
    own_keys,
    pem_of,
    private_values,
    public_keys,
    rotate,
    signer_of,
    signing_key,
)
from support.environments import CHECKOUT

MAKERS = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from cc_executor.store.home import StateHome
from cc_executor.store.keys import signing_key
sys.stdin.readline()
with ThreadPoolExecutor(8) as pool:
    for made in pool.map(lambda _: signing_key(StateHome(Path(sys.argv[1]))).fingerprint, range(8)):
        print(made)
"""


def test_processes_that_are_the_first_at_once_get_one_key(home: StateHome) -> None:
    environ = {"PYTHONPATH": str(CHECKOUT / "src"), "PYTHONSWITCHINTERVAL": "1e-6"}
    makers = [
        subprocess.Popen(
            [sys.executable, "-c", MAKERS, str(home.root)], env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    for maker in makers:
        assert maker.stdin is not None
        maker.stdin.write("go\n")
        maker.stdin.flush()
    seen = {line for maker in makers for line in maker.communicate(timeout=60)[0].split()}
    assert seen == {signing_key(home).fingerprint}
    assert list(own_keys(home)) == list(seen)


def test_the_private_half_is_the_user_s_alone(home: StateHome) -> None:
    signing_key(home)
    assert [stat.S_IMODE((home.root / name).stat().st_mode) for name in (PRIVATE, PUBLIC)] == [0o600, 0o600]
    assert (home.root / PUBLIC).read_text().startswith("ssh-ed25519 ")
    assert not list(home.root.glob("*.new"))


def test_a_new_key_leaves_the_old_public_one(home: StateHome) -> None:
    old = signing_key(home)
    signature = old.sign(b"x").hex()
    new = rotate(home)
    assert list(own_keys(home)) == [old.fingerprint, new.fingerprint]
    assert signing_key(home).fingerprint == new.fingerprint
    known = own_keys(home)[old.fingerprint]
    assert holds(known, signature, b"x")
    assert not holds(known, signature, b"y")
    assert not holds(known, signature.upper(), b"x")
    assert not holds(known, f"{signature} ", b"x")
    assert not holds(own_keys(home)[new.fingerprint], signature, b"x")


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda path: path.write_text("no key\n"), "damaged"),
        (lambda path: path.write_text("00" * 31), "damaged"),
        (lambda path: path.write_bytes(b"\xff" * 64), "damaged"),
        (lambda path: path.chmod(0o640), "open to others"),
        (lambda path: (path.unlink(), path.symlink_to("/etc/passwd")), "symbolic link"),
        (lambda path: (path.unlink(), path.mkdir()), "no plain file"),
    ],
)
def test_a_key_that_cannot_be_trusted_is_said_and_costs_no_run(home: StateHome, harm: Callable[[Path], object], said: str) -> None:
    signing_key(home)
    harm(home.root / PRIVATE)
    with pytest.raises(StateUnusable, match=said) as caught:
        signing_key(home)
    assert "key rotate" in str(caught.value)
    assert signer_of(home.root) is None
    assert all(len(value) == 64 for value in private_values(home.root)), "what was planted there is not masked everywhere"
    if (home.root / PRIVATE).is_dir():
        with pytest.raises(StateUnusable, match="directory"):
            rotate(home)
    else:
        assert rotate(home).fingerprint == signing_key(home).fingerprint


def test_who_holds_the_lock_does_not_hold_up_a_run(home: StateHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "PATIENCE", 0.05)
    home.prepare()
    with lock.locked(home.root / keys.LOCK):
        assert signer_of(home.root) is None
    assert signer_of(home.root) is not None


def test_without_the_library_nothing_is_made_and_the_cure_is_named(home: StateHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "is_available", lambda: False)
    assert signer_of(home.root) is None
    assert not (home.root / PRIVATE).exists()
    for ask in (signing_key, rotate):
        with pytest.raises(InvalidRequest, match=r"cc-executor\[signing\]"):
            ask(home)


def test_public_keys_are_read_as_pem_and_as_lines(home: StateHome) -> None:
    one, two = signing_key(home), rotate(home)
    assert list(public_keys(pem_of(one.public).encode())) == [one.fingerprint]
    lines = f"# ours\n{line_of(one.public)}\n\n{line_of(two.public)}\n"
    assert list(public_keys(lines.encode())) == [one.fingerprint, two.fingerprint]
    several = f"from Ann\n{pem_of(one.public)}from Bob\n{pem_of(two.public)}"
    assert list(public_keys(several.encode())) == [one.fingerprint, two.fingerprint]
    assert list(public_keys(f"{pem_of(one.public)}{line_of(two.public)}\n".encode())) == [one.fingerprint, two.fingerprint]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"# nothing\n",
        b"hello",
        b"ssh-ed25519 AAAA",
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        b"-----BEGIN PRIVATE KEY-----\n",
        X25519PrivateKey.generate().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        b"\xff\xfe\x00",
    ],
)
def test_what_is_no_public_key_is_refused_in_a_sentence(text: bytes) -> None:
    with pytest.raises(InvalidRequest, match="key export"):
        public_keys(text)


def test_a_fingerprint_is_that_of_openssh() -> None:
    # The first key of RFC 8032, section 7.1; the name is what OpenSSH 9.2 says of it.
    private = Ed25519PrivateKey.from_private_bytes(bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"))
    assert keys.fingerprint_of(private.public_key()) == "SHA256:bbXpuKG6zhzdmnxq256TlqzFBzRl2f6OOg722cYNbU8"
