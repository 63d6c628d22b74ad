"""The commands of the pages and comments have flags that the real kubectl knows."""

import functools
import re
import subprocess

from .commands import files_that_say_commands
from .reading import find_kubectl

# The commands of kubectl that the pages use; a `kubectl` without one of them is prose.
ROOT_COMMANDS = {
    "apply", "auth", "config", "create", "debug", "delete", "describe", "exec", "explain", "get", "kustomize", "label",
    "logs", "patch", "port-forward", "rollout", "run", "scale", "wait",
}  # fmt: skip


def every_flag_of_a_command_is_one_of_kubectl(_):
    seen = 0
    for path in files_that_say_commands():
        for command in commands_of(path.read_text()):
            assert not (unknown := unknown_flags(command)), f"{path}: {unknown} in `{command}`"
            seen += 1
    assert seen > 60, f"only {seen} commands"
    for wrong in (
        "kubectl -n a create secret docker-registry b --docker-password-stdin",
        "kubectl create secret docker-registry b --docker-server=c \\\n#     --docker-password-stdin",
        "kubectl --namespaces=a get pods",
        "kubectl get pods -Z",
    ):
        assert [c for c in commands_of(wrong) if unknown_flags(c)], f"not noticed: {wrong}"


def commands_of(text):
    """Each with what stands in its continued lines; a comment's sign and a quoted text are no part of it."""
    text = re.sub(r"\\\n\s*(#\s*)?", " ", text)
    text = re.sub(r"'[^']*'|\"[^\"]*\"", "x", text, flags=re.DOTALL) if text.count("'") % 2 == 0 else text
    for found in re.findall(r"kubectl ([^`|;&#\n)]*)", re.sub(r"\{\{.*?\}\}", "x", text)):
        if set(found.split()) & ROOT_COMMANDS:
            yield f"kubectl {found.split(' -- ')[0].strip()}"


def unknown_flags(command):
    words = command.split()[1:]
    flags = [re.match(r"--?[\w-]+", word)[0] for word in words if re.match(r"--?[a-zA-Z]", word)]
    rest = words[words.index("-n") + 2 :] if words[:1] == ["-n"] else words
    named = []
    for word in rest:
        if not re.fullmatch(r"[a-z-]+", word) or word.startswith("-"):
            break
        named.append(word)
    known = known_flags(tuple(named[:3]))
    return [flag for flag in flags if flag not in known and not short(flag, known)]


def short(flag, known):
    """`-it` is `-i -t`."""
    return not flag.startswith("--") and all(f"-{letter}" in known for letter in flag[1:])


@functools.cache
def known_flags(words):
    shown = ""
    for arguments in ([*words, "--help"], ["options"]):
        done = subprocess.run([find_kubectl(), *arguments], capture_output=True, text=True, timeout=60)
        shown += done.stdout
    return set(re.findall(r"^\s+(--[\w-]+)=", shown, re.MULTILINE)) | {
        flag for pair in re.findall(r"^\s+(-\w), (--[\w-]+)=", shown, re.MULTILINE) for flag in pair
    }


TESTS = [every_flag_of_a_command_is_one_of_kubectl]
