"""What the documentation shows works as it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from restunnel_hub.config import SETTINGS
from support.origin import origin, pattern_digest
from support.services import BIN, PATIENCE, Hub, run

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "packages" / "restunnel-protocol" / "docs"


def python_block(path: Path) -> str:
    """The one Python program of a page."""
    (block,) = re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)
    return block


def test_the_node_of_the_walk_through_serves_a_real_hub(hub: Hub, tmp_path: Path, curl: str):
    program = tmp_path / "node.py"
    program.write_text(python_block(DOCS / "writing-a-node.md"))
    assert len(program.read_text().splitlines()) < 120
    hub.start("--grace=1s")
    with origin() as port:
        node = subprocess.Popen(
            [sys.executable, str(program), hub.link("--name", "mine"), f"127.0.0.1:{port}"],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert node.stdout.readline() == "enrolled as mine\n"
            hub.wait_online()
            size = 20_000_000
            for command in (
                (
                    f"{curl} -sS --proxy socks5h://{hub.listeners['socks5']}"
                    f" http://127.0.0.1:{port}/bytes/{size} | sha256sum"
                ),
                (
                    f"head -c {size} /dev/zero | {curl} -sS -T - --proxytunnel"
                    f" --proxy http://{hub.listeners['http']} http://127.0.0.1:{port}/"
                ),
            ):
                done = subprocess.run(
                    command, shell=True, capture_output=True, text=True, timeout=PATIENCE
                )
                assert done.returncode == 0, done.stderr
                if "sha256sum" in command:
                    assert done.stdout.split()[0] == pattern_digest(size)
                else:
                    assert re.fullmatch(r"[0-9a-f]{64}", done.stdout)
            refused = subprocess.run(
                [curl, "-s", "--proxy", f"socks5h://{hub.listeners['socks5']}", "http://10.0.0.1/"],
                timeout=PATIENCE,
            )
            assert refused.returncode == 97  # the proxy refused
            hub.stop()
            output, _ = node.communicate(timeout=PATIENCE)
            assert "tunnel ended" in output
        finally:
            node.kill()
            node.communicate()


def test_the_example_of_the_protocols_readme_runs():
    text = (ROOT / "packages" / "restunnel-protocol" / "README.md").read_text()
    lines = [line[4:] for line in text.splitlines() if line.startswith("    ")]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("[ConnectRequested(stream_id=1, ")


@pytest.mark.parametrize("program", ["restunnel-hub", "restunnel-node"])
def test_every_command_of_the_readmes_exists_and_takes_a_data_directory(program):
    readme = ROOT / "packages" / program / "README.md"
    table = re.search(r"^\| command \|.*\n\|-.*\n((?:\|.*\n)+)", readme.read_text(), re.MULTILINE)
    cells = [re.match(r"\| (.*?) \|", row.replace("\\|", "/"))[1] for row in table[1].splitlines()]
    words = {code.split()[0] for cell in cells for code in re.findall("`(.+?)`", cell)}
    help_text = run(program, "--help").stdout
    for word in words - {"run"}:
        assert re.search(rf"^    {word}\s", help_text, re.MULTILINE), word
        command = run(program, word, "--help")
        assert command.returncode == 0
        assert "--data-dir" in command.stdout


def test_the_hubs_settings_are_those_of_its_readme():
    readme = (ROOT / "packages" / "restunnel-hub" / "README.md").read_text()
    table = re.search(r"^\| setting \|.*\n\|-.*\n((?:\|.*\n)+)", readme, re.MULTILINE)
    cells = [row.split("|")[1] for row in table[1].splitlines()]
    assert {name for cell in cells for name in re.findall("`(.+?)`", cell)} == {
        setting.name for setting in SETTINGS
    }


def test_the_demonstration_fetches_its_page_both_ways_and_ends():
    done = subprocess.run(
        [str(BIN / "python"), str(ROOT / "tools" / "demo.py"), "--once"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    for name in ("SOCKS5", "HTTP CONNECT"):
        assert re.search(rf"{name} +via 127\.0\.0\.1:\d+: 97500 bytes in [\d.]+ ms", done.stdout)
    assert "restunnel://pair?" in done.stdout
    assert "Traceback" not in done.stderr


def test_a_python_without_ensurepip_is_told_in_one_line_what_to_install(tmp_path: Path):
    (tmp_path / "tools").mkdir()
    script = tmp_path / "tools" / "dev.py"
    script.write_text((ROOT / "tools" / "dev.py").read_text())
    program = (
        "import importlib.util as u, runpy, sys; real = u.find_spec\n"
        "u.find_spec = lambda name, *more: None if name == 'ensurepip' else real(name, *more)\n"
        f"sys.argv = ['dev.py', 'demo']; runpy.run_path({str(script)!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert len(lines) <= 2  # what it was doing, and what is missing
    assert re.search(r"lacks ensurepip .*apt install python3\.\d+-venv", lines[-1])
