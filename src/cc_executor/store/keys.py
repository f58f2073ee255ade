"""The key that signs receipts: one Ed25519 pair (RFC 8032) for each state folder, and the public halves of those before it.

Plain files of the state folder, which is 0700: the private key alone in one of 0600, and a line for each public key as OpenSSH writes it. Everything that
is cryptography is the library's (`pip install 'cc-executor[signing]'`), which is loaded when it is first needed; without it nothing is signed.
"""

from __future__ import annotations

import base64
import hashlib
import importlib
import logging
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from cc_executor.errors import InvalidRequest, StateUnusable
from cc_executor.store.home import StateHome
from cc_executor.store.lock import locked
from cc_executor.store.plain import open_plain, read_plain

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

Keys: TypeAlias = "Mapping[str, Ed25519PublicKey]"  # by fingerprint

logger = logging.getLogger(__name__)

PRIVATE: Final = "signing-key"  # 64 hex digits: the 32 bytes of RFC 8032, in one word, so that they can be masked wherever they appear
PUBLIC: Final = "signing-keys.pub"  # every key that ever signed here, newest last
LOCK: Final = "signing.lock"
NO_LIBRARY: Final = "Signatures need the library `cryptography`: `pip install 'cc-executor[signing]'`."
_LIMIT: Final = 1024 * 1024  # bytes; thousands of keys
_RAW: Final = 32  # bytes of either half
_BEGIN: Final = b"-----BEGIN"  # of a key as PEM
_BLOB: Final = b"\0\0\0\x0bssh-ed25519\0\0\0\x20"  # RFC 8709, section 4: then the public half


class SigningKey:
    """A private key, at work.

    Attributes
    ----------
    fingerprint : str
        ``SHA256:`` and 43 characters, as `ssh-keygen -l` prints it.
    """

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = private.public_key()
        self.fingerprint = fingerprint_of(self.public)

    def sign(self, message: bytes) -> bytes:
        """The signature, 64 bytes."""
        return self._private.sign(message)


def is_available() -> bool:
    """Whether the library can be loaded; then it is."""
    try:
        importlib.import_module("cryptography.hazmat.primitives.asymmetric.ed25519")
    except ImportError:
        return False
    return True


def signer_of(root: Path) -> SigningKey | None:
    """The key of this state folder, made if there is none; None without the library, and where the key cannot be used: a run is worth more than its signature."""
    if not is_available():
        return None
    try:
        return signing_key(StateHome(root))
    except (StateUnusable, OSError) as error:
        logger.warning("receipts are not signed: %s", error)
        return None


def signing_key(home: StateHome) -> SigningKey:
    """The key of this state folder, made on first use. Of several processes that are the first, all get the same one.

    Raises
    ------
    InvalidRequest
        The library is missing.
    StateUnusable
        The folder or the key cannot be used.
    """
    if not is_available():
        raise InvalidRequest(NO_LIBRARY)
    home.check()
    try:
        return _read(home.root / PRIVATE)
    except FileNotFoundError:
        pass
    home.prepare()
    with locked(home.root / LOCK):
        try:
            return _read(home.root / PRIVATE)
        except FileNotFoundError:
            return _make(home.root)


def rotate(home: StateHome) -> SigningKey:
    """A new key for what is sealed from now on. The old private one is gone, its public half is kept.

    Raises
    ------
    InvalidRequest, StateUnusable
        As for `signing_key`; a key that cannot be used is replaced.
    """
    if not is_available():
        raise InvalidRequest(NO_LIBRARY)
    home.prepare()
    with locked(home.root / LOCK):
        return _make(home.root)


def own_keys(home: StateHome) -> dict[str, Ed25519PublicKey]:
    """Every key that signed in this state folder, by fingerprint, newest last. Lines that are no key are passed over; a folder that is not safe has none."""
    with suppress(OSError, StateUnusable):
        home.check()
        found: dict[str, Ed25519PublicKey] = {}
        for line in read_plain(home.root / PUBLIC, _LIMIT).splitlines():
            with suppress(InvalidRequest):
                found |= public_keys(line)
        return found
    return {}


def public_keys(text: bytes) -> dict[str, Ed25519PublicKey]:
    """The keys in a file, by fingerprint: as PEM, several below each other too, or one in each line as OpenSSH writes them (``ssh-ed25519 AAAA… comment``).

    Raises
    ------
    InvalidRequest
        It holds something else, or nothing.
    """
    if b"PRIVATE KEY" in text:
        raise InvalidRequest("This is a private key, and belongs to nobody else: give the public one (`cc-executor key export`).")
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key, load_ssh_public_key

    blocks = text.split(_BEGIN)[1:]
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith(b"#")]
    if blocks:  # their lines, and what is written around them for people
        lines = [line for line in lines if line.startswith(b"ssh-")]
    try:
        keys = [*(load_pem_public_key(_BEGIN + block) for block in blocks), *map(load_ssh_public_key, lines)]
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidRequest(
            f"This is no public key that can be read ({str(error).rstrip('.')}): `cc-executor key export` writes one."
        ) from error
    if not keys or not all(isinstance(key, Ed25519PublicKey) for key in keys):
        raise InvalidRequest("This holds no Ed25519 public key: `cc-executor key export` writes one.")
    return {fingerprint_of(key): key for key in keys if isinstance(key, Ed25519PublicKey)}


def public_keys_in(path: Path) -> dict[str, Ed25519PublicKey]:
    """As `public_keys`, of a file.

    Raises
    ------
    InvalidRequest
        The library is missing, the file cannot be read, or holds something else.
    """
    if not is_available():
        raise InvalidRequest(NO_LIBRARY)
    try:
        return public_keys(path.read_bytes()[:_LIMIT])
    except OSError as error:
        raise InvalidRequest(
            f"The key {path} cannot be read ({error.strerror}): name the file that `cc-executor key export` has written."
        ) from error
    except InvalidRequest as error:
        raise InvalidRequest(f"{path}: {error}") from error


def holds(key: Ed25519PublicKey, signature: str, message: bytes) -> bool:
    """Whether this key has made this signature (lower-case hex)."""
    from cryptography.exceptions import InvalidSignature

    try:
        raw = bytes.fromhex(signature)
        key.verify(raw, message)
    except (ValueError, InvalidSignature):
        return False
    return raw.hex() == signature  # not two ways to write the same


def private_values(root: Path) -> tuple[str, ...]:
    """What must not be seen in anything that a run leaves: the private key, if there is one. Needs no library.

    A run that was started before the first receipt of a state folder was sealed does not know it.
    """
    with suppress(OSError, ValueError):
        text = read_plain(root / PRIVATE, _LIMIT).decode("ascii").strip()
        return (text,) if len(bytes.fromhex(text)) == _RAW else ()  # a letter that was planted there would be masked everywhere
    return ()


def fingerprint_of(key: Ed25519PublicKey) -> str:
    """The name of a key, as `ssh-keygen -l` prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(_blob(key)).digest()).decode("ascii").rstrip("=")


def line_of(key: Ed25519PublicKey) -> str:
    """A public key in one line, as OpenSSH writes it."""
    return f"ssh-ed25519 {base64.b64encode(_blob(key)).decode('ascii')} cc-executor"


def pem_of(key: Ed25519PublicKey) -> str:
    """A public key as PEM (SubjectPublicKeyInfo, RFC 8410), as OpenSSL writes it."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")


def _blob(key: Ed25519PublicKey) -> bytes:
    return _BLOB + key.public_bytes_raw()


def _read(path: Path) -> SigningKey:
    """The private key of a file.

    Raises
    ------
    FileNotFoundError
        There is none.
    StateUnusable
        It is not ours alone, or no key.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    cure = "`cc-executor key rotate` makes a new one."
    try:
        with open(open_plain(path), "rb") as file:
            status = os.fstat(file.fileno())
            text = file.read(_LIMIT)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StateUnusable(f"The signing key {path} cannot be read ({error.strerror}). {cure}") from error
    if status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise StateUnusable(f"The signing key {path} is open to others, who may have it by now. {cure}")
    try:
        raw = bytes.fromhex(text.decode("ascii"))
        if len(raw) != _RAW:
            raise ValueError
    except ValueError as error:
        raise StateUnusable(f"The signing key {path} is damaged. {cure}") from error
    return SigningKey(Ed25519PrivateKey.from_private_bytes(raw))


def _make(root: Path) -> SigningKey:
    """A new key in the place of the one that may be there. Under the lock. First its public half is kept: nothing is signed that could not be verified."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private = Ed25519PrivateKey.generate()
    key = SigningKey(private)
    try:
        known = b""
        with suppress(FileNotFoundError):
            known = read_plain(root / PUBLIC, _LIMIT)
        _write(root / PUBLIC, b"".join(line + b"\n" for line in (*known.splitlines(), line_of(key.public).encode("ascii"))))
        _write(root / PRIVATE, private.private_bytes_raw().hex().encode("ascii") + b"\n")
    except OSError as error:
        raise StateUnusable(f"The signing key cannot be written to {root} ({error.strerror}). Make room, or mend the folder.") from error
    return key


def _write(place: Path, data: bytes) -> None:
    """The whole file or none, 0600 from its first moment."""
    part = place.with_name(f"{place.name}.new")
    with suppress(FileNotFoundError):  # of somebody who was killed here
        part.unlink()
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            os.fchmod(file.fileno(), 0o600)  # whatever the umask
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, place)
    except OSError:
        with suppress(OSError):
            part.unlink()
        raise
