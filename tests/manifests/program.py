"""The command lines, parsed by the program itself."""

import os
import re
import subprocess
import tempfile
from pathlib import Path

# Where it asks nobody and writes nothing: whatever it understands fails at once, and not with exit 2.
NOWHERE = {
    "HF_ENDPOINT": "http://127.0.0.1:1",
    "HF_HUB_OFFLINE": "1",
    "AWS_REGION": "x",
    "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "WEIGHTLIFT_RETRY_TIMEOUT": "0s",
    "WEIGHTLIFT_ROOT": "/proc/none",
    "POD_NAME": "pod",
    "POD_NAMESPACE": "namespace",
}


def parse(binary, args, variables=(), files=None):
    """How the program answers to `args`, without the waits that they ask for. `files` are those of ConfigMaps."""
    with tempfile.TemporaryDirectory() as place:
        for path, text in (files or {}).items():
            mounted = Path(place, path.lstrip("/"))
            mounted.parent.mkdir(parents=True, exist_ok=True)
            mounted.write_text(text)
            args = [arg.replace(path, str(mounted)) for arg in args]
        return run(Path(binary).resolve(), args, variables, place)


def run(binary, args, variables, directory):
    args = [re.sub(r"\$\(\w+\)", "0", arg) for arg in args]
    args = [arg for arg in args if not arg.startswith("--retry-timeout")]
    for n, arg in enumerate(args[:-1]):
        if arg == "--timeout":
            assert re.fullmatch(r"\d+(s|m|h)", args[n + 1]), args
            args[n + 1] = "0s"
    done = subprocess.run(
        [binary, *args],
        cwd=directory,
        env={**NOWHERE, **dict(variables)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    # doctor asks nothing that it may not, and finds nothing wrong.
    wrong = (2,) if args[0] == "doctor" else (0, 2)
    assert done.returncode not in wrong, f"{args}, {variables}: {done.returncode}: {done.stderr}"
    return done


def binary():
    """The program under test, or why there is none."""
    path = os.environ.get("WEIGHTLIFT_TEST_BIN")
    if not path and os.environ.get("WEIGHTLIFT_TEST_NO_SKIP"):
        raise AssertionError("WEIGHTLIFT_TEST_BIN is not set")
    return path


def the_real_program_parses_every_command_line(manifests):
    path = binary()
    if not path:
        print("skipped: WEIGHTLIFT_TEST_BIN is not set")
        return
    seen = set()
    for each in manifests.sets.values():
        for pod in each.pods():
            for container in pod.weightlift():
                # KServe adds SOURCE and DEST itself.
                args = container.get("args") or ["hf://org/name", "/mnt/models"]
                line = (*container.get("command", ["/weightlift"])[1:], *args)
                variables = [(v["name"], v["value"]) for v in container.get("env", []) if "value" in v]
                ours = tuple((name, value) for name, value in variables if name.startswith("WEIGHTLIFT_"))
                files = pod.files(container)
                if (line, ours, str(files)) not in seen:
                    seen.add((line, ours, str(files)))
                    parse(path, list(line), ours, files)
    assert {line[0] for line, *_ in seen} == {"fetch", "wait", "prune", "verify", "doctor"}, f"only {seen} are there"
    known = subprocess.run([path, "fetch", "--help"], capture_output=True, text=True, timeout=60).stdout
    named = {name for _, ours, _ in seen for name, _ in ours}
    assert named >= {"WEIGHTLIFT_LOCK", "WEIGHTLIFT_S3_PATH_STYLE"}, f"only {named} are there"
    for name in named:
        assert f"[env: {name}]" in " ".join(known.split()), f"the program knows no {name}"


def a_wrong_command_line_is_noticed(_):
    """Guards the test above."""
    path = binary()
    for wrong, files in (
        (["fetch", "--nope", "hf://org/name"], {}),
        (["wait"], {}),
        (["fetch", "gopher://a/b"], {}),
        (["fetch", "--models", "/etc/x"], {"/etc/x": "version: 1\nmodels: []\n"}),
        (["fetch", "--locked", "/etc/x"], {"/etc/x": "{}"}),
        (["fetch", "--locked", "/etc/x"], {}),
    ):
        if path:
            try:
                parse(path, wrong, (), files)
            except AssertionError:
                continue
            raise AssertionError(f"{wrong} is accepted")


def the_real_program_parses_the_fleet_of_the_docs(manifests):
    """The models files of README and docs/fleet.md, and the commands of the README beside its own."""
    path = binary()
    if not path:
        return
    lock = (manifests.directory / "components" / "locked" / "models.lock").read_text()
    variables = [("BUCKET", "acme-models"), ("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "x")]
    for page, commands in (("README.md", 6), ("docs/fleet.md", 0)):
        text = (Path(__file__).resolve().parents[2] / page).read_text()
        (listed,) = [block for block in blocks(text, "yaml") if "version: 1" in block]
        lines = [line for block in blocks(text, "sh") for line in block.splitlines() if "models." in line]
        lines = [line.split()[1:] for line in lines if line.startswith("weightlift ")]
        assert len(lines) == commands, f"{page}: {lines}"
        for line in [["plan", "--models", "models.yaml"], *lines]:
            parse(path, line, variables, {"models.yaml": listed, "models.lock": lock})


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


TESTS = [the_real_program_parses_every_command_line, a_wrong_command_line_is_noticed, the_real_program_parses_the_fleet_of_the_docs]
