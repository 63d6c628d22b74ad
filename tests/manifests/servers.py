"""What README and docs/servers.md say to paste: whole pods, that fetch what the server loads."""

import re

from . import program, serving
from .pasted import IMAGE, PASTE, ROOT, blocks, pages, pods, sections
from .reading import after
from .schemas import VERSIONS, schema_problem

SERVERS = ["vLLM", "SGLang", "Text Generation Inference", "llama.cpp", "Triton", "llm-d", "vLLM production-stack"]
RESTRICTED = {
    "runAsUser": 65532,
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
CHART_WITHOUT = "vLLM production-stack"  # its init container gets neither a context nor a policy
FIXED = r"(?:server-b|v)?\d+(?:\.\d+){0,2}(?:-(?:vllm|trtllm)-python-py3)?"  # a version in the image's own way


def the_paste_is_twenty_lines_on_the_first_screens(texts):
    lines = texts["README.md"].splitlines()
    (first,) = [n for n, line in enumerate(lines) if line == "initContainers:"]
    length = lines[first:].index("```")
    assert length <= 20, f"{length} lines"
    assert first < 60 and all(len(line) <= 120 for line in lines[first : first + length]), f"line {first}"
    assert sections(texts["README.md"])[PASTE][0].startswith("initContainers:\n  - name: weightlift\n")


def every_server_has_its_block(texts):
    of_page = sections(texts["docs/servers.md"])
    assert [title for title, parts in of_page.items() if parts] == SERVERS, list(of_page)
    assert len(blocks(texts["README.md"])) == len(sections(texts["README.md"])[PASTE]) + 1, "what is the other one?"
    found = pods(texts)
    for server in SERVERS:
        assert any(f", {server}, " in pod.where for pod in found), f"no pod of {server}"
    assert len(found) == 12, [pod.where for pod in found]


def every_pasted_pod_fits_the_schemas(texts):
    for pod in pods(texts):
        for each in (pod.made, *pod.objects):
            for version in VERSIONS:
                problem = schema_problem(each, version)
                assert problem is None, f"{pod.where}, Kubernetes {version}: {problem}"


def every_pasted_mount_has_its_volume(texts):
    for pod in pods(texts):
        for container in pod.containers():
            places = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
            assert len(set(places)) == len(places), f"{pod.where}: {places}"
            assert not [m for m in container.get("volumeMounts", []) if "subPath" in m], f"{pod.where}: a subPath"
        used = {mount["name"] for c in pod.containers() for mount in c.get("volumeMounts", [])}
        assert used == set(pod.volumes()), f"{pod.where} mounts {used} of {set(pod.volumes())}"


def weightlift_is_restricted_wherever_it_is_pasted(texts):
    version = re.search(r'^version = "(.*)"$', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]
    for pod in pods(texts):
        ours = pod.weightlift()
        assert ours["name"] == "weightlift", f"{pod.where}: {ours['name']}"
        assert ours["image"] == f"{IMAGE}{version}", f"{pod.where}: {ours['image']}"
        resources = {"requests": {"cpu": "500m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}}
        assert ours["resources"] == resources, f"{pod.where}: {ours['resources']}"
        if CHART_WITHOUT not in pod.where:
            assert ours["securityContext"] == RESTRICTED, f"{pod.where}: {ours['securityContext']}"
            assert ours["terminationMessagePolicy"] == "FallbackToLogsOnError", pod.where
        fetches = ours["args"][0] == "fetch"
        assert not fetches or pod.spec["securityContext"].get("fsGroup") == 65532, f"{pod.where}: a claim of root's"
        env = {each["name"]: each for each in ours.get("env", [])}
        assert not fetches or {"POD_NAME", "NODE_NAME"} <= set(env), f"{pod.where}: {set(env)}"
        if fetches and "HF_TOKEN" in env:
            assert env["HF_TOKEN"]["valueFrom"]["secretKeyRef"]["optional"] is True, pod.where


def every_pasted_image_has_a_version(texts):
    for pod in pods(texts):
        for container in pod.containers():
            tag = container["image"].rpartition(":")[2]
            assert re.fullmatch(FIXED, tag), f"{pod.where} runs {container['image']}"


def the_server_loads_what_is_put_there(texts):
    """The same place of the same volume; and if that is a link, also what it leads to."""
    for pod in pods(texts):
        ours, server, loaded = pod.weightlift(), pod.server(), pod.loads()
        put = after(ours["args"], "--link")
        dest = ours["args"][1] if ours["args"][0] == "wait" else f"/data/models/{ours['args'][2]}"
        (put,) = put or [dest]
        place, found = place_of(ours, put), place_of(server, loaded)
        assert place and found and found[0] == place[0], f"{pod.where}: {loaded} is not {put}"
        assert f"{found[1]}/".startswith(f"{place[1]}/"), f"{pod.where}: {loaded} is not {put}"
        if put != dest:
            assert "emptyDir" in pod.volumes()[place[0]], f"{pod.where}: the link is not the pod's own"
            # The link is absolute, and made by what the init container sees.
            assert place_of(server, dest) == place_of(ours, dest), f"{pod.where}: {dest}"


def place_of(container, path):
    """Volume and path there."""
    for mount in sorted(container["volumeMounts"], key=lambda mount: -len(mount["mountPath"])):
        if path == mount["mountPath"] or path.startswith(f"{mount['mountPath']}/"):
            return mount["name"], path.removeprefix(mount["mountPath"]).lstrip("/")
    return None


def servers_cannot_write_and_ask_nobody(texts):
    for pod in pods(texts):
        held = {mount["name"] for mount in pod.weightlift()["volumeMounts"]}
        for mount in pod.server()["volumeMounts"]:
            assert mount["name"] not in held or mount.get("readOnly") is True, f"{pod.where}: {mount}"
        env = {each["name"]: each.get("value") for each in pod.server()["env"]}
        assert env.get("HF_HUB_OFFLINE") == "1", f"{pod.where}: the server may ask the Hub"
        assert "llm-d" in pod.where or "HF_TOKEN" not in env, f"{pod.where}: the server has a token"
        writes = ours_writes(pod)
        assert writes == (pod.weightlift()["args"][0] == "fetch"), f"{pod.where}: {writes}"


def ours_writes(pod):
    (mount,) = [m for m in pod.weightlift()["volumeMounts"] if m["mountPath"] == "/data/models"]
    return mount.get("readOnly") is not True


def the_pages_lead_to_each_other(texts):
    """And to nothing that is not there."""
    for page, text in texts.items():
        for path, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", text):
            target = (ROOT / page).parent / path if path else ROOT / page
            assert target.exists(), f"{page}: {path}"
            if anchor:
                titles = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
                known = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
                assert anchor in known, f"{page}: {path}#{anchor}"
    assert "(docs/servers.md)" in texts["README.md"] and "(../README.md#paste-it-into-a-pod)" in texts["docs/servers.md"]


def the_real_program_parses_what_is_pasted(texts):
    path = program.binary()
    if not path:
        print("skipped: WEIGHTLIFT_TEST_BIN is not set")
        return
    for pod in pods(texts):
        args = [arg for arg in pod.weightlift()["args"]]
        if args[0] == "wait":
            args += ["--timeout", "1s"]
        program.parse(path, args)


CHECKS = [
    the_paste_is_twenty_lines_on_the_first_screens,
    every_server_has_its_block,
    every_pasted_pod_fits_the_schemas,
    every_pasted_mount_has_its_volume,
    weightlift_is_restricted_wherever_it_is_pasted,
    every_pasted_image_has_a_version,
    the_server_loads_what_is_put_there,
    servers_cannot_write_and_ask_nobody,
    the_pages_lead_to_each_other,
    the_real_program_parses_what_is_pasted,
    serving.the_server_finds_what_was_fetched,
]
README, PAGE = "README.md", "docs/servers.md"
MOUNT = "      - {name: models, mountPath: /data/models, readOnly: true}"
# The page, what stands there (each time), what somebody could write, and the check that must notice.
BREAKS = [
    (README, "    terminationMessagePolicy", "\n\n\n\n    terminationMessagePolicy", the_paste_is_twenty_lines_on_the_first_screens),
    (README, "## Paste it", "\n" * 50 + "## Paste it", the_paste_is_twenty_lines_on_the_first_screens),
    (PAGE, "## SGLang\n", "## SGLang\n```yaml\nvolumes: []\n```\n## More\n", every_server_has_its_block),
    (README, "    volumeMounts:\n      - {name: models", "    volumeMount:\n      - {name: models", every_pasted_pod_fits_the_schemas),
    (PAGE, "emptyDir: {medium: Memory, sizeLimit: 16Gi}", "emptyDir: {medium: Memory, size: 16Gi}", every_pasted_pod_fits_the_schemas),
    (PAGE, "  - {name: scratch, emptyDir: {sizeLimit: 10Gi}}\n", "", every_pasted_mount_has_its_volume),
    (README, "readOnly: true} # the whole", "readOnly: true, subPath: llama} # the whole", every_pasted_mount_has_its_volume),
    (README, "runAsNonRoot: true", "runAsNonRoot: false", weightlift_is_restricted_wherever_it_is_pasted),
    (PAGE, "ghcr.io/weightlift/weightlift:", "ghcr.io/weightlift/weightlift:9", weightlift_is_restricted_wherever_it_is_pasted),
    (README, "  fsGroup: 65532\n", "", weightlift_is_restricted_wherever_it_is_pasted),
    (PAGE, "llama.cpp:server-b10818", "llama.cpp:server", every_pasted_image_has_a_version),
    (PAGE, "vllm-openai:v0.30.0", "vllm-openai:latest", every_pasted_image_has_a_version),
    (PAGE, "--model-path, /model/current", "--model-path, meta-llama/Llama-3.1-8B", the_server_loads_what_is_put_there),
    (PAGE, '{"model": "/model/current"', '{"model": "/models/current"', the_server_loads_what_is_put_there),
    (PAGE, "path: 1/model.json", "path: model.json", the_server_loads_what_is_put_there),
    (PAGE, "mountPath: /models/llama-3-8b", "mountPath: /models", the_server_loads_what_is_put_there),
    (PAGE, "pvc://models/qwen3-32b #", "pvc://models/qwen3-8b #", the_server_loads_what_is_put_there),
    (PAGE, "        - {name: models, mountPath: /data/models, readOnly: true}", "        - {name: models, mountPath: /data, readOnly: true}", the_server_loads_what_is_put_there),
    (README, MOUNT, MOUNT.replace("/data/models", "/models"), the_server_loads_what_is_put_there),
    (PAGE, MOUNT, MOUNT.replace(", readOnly: true", ""), servers_cannot_write_and_ask_nobody),
    (README, 'HF_HUB_OFFLINE, value: "1"', 'HF_HUB_OFFLINE, value: "0"', servers_cannot_write_and_ask_nobody),
    (PAGE, "mountPath: /data/models, readOnly: true}\n  containers:", "mountPath: /data/models}\n  containers:", servers_cannot_write_and_ask_nobody),
    (README, "docs/servers.md", "docs/server.md", the_pages_lead_to_each_other),
    (PAGE, "README.md#paste-it-into-a-pod", "README.md#paste-it", the_pages_lead_to_each_other),
    (PAGE, "target: {kind: Deployment}", "target: {kind: StatefulSet}", the_server_loads_what_is_put_there),
    (PAGE, "        extraVolumeMounts:\n          - {name: models", "        volumeMounts:\n          - {name: models", every_server_has_its_block),
]
# The same for what needs the program.
RUN = [
    (README, "llama-3-8b, --link, /model", "llama-3-8b, --lnk, /model", the_real_program_parses_what_is_pasted),
    (PAGE, "args: [wait, /data", "args: [await, /data", the_real_program_parses_what_is_pasted),
    (README, MOUNT, MOUNT.replace("/data/models", "/models"), serving.the_server_finds_what_was_fetched),
    (README, "  fsGroup: 65532\n", "", serving.the_server_finds_what_was_fetched),
    (README, "{name: model, mountPath: /model}", "{name: model, mountPath: /model, readOnly: true}", serving.the_server_finds_what_was_fetched),
    (PAGE, "--include=*Q4_K_M*", "--include=*Q8_0*", serving.the_server_finds_what_was_fetched),
    (PAGE, "-m, /model/current/Qwen3", "-m, /model/current/gguf/Qwen3", serving.the_server_finds_what_was_fetched),
    (PAGE, "--model-repository=/model/current", "--model-repository=/data/models/trt", serving.the_server_finds_what_was_fetched),
]


def whatever_is_pasted_wrongly_is_noticed(texts):
    breaks = BREAKS + (RUN if program.binary() and serving.can_run() else [])
    for page, old, new, check in breaks:
        assert old in texts[page], f"{page} has no {old}"
        try:
            check({**texts, page: texts[page].replace(old, new)})
        except AssertionError:
            continue
        raise AssertionError(f"{check.__name__} does not notice {new!r} in {page}")


def test(check):
    def run(_):
        check(pages())

    run.__name__ = check.__name__
    return run


TESTS = [test(check) for check in [*CHECKS, whatever_is_pasted_wrongly_is_noticed]]
