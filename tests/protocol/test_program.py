"""What both command lines share: settings, private files, errors for people, services."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import os
import signal
import socket
import sys
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restunnel_protocol import PrivateKey
from restunnel_protocol.program import files, service
from restunnel_protocol.program.directories import add_data_dir, open_data_dir
from restunnel_protocol.program.errors import (
    ExitCode,
    ProgramError,
    describe_os_error,
    run_program,
)
from restunnel_protocol.program.files import (
    lock,
    make_private_directory,
    read_private,
    write_private,
)
from restunnel_protocol.program.keyfile import parse_key
from restunnel_protocol.program.settings import (
    Setting,
    add_flags,
    choice_of,
    format_duration,
    load_settings,
    parse_duration,
    resolve,
    service_settings,
    switch,
)
from restunnel_protocol.program.unix import bind_unix, connect_unix

# --- directories ------------------------------------------------------------------


def arguments_of(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_data_dir(parser)
    add_data_dir(parser.add_subparsers().add_parser("run"))
    return parser.parse_args(argv)


def test_the_data_directory_comes_from_flag_then_environment_then_user(tmp_path, monkeypatch):
    flags = ["--data-dir", str(tmp_path / "flag")]
    for argv in (["run", *flags], [*flags, "run"]):
        assert open_data_dir(arguments_of(*argv), "restunnel-hub") == tmp_path / "flag"
    monkeypatch.setenv("RESTUNNEL_HUB_DATA_DIR", str(tmp_path / "environment"))
    assert open_data_dir(arguments_of("run"), "restunnel-hub") == tmp_path / "environment"
    monkeypatch.delenv("RESTUNNEL_HUB_DATA_DIR")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    found = open_data_dir(arguments_of("run"), "restunnel-hub")
    assert found.is_relative_to(tmp_path / "home")
    assert found.stat().st_mode & 0o777 == 0o700


def test_a_data_directory_open_to_others_is_closed_to_them(tmp_path):
    (tmp_path / "data").mkdir(mode=0o755)
    make_private_directory(tmp_path / "data")
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700


def test_a_data_directory_that_cannot_be_used_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ProgramError, match="cannot use the data directory"):
        make_private_directory(tmp_path / "file" / "data")
    (tmp_path / "data").mkdir(mode=0o755)

    def refuse(*_):
        raise PermissionError(errno.EPERM, "no")

    monkeypatch.setattr("pathlib.Path.chmod", refuse)
    with pytest.raises(ProgramError, match="open to other users") as caught:
        make_private_directory(tmp_path / "data")
    assert caught.value.hint.startswith("chmod 700")


# --- files ------------------------------------------------------------------------


def test_private_files_are_written_whole_and_for_their_owner_alone(tmp_path):
    path = tmp_path / "key"
    write_private(path, b"old")
    write_private(path, b"new")
    assert (read_private(path), path.stat().st_mode & 0o777) == (b"new", 0o600)
    with pytest.raises(FileExistsError):
        write_private(path, b"another", replace=False)
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]
    with pytest.raises(FileNotFoundError):
        read_private(tmp_path / "missing")


def test_private_files_that_are_not_private_are_refused(tmp_path):
    path = tmp_path / "key"
    write_private(path, b"secret")
    path.chmod(0o640)
    with pytest.raises(ProgramError, match="other users can read it"):
        read_private(path)
    path.chmod(0o600)
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(ProgramError, match="cannot read"):
        read_private(tmp_path / "link")
    with pytest.raises(ProgramError, match="cannot read"):
        read_private(tmp_path)
    os.mkfifo(tmp_path / "fifo", 0o600)
    with pytest.raises(ProgramError, match="not a regular file"):
        read_private(tmp_path / "fifo")


def test_a_write_that_fails_leaves_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "key"
    write_private(path, b"old")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(ProgramError, match="no space left on device"):
        write_private(path, b"new")
    monkeypatch.undo()
    assert read_private(path) == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_lock_is_held_by_one_at_a_time(tmp_path):
    with lock(tmp_path / "lock", "a hub"), pytest.raises(ProgramError, match="already running"):
        lock(tmp_path / "lock", "a hub")
    lock(tmp_path / "lock", "a hub").close()


def test_locks_and_files_work_where_posix_is_not(tmp_path, monkeypatch):
    """As on Windows, which has msvcrt and cannot sync directories."""
    taken = []
    fake = types.SimpleNamespace(LK_NBLCK=2, locking=lambda *call: taken.append(call[1:]))
    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", fake)
    lock(tmp_path / "lock", "a hub").close()
    assert taken == [(2, 1)]
    path = str(tmp_path)
    monkeypatch.setattr(files.os, "name", "nt")
    files._sync_directory(path)


def test_a_key_file_holds_a_key(tmp_path):
    key = PrivateKey.generate()
    assert parse_key(tmp_path, key.raw) == key
    with pytest.raises(ProgramError, match="31 bytes instead of 32"):
        parse_key(tmp_path, bytes(31))


# --- errors -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.EADDRINUSE, "Errno 98 while attempting"), "address in use"),
        (OSError(errno.EACCES, "x"), "permission denied"),
        (OSError("Something Else"), "something else"),
        (OSError(), "OSError"),
        (socket.gaierror(-2, "Name or service not known"), "name or service not known"),
    ],
)
def test_errors_of_the_system_are_told_in_a_few_words(error, words):
    assert describe_os_error(error) == words


def fails(error: BaseException):
    def main():
        raise error

    return main


def test_errors_become_one_line_a_hint_and_an_exit_code(capsys):
    assert run_program("prog", lambda: 0) == 0
    error = ProgramError("two\nlines", hint="do this", code=ExitCode.REFUSED)
    assert run_program("prog", fails(error)) == ExitCode.REFUSED
    assert capsys.readouterr().err == "prog: two lines\nhint: do this\n"
    assert run_program("prog", fails(ProgramError("bare"))) == ExitCode.FAILED
    assert capsys.readouterr().err == "prog: bare\n"
    assert run_program("prog", fails(KeyboardInterrupt())) == 130


def test_a_reader_that_went_away_is_no_error_to_talk_about(capfd):
    kept = os.dup(1)
    try:
        assert run_program("prog", fails(BrokenPipeError())) == ExitCode.FAILED
    finally:
        os.dup2(kept, sys.stdout.fileno() if sys.stdout.fileno() != 1 else 1)
        os.dup2(kept, 1)
        os.close(kept)
    assert capfd.readouterr().err == ""


# --- settings ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("30s", 30),
        ("15m", 900),
        ("2h", 7200),
        ("1d", 86400),
        ("7", 7),
        ("1.5", 1.5),
    ],
)
def test_durations_have_units(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1s", "1w", "1 h", "nan", "1e3"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(text)


@given(st.integers(0, 10**7))
def test_durations_are_written_as_they_are_read(seconds):
    assert parse_duration(format_duration(seconds)) == seconds


LISTEN = Setting("listen", str, "here", "HOST:PORT", "where")
MANY = Setting("hosts", str, (), "HOST", "which", many=True)
COUNT = Setting("count", int, 1, "N", "how many")
SETTINGS = (LISTEN, MANY, COUNT)


def values(file=(), environment=(), *argv: str):
    parser = argparse.ArgumentParser()
    add_flags(parser, SETTINGS)
    return resolve(
        SETTINGS,
        file=dict(file),
        prefix="P",
        flags=parser.parse_args(argv),
        environment=dict(environment),
    )


def test_each_layer_of_settings_overrides_the_one_before():
    assert values() == {"listen": "here", "hosts": (), "count": 1}
    file = {"listen": "file", "hosts": ["a", "b"], "count": 2}
    assert values(file) == {"listen": "file", "hosts": ("a", "b"), "count": 2}
    environment = {"P_LISTEN": "environment", "P_HOSTS": "c, d,", "P_COUNT": "3"}
    found = values(file, environment)
    assert found == {"listen": "environment", "hosts": ("c", "d"), "count": 3}
    flags = ("--listen=flag", "--hosts", "e", "f", "--hosts", "g", "--count=4")
    found = values(file, environment, *flags)
    assert found == {"listen": "flag", "hosts": ("e", "f", "g"), "count": 4}


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ({"lisen": "x"}, "unknown setting in the configuration: lisen"),
        ({"count": "many"}, "count in the configuration: invalid literal"),
        ({"count": True}, "not usable: True"),
        ({"listen": ["x"]}, "not usable"),
        ({"hosts": "a"}, "a list is needed"),
    ],
)
def test_wrong_settings_are_named(file, words):
    with pytest.raises(ProgramError, match=words) as caught:
        values(file)
    assert caught.value.code is ExitCode.USAGE


def load(tmp_path, config=None, section=""):
    return load_settings(
        SETTINGS,
        default_file=tmp_path / "default.toml",
        prefix="RESTUNNEL_TEST",
        arguments=argparse.Namespace(config=config),
        section=section,
    )


def test_the_configuration_file_may_be_missing_unless_it_is_asked_for(tmp_path):
    assert load(tmp_path)[0]["count"] == 1
    with pytest.raises(ProgramError, match="no configuration file"):
        load(tmp_path, tmp_path / "other.toml")
    (tmp_path / "default.toml").write_text("count = 5\n[policy]\nallow = []\n")
    found, table, path = load(tmp_path, section="policy")
    assert (found["count"], table, path) == (5, {"allow": []}, tmp_path / "default.toml")
    (tmp_path / "default.toml").write_text("count = = 5")
    with pytest.raises(ProgramError, match="cannot read the configuration"):
        load(tmp_path)


def test_services_share_the_settings_of_their_tunnels():
    names = [setting.name for setting in service_settings("a peer")]
    assert names == ["ping_interval", "ping_timeout", "grace"]


# --- unix sockets -----------------------------------------------------------------


@pytest.mark.parametrize("length", [10, 150])
def test_control_sockets_work_in_directories_of_any_length(tmp_path, length):
    path = tmp_path / ("d" * length) / "sock"
    path.parent.mkdir()
    bind_unix(path).close()  # left over
    with bind_unix(path) as listener:
        assert path.stat().st_mode & 0o777 == 0o600
        with connect_unix(path, not_running="no", hint="", timeout=5) as sock:
            sock.sendall(b"x")
            listener.setblocking(True)
            with listener.accept()[0] as accepted:
                assert accepted.recv(1) == b"x"


def test_a_unix_socket_takes_no_place_of_another_or_of_a_file(tmp_path):
    path = tmp_path / "sock"
    with bind_unix(path), pytest.raises(ProgramError, match="address in use"):
        bind_unix(path)
    notes = tmp_path / "notes.txt"
    notes.write_text("keep me")
    with pytest.raises(ProgramError, match="there is a file, and no socket"):
        bind_unix(notes)
    assert notes.read_text() == "keep me"
    with pytest.raises(ProgramError, match="cannot listen on"):
        bind_unix(notes / "sock")


def test_control_sockets_that_cannot_be_had_are_errors(tmp_path, monkeypatch):
    with pytest.raises(ProgramError, match="cannot listen on"):
        bind_unix(tmp_path / "missing" / "sock")
    with pytest.raises(ProgramError, match="nobody there") as caught:
        connect_unix(tmp_path / "sock", not_running="nobody there", hint="start it", timeout=5)
    assert (caught.value.code, caught.value.hint) == (ExitCode.NOT_RUNNING, "start it")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "datagrams"))
        with pytest.raises(ProgramError, match="cannot reach"):
            connect_unix(tmp_path / "datagrams", not_running="", hint="", timeout=5)
    monkeypatch.delattr(socket, "AF_UNIX")
    with pytest.raises(ProgramError, match="nobody there"):
        connect_unix(tmp_path / "sock", not_running="nobody there", hint="", timeout=5)


# --- services ---------------------------------------------------------------------


def test_a_service_runs_on_uvloop_where_there_is_one(monkeypatch):
    async def loop_module() -> str:
        return type(asyncio.get_running_loop()).__module__

    assert service.run_loop(loop_module()) in ("uvloop", "uvloop.loop")
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert service.run_loop(loop_module()).startswith("asyncio")


async def test_the_first_signal_asks_and_the_second_hurries():
    previous = signal.getsignal(signal.SIGTERM)
    with service.StopSignals().installed() as signals:
        reloaded = asyncio.Event()
        signals.on_hangup(reloaded.set)
        os.kill(os.getpid(), signal.SIGHUP)
        await reloaded.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        await signals.first.wait()
        assert not signals.second.is_set()
        assert await signals.grace(asyncio.sleep(0), 30)
        assert not await signals.grace(asyncio.sleep(30), 0.01)
        os.kill(os.getpid(), signal.SIGINT)
        await signals.second.wait()
        assert not await signals.grace(asyncio.sleep(30), 30)
    assert signal.getsignal(signal.SIGTERM) == previous


async def test_signals_work_on_loops_that_cannot_handle_them(monkeypatch):
    """As on Windows: the handler runs in the main thread and wakes the loop."""
    loop = asyncio.get_running_loop()
    removed = []

    def refuse(*_):
        raise NotImplementedError

    monkeypatch.setattr(loop, "add_signal_handler", refuse, raising=False)
    monkeypatch.setattr(loop, "remove_signal_handler", removed.append, raising=False)
    monkeypatch.delattr(signal, "SIGHUP")
    with service.StopSignals().installed() as signals:
        signals.on_hangup(lambda: None)
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(30):
            await signals.first.wait()
    assert removed == [signal.SIGINT, signal.SIGTERM]


def test_readiness_is_told_on_a_descriptor_and_to_systemd(tmp_path, monkeypatch, capsys):
    parser = argparse.ArgumentParser()
    service.add_ready_flag(parser)
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    reading, writing = os.pipe()
    service.announce_ready(parser.parse_args(["--ready-fd", str(writing)]).ready_fd)
    assert os.read(reading, 100) == b"READY=1\n"
    assert os.read(reading, 1) == b""
    os.close(reading)
    with pytest.raises(ProgramError, match="--ready-fd 9999: bad file descriptor"):
        service.announce_ready(9999)
    abstract = f"restunnel-test-{os.getpid()}"
    for name, address in (
        (str(tmp_path / "n"), str(tmp_path / "n")),
        ("@" + abstract, "\0" + abstract),
    ):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.bind(address)
            monkeypatch.setenv("NOTIFY_SOCKET", name)
            service.announce_ready(None)
            assert sock.recv(100) == b"READY=1"
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    service.notify("READY=1")
    assert "cannot notify systemd" in capsys.readouterr().err
    with contextlib.suppress(OSError):
        os.close(writing)


def test_a_switch_is_a_flag_a_word_or_a_truth(tmp_path):
    settings = [switch("loud", "make noise")]
    parser = argparse.ArgumentParser()
    add_flags(parser, settings)

    def value(*arguments: str, file=None, environment=None) -> bool:
        flags = parser.parse_args(arguments)
        return resolve(
            settings, file=file or {}, prefix="X", flags=flags, environment=environment or {}
        )["loud"]

    assert value() is False
    assert value("--loud") is True
    assert value(file={"loud": True}) is True
    assert value(file={"loud": "no"}) is False
    assert value(file={"loud": True}, environment={"X_LOUD": "no"}) is False
    with pytest.raises(ProgramError, match="neither yes nor no"):
        value(environment={"X_LOUD": "maybe"})


def test_a_choice_is_one_of_its_words():
    parse = choice_of("console", "json")
    assert parse("json") == "json"
    with pytest.raises(ValueError, match="none of console, json"):
        parse("xml")


@pytest.mark.skipif(os.geteuid() != 0, reason="giving files away needs root")
def test_what_root_writes_into_a_services_directory_is_the_services(tmp_path):
    directory = tmp_path / "state"
    directory.mkdir(mode=0o700)
    os.chown(directory, 4711, 4712)
    write_private(directory / "key", b"secret")
    lock(directory / "lock", "a service").close()
    for name in ("key", "lock"):
        status = (directory / name).stat()
        assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (4711, 4712, 0o600)
