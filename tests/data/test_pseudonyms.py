"""Stand-ins and date shifts are fixed by the key alone, and the key stays where it belongs."""

from __future__ import annotations

import hashlib
import hmac
import multiprocessing
import os
import pickle
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvlm.data.pseudonyms import DIGITS, LONGEST_SHIFT, Key
from medvlm.errors import InputError, MedvlmError, UsageError

SECRET = bytes(range(32))
keys = st.binary(min_size=32, max_size=32).map(Key)
anything = st.text(st.characters(codec=None))


def one_line(error: pytest.ExceptionInfo[MedvlmError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.fixture
def place(tmp_path: Path) -> tuple[Path, Path]:
    """A key's path and a data set's folder beside it."""
    folder = tmp_path / "set"
    folder.mkdir()
    return tmp_path / "private" / "key", folder


def test_stand_in_is_hmac_sha256_of_kind_and_value_with_their_lengths() -> None:
    message = b"".join(len(part).to_bytes(8, "big") + part for part in (b"pseudonym", b"patient", "Zoë-7".encode()))
    inner = hashlib.sha256(bytes(b ^ 0x36 for b in SECRET.ljust(64, b"\0")) + message).digest()
    outer = hashlib.sha256(bytes(b ^ 0x5C for b in SECRET.ljust(64, b"\0")) + inner).hexdigest()
    assert outer == hmac.new(SECRET, message, "sha256").hexdigest()
    assert Key(SECRET).pseudonym("patient", "Zoë-7") == outer[:16]


@given(keys, anything, anything)
def test_stand_ins_are_fixed_by_the_key(key: Key, kind: str, value: str) -> None:
    found = key.pseudonym(kind, value)
    assert len(found) == DIGITS
    assert set(found) <= set("0123456789abcdef")
    assert Key(key.secret).pseudonym(kind, value) == found
    assert pickle.loads(pickle.dumps(key)).pseudonym(kind, value) == found


@given(keys, st.lists(st.tuples(anything, anything), unique=True, max_size=30))
def test_different_kinds_and_values_have_different_stand_ins(key: Key, pairs: list[tuple[str, str]]) -> None:
    assert len({key.pseudonym(*pair) for pair in pairs}) == len(pairs)


@given(keys, keys, anything)
def test_different_keys_have_different_stand_ins_and_fingerprints(first: Key, second: Key, value: str) -> None:
    same = first.secret == second.secret
    assert (first.pseudonym("patient", value) == second.pseudonym("patient", value)) is same
    assert (first.fingerprint == second.fingerprint) is same


@given(keys, anything)
def test_a_shift_is_into_the_past_by_a_year_at_most(key: Key, patient: str) -> None:
    assert -LONGEST_SHIFT <= key.shift(patient) <= -1
    assert key.shift(patient) == Key(key.secret).shift(patient)


def test_shifts_use_the_whole_year_evenly() -> None:
    shifts = [Key(SECRET).shift(str(number)) for number in range(365 * 40)]
    counts = [shifts.count(day) for day in range(-365, 0)]
    # Chi-square with 364 degrees of freedom: mean 364, standard deviation 27.
    assert 364 - 5 * 27 < sum((count - 40) ** 2 / 40 for count in counts) < 364 + 5 * 27


def test_stand_in_shift_and_fingerprint_do_not_meet() -> None:
    key = Key(SECRET)
    assert len({key.fingerprint, key.pseudonym("", ""), key.pseudonym("fingerprint", "")}) == 3


def test_the_secret_is_not_shown() -> None:
    key = Key(SECRET)
    assert SECRET.hex() not in f"{key!r} {key} {key.fingerprint}"
    assert repr(SECRET)[2:-1] not in repr(key)
    with pytest.raises(ValueError, match="32 bytes"):
        Key(b"short")


def test_a_key_is_made_once_private_and_read_again(place: tuple[Path, Path]) -> None:
    path, folder = place
    old = os.umask(0)
    try:
        key = Key.load(path, folder)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert path.read_text() == key.secret.hex() + "\n"
    assert [file.name for file in path.parent.iterdir()] == ["key"]
    assert Key.load(path, folder) == key
    assert Key.load(path.with_name("other"), folder) != key


def _load(arguments: tuple[Path, Path]) -> bytes:
    return Key.load(*arguments).secret


def test_processes_that_make_the_key_at_the_same_time_get_the_same(place: tuple[Path, Path]) -> None:
    with multiprocessing.get_context("forkserver").Pool(4) as pool:
        found = pool.map(_load, [place] * 16, chunksize=1)
    assert len(set(found)) == 1
    assert [file.name for file in place[0].parent.iterdir()] == ["key"]


@pytest.mark.parametrize(
    "name", ["set/key", "set/deep/er/key", "set/../set/key", "other/../set/key", "link/key", "set"]
)
def test_a_key_inside_the_data_set_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(UsageError) as error:
        Key.load(tmp_path / name, folder)
    assert "outside" in one_line(error)
    assert list(folder.iterdir()) == []


def test_a_key_reached_through_links_into_the_data_set_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    link = tmp_path / "key"
    link.symlink_to(folder / "key")
    with pytest.raises(UsageError):
        Key.load(link, folder)
    alias = tmp_path / "alias"
    alias.symlink_to(folder)
    with pytest.raises(UsageError):
        Key.load(folder / "key", alias)
    assert list(folder.iterdir()) == []


def test_a_folder_that_is_not_there_yet_and_a_neighbor_of_like_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        Key.load(tmp_path / "new" / "key", tmp_path / "new")
    assert not (tmp_path / "new").exists()
    Key.load(tmp_path / "new-key", tmp_path / "new")


def test_a_link_to_a_key_outside_is_followed(place: tuple[Path, Path], tmp_path: Path) -> None:
    path, folder = place
    key = Key.load(path, folder)
    link = tmp_path / "link"
    link.symlink_to(path)
    assert Key.load(link, folder) == key
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "private" / "second")
    assert Key.load(dangling, folder).secret.hex() == (tmp_path / "private" / "second").read_text().strip()
    assert dangling.is_symlink()


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o602, 0o620, 0o666])
def test_a_key_that_others_may_read_is_refused_with_the_command_that_mends_it(
    place: tuple[Path, Path], mode: int
) -> None:
    path, folder = place[0].with_name("a key's file"), place[1]
    key = Key.load(path, folder)
    path.chmod(mode)
    with pytest.raises(InputError) as error:
        Key.load(path, folder)
    command = one_line(error).partition("run: ")[2]
    assert os.system(command) == 0
    assert Key.load(path, folder) == key


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"ab" * 31, b"ab" * 33, b"zz" * 32, b"\xff\x00" * 32, b"a" * 5000, b"ab" * 16 + b" " + b"ab" * 16],
)
def test_a_file_of_another_form_is_refused_unseen_and_untouched(place: tuple[Path, Path], content: bytes) -> None:
    path, folder = place
    path.parent.mkdir()
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(InputError) as error:
        Key.load(path, folder)
    assert "64 hex digits" in one_line(error)
    assert "abab" not in str(error.value)
    assert path.read_bytes() == content


def test_what_is_no_file_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "directory").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("pipe", "directory", "loop", "directory/../pipe/key", "nul\0"):
        with pytest.raises(InputError) as error:
            Key.load(tmp_path / name, folder)
        one_line(error)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_key_and_an_unwritable_folder(place: tuple[Path, Path]) -> None:
    path, folder = place
    Key.load(path, folder)
    path.chmod(0)
    with pytest.raises(InputError, match="Permission denied"):
        Key.load(path, folder)
    path.parent.chmod(0o500)
    with pytest.raises(InputError, match="Permission denied"):
        Key.load(path.with_name("new"), folder)
    path.parent.chmod(0o700)
