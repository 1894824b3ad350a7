"""Files with a token, and who else may write to them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from registrator.settings import SettingError, parse_consul

NOBODY = 65534


def token(path: Path, env: dict[str, str] | None = None) -> str:
    return parse_consul("http://c", env or {}, "" if env else str(path)).token


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A token file in a folder of its own."""
    folder = tmp_path / "secrets"
    folder.mkdir(mode=0o755)
    file = folder / "token"
    file.write_text("secret\n")
    file.chmod(0o600)
    return file


@pytest.mark.parametrize("mode", [0o400, 0o440, 0o444, 0o600, 0o640, 0o644])
def test_who_may_read_it_is_the_operators_choice(file: Path, mode: int) -> None:
    file.chmod(mode)
    assert token(file) == "secret"
    assert token(file, {"CONSUL_HTTP_TOKEN_FILE": str(file)}) == "secret"


def group_may_write(file: Path) -> None:
    file.chmod(0o660)


def all_may_write(file: Path) -> None:
    file.chmod(0o602)


def somebody_elses(file: Path) -> None:
    os.chown(file, NOBODY, NOBODY)


def in_a_folder_of_all(file: Path) -> None:
    file.parent.chmod(0o777)


def in_a_folder_of_a_group(file: Path) -> None:
    file.parent.chmod(0o775)


def in_a_folder_of_somebody_else(file: Path) -> None:
    os.chown(file.parent, NOBODY, NOBODY)


def behind_a_link_out_of_a_folder_of_all(file: Path) -> None:
    real = file.parent.parent / "real"
    file.rename(real)
    file.symlink_to(real)
    file.parent.chmod(0o777)


def behind_a_link_into_a_folder_of_all(file: Path) -> None:
    folder = file.parent.parent / "open"
    folder.mkdir()
    folder.chmod(0o777)
    file.rename(folder / "real")
    file.symlink_to(folder / "real")


def behind_a_link_of_somebody_else(file: Path) -> None:
    file.parent.chmod(0o1777)
    real = file.parent.parent / "real"
    file.rename(real)
    file.symlink_to(real)
    os.lchown(file, NOBODY, NOBODY)


FAULTS = [
    group_may_write,
    all_may_write,
    somebody_elses,
    in_a_folder_of_all,
    in_a_folder_of_a_group,
    in_a_folder_of_somebody_else,
    behind_a_link_out_of_a_folder_of_all,
    behind_a_link_into_a_folder_of_all,
    behind_a_link_of_somebody_else,
]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("by", ["option", "variable"])
def test_what_others_may_change_is_refused(file: Path, fault: Callable[[Path], None], by: str) -> None:
    """In one line that names the path and the command to put it right."""
    fault(file)
    with pytest.raises(SettingError, match=r"token file .* is refused: .*; ch(mod|own) ") as caught:
        token(file, {"CONSUL_HTTP_TOKEN_FILE": str(file)} if by == "variable" else None)
    assert "\n" not in str(caught.value)
    assert "secret\n" not in str(caught.value)


@pytest.mark.parametrize("variable", ["CONSUL_CACERT", "CONSUL_CLIENT_CERT", "CONSUL_CLIENT_KEY"])
def test_tls_files_that_others_may_change_are_refused(file: Path, variable: str) -> None:
    file.chmod(0o666)
    with pytest.raises(SettingError, match="is refused: others may write"):
        parse_consul("https://c", {variable: str(file)})


def test_a_sticky_folder_is_as_good_as_an_own_one(file: Path) -> None:
    """In /tmp nobody replaces the file of another."""
    file.parent.chmod(0o1777)
    assert token(file) == "secret"


@pytest.mark.parametrize("content", [b"a\nb", b"a b", b"\x1b[31m", b"\xff\xfe", b"x" * 5000])
def test_what_is_no_token_is_refused(file: Path, content: bytes) -> None:
    """It would end up in a header."""
    file.write_bytes(content)
    with pytest.raises(SettingError, match="token file"):
        token(file)


def test_a_file_without_an_end_is_refused() -> None:
    with pytest.raises(SettingError, match=r"is refused"):
        token(Path("/dev/zero"))


def test_a_pipe_will_do() -> None:
    """As a shell makes it of <(command)."""
    read, write = os.pipe()
    os.write(write, b"secret\n")
    os.close(write)
    assert token(Path(f"/dev/fd/{read}")) == "secret"
    os.close(read)


def test_the_agent_does_not_start_with_it(file: Path) -> None:
    """Exit code 2, one line, without the token."""
    file.chmod(0o666)
    command = [sys.executable, "-m", "registrator", "agent", "--consul", "http://127.0.0.1:1"]
    done = subprocess.run(
        [*command, "--consul-token-file", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "others may write to" in done.stderr
    assert "Traceback" not in done.stderr
    assert "secret\n" not in done.stderr
