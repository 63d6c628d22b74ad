"""Breaks what was rendered, one thing at a time: a check that cannot fail is none."""

import copy

from . import combined, lists, operation, pods, schemas, sets

FETCH = ("spec", "template", "spec", "initContainers", 0)
SERVER = ("spec", "template", "spec", "containers", 0)
JOB = ("spec", "template", "spec", "containers", 0)
CRON = ("spec", "jobTemplate", "spec", "template", "spec", "containers", 0)
NOTHING = object()  # removes the key
ONE_NODE = "combined/rwo-default-class base with refresh and prune and hf-token-file and one-node"
EVERYTHING = "combined/rwx base with prune and snapshots and image-registry and image-pull-secret and openshift"
VERIFIED = "combined/rwo-default-class base with job-many and prune and verify and verify-list and one-node"
PLACES = "combined/rwx base with mirror and private-ca and metrics and network-policy"

# The set, the kind, where, what it becomes, and the check that must notice.
BREAKS = [
    ("base", "Deployment", (*SERVER, "volumeMounts", 0, "readOnly"), False, pods.servers_load_what_is_there_and_cannot_write),
    ("base", "Deployment", (*SERVER, "args", 0), "/data/models/llama-3-8b", pods.servers_load_what_is_there_and_cannot_write),
    ("base", "Deployment", (*SERVER, "volumeMounts", 0, "mountPath"), "/models", pods.servers_load_what_is_there_and_cannot_write),
    ("base", "Deployment", (*FETCH, "volumeMounts", 1, "readOnly"), True, pods.servers_load_what_is_there_and_cannot_write),
    ("overlays/wait-only", "Deployment", (*FETCH, "args", 5), "1" * 40, combined.whoever_waits_waits_for_what_is_fetched),
    ("overlays/refresh", "Deployment", (*FETCH, "args", 2), "--expect-revision", combined.whoever_waits_waits_for_what_is_fetched),
    ("overlays/refresh", "CronJob", ("spec", "jobTemplate", "spec", "template", "spec", "containers", 0, "args", 6), "1h", sets.who_follows_a_branch_keeps_what_servers_read),
    ("overlays/refresh", "CronJob", (*CRON, "args", 4), "0", sets.who_follows_a_branch_keeps_what_servers_read),
    ("overlays/prune", "CronJob", (*CRON, "args", 5), "1h", sets.who_prunes_keeps_what_servers_read),
    ("overlays/prune", "CronJob", (*CRON, "args", 1), "--keep-revisions", sets.who_prunes_keeps_what_servers_read),
    ("overlays/prune", "CronJob", (*CRON, "volumeMounts", 0, "readOnly"), True, pods.weightlift_is_called_as_it_can_be),
    ("overlays/job-many", "Job", (*JOB, "args", 2), "/etc/weightlift/other.yaml", lists.lists_are_mounted_where_they_are_named),
    ("overlays/job-many", "Job", (*JOB, "volumeMounts", 1, "mountPath"), "/etc/other", lists.lists_are_mounted_where_they_are_named),
    ("overlays/job-many", "Job", (*JOB, "volumeMounts", 1, "readOnly"), False, lists.lists_are_mounted_where_they_are_named),
    ("overlays/job-many", "ConfigMap", ("metadata", "name"), "models-list", lists.lists_are_mounted_where_they_are_named),
    ("overlays/job-many", "ConfigMap", ("data", "models.yaml"), "source: hf://org/name@main", pods.every_source_is_pinned_or_a_branch_on_purpose),
    ("overlays/job-many", "ConfigMap", ("data", "models.yaml"), "version: 1\nmodels: []\n", sets.many_models_and_a_branch),
    ("overlays/job-locked", "Job", (*JOB, "args", 1), "--models", lists.what_is_locked_is_what_is_listed),
    ("overlays/job-locked", "ConfigMap", ("data", "models.lock"), NOTHING, lists.lists_are_mounted_where_they_are_named),
    ("overlays/job-locked", "ConfigMap", ("data", "models.lock"), '{"models": []}', lists.what_is_locked_is_what_is_listed),
    ("overlays/job-locked", "ConfigMap", ("data", "models.yaml"), "models: [{name: a, source: b}]", lists.what_is_locked_is_what_is_listed),
    ("combined/rwx base with job-many and prune", "CronJob", (*CRON, "args"), ["prune", "--models", "x"], lists.models_that_are_not_listed_go_only_if_asked_for),
    ("combined/rwx base with job-many and locked and prune and prune-unlisted", "CronJob", (*CRON, "args", 5), "1h", lists.models_that_are_not_listed_go_only_if_asked_for),
    ("combined/rwx base with job-many and locked and prune and prune-unlisted", "CronJob", (*CRON, "volumeMounts"), [], lists.lists_are_mounted_where_they_are_named),
    (VERIFIED, "CronJob", (*CRON, "args", 2), "/data/models/other", lists.what_is_listed_is_verified),
    ("base", "Deployment", ("spec", "template", "spec", "tolerations"), [], pods.servers_load_what_is_there_and_cannot_write),
    ("overlays/statefulset", "StatefulSet", ("spec", "template", "spec", "tolerations"), NOTHING, pods.servers_load_what_is_there_and_cannot_write),
    ("base", "Deployment", (*SERVER, "startupProbe"), NOTHING, pods.servers_load_what_is_there_and_cannot_write),
    ("base", "Deployment", (*SERVER, "securityContext", "runAsUser"), 0, pods.every_container_is_restricted),
    ("base", "Deployment", (*FETCH, "terminationMessagePolicy"), NOTHING, pods.every_container_is_restricted),
    ("base", "Deployment", (*FETCH, "image"), "ghcr.io/weightlift/weightlift:latest", pods.every_container_is_restricted),
    ("base", "Deployment", (*FETCH, "volumeMounts", 0, "readOnly"), True, pods.weightlift_is_called_as_it_can_be),
    ("base", "Deployment", ("spec", "template", "spec", "automountServiceAccountToken"), True, pods.every_pod_is_restricted),
    ("base", "Deployment", ("spec", "template", "spec", "volumes", 0, "hostPath"), {"path": "/x"}, pods.every_pod_is_restricted),
    ("base", "Deployment", ("spec", "template", "metadata", "labels"), {}, sets.labels_and_selectors_meet),
    ("base", "Namespace", ("metadata", "labels", "pod-security.kubernetes.io/enforce"), "baseline", pods.namespaces_enforce_what_their_pods_meet),
    ("base", "PersistentVolumeClaim", ("metadata", "name"), "other", sets.what_is_referred_to_is_there),
    ("base", "Service", ("metadata", "namespace"), "default", sets.everything_is_in_its_namespace),
    ("base", "Job", ("spec", "podFailurePolicy", "rules", 1, "onExitCodes", "values"), [2, 10, 20], pods.jobs_give_up_on_permanent_failures_only),
    ("base", "Job", (*JOB, "resources", "limits", "memory"), "1Gi", pods.jobs_give_up_on_permanent_failures_only),
    ("base", "Job", (*JOB, "volumeMounts", 0, "name"), "other", pods.every_mount_exists),
    ("overlays/wait-only", "Deployment", (*FETCH, "args", 0), "fetch", sets.a_volume_that_is_read_only_is_never_fetched_onto),
    ("overlays/wait-only", "Deployment", (*FETCH, "volumeMounts", 0, "readOnly"), False, pods.weightlift_is_called_as_it_can_be),
    ("overlays/job-indexed", "Job", (*JOB, "env"), [], pods.weightlift_is_called_as_it_can_be),
    ("storage/rwx", "PersistentVolumeClaim", ("spec", "accessModes"), ["ReadOnlyMany"], sets.storage_is_as_it_says),
    ("storage/rwo", "StorageClass", ("reclaimPolicy",), "Delete", sets.storage_is_as_it_says),
    ("overlays/hf-token-file", "Job", (*JOB, "env", 0, "value"), "/token", sets.credentials_reach_every_fetch),
    ("combined/rwo base with s3-secret and one-node", "Deployment", (*FETCH, "args", 1), "hf://a/b", combined.what_is_combined_takes_effect),
    ("overlays/lock-kubernetes", "Role", ("rules", 0, "verbs"), ["*"], operation.rights_are_the_smallest),
    ("overlays/lock-kubernetes", "Job", (*JOB, "name"), "helper", pods.jobs_give_up_on_permanent_failures_only),
    ("overlays/lock-kubernetes", "Job", (*JOB, "image"), "x:1.0.0", pods.tokens_go_to_weightlift_alone),
    ("overlays/daemonset", "Deployment", ("spec", "template", "spec", "nodeSelector"), {}, sets.many_models_and_a_branch),
    ("overlays/network-policy", "Deployment", ("spec", "template", "metadata", "labels", "app.kubernetes.io/component"), "download", operation.the_network_is_closed_but_for_fetches),
    ("overlays/kserve", "ClusterStorageContainer", ("spec", "container", "args"), ["fetch"], schemas.kserve_is_called_as_it_calls),
    ("overlays/kserve", "ClusterStorageContainer", ("spec", "container", "volumeMount"), [], schemas.kserve_is_called_as_it_calls),
    ("overlays/kserve", "InferenceService", ("spec", "predictor", "model", "storageUrl"), "x", schemas.the_inference_service_has_its_fields),
    ("overlays/wait-only", "Deployment", ("spec", "template", "spec", "serviceAccountName"), NOTHING, pods.every_pod_is_restricted),
    ("overlays/wait-only", "Deployment", ("spec", "template", "spec", "serviceAccountName"), "weightlift", sets.who_only_waits_has_no_rights),
    ("overlays/verify", "CronJob", ("spec", "jobTemplate", "spec", "template", "spec", "serviceAccountName"), NOTHING, pods.every_pod_is_restricted),
    ("overlays/restore-snapshot", "PersistentVolumeClaim", ("spec", "dataSource", "apiGroup"), "x", schemas.a_claim_from_a_snapshot_names_its_group),
    ("storage/read-only-many/serve", "VolumeSnapshot", ("spec", "source", "claim"), "x", schemas.snapshots_have_their_fields),
    ("overlays/snapshots", "CronJob", ("metadata", "kind"), "x", schemas.every_object_fits_the_schemas),
    ("base", "Deployment", (*FETCH, "name"), "fetch", pods.every_container_of_ours_has_one_name),
    ("base", "Deployment", (*SERVER, "name"), "weightlift", pods.every_container_of_ours_has_one_name),
    ("overlays/prune", "CronJob", (*CRON, "name"), "prune", pods.every_container_of_ours_has_one_name),
    ("base", "Job", (*JOB, "env", 1, "valueFrom", "fieldRef", "fieldPath"), "metadata.name", pods.every_container_of_ours_knows_its_pod_and_node),
    ("overlays/wait-only", "Deployment", (*FETCH, "env"), [], pods.every_container_of_ours_knows_its_pod_and_node),
    ("overlays/kserve", "ClusterStorageContainer", ("spec", "container", "env"), [], pods.every_container_of_ours_knows_its_pod_and_node),
    ("overlays/kserve", "ClusterStorageContainer", ("spec", "supportsMultiModelDownload"), False, schemas.kserve_is_called_as_it_calls),
    ("base", "Job", ("spec", "activeDeadlineSeconds"), 3600, pods.the_time_is_bounded_at_the_pod),
    ("overlays/refresh", "CronJob", ("spec", "jobTemplate", "spec", "template", "spec", "activeDeadlineSeconds"), 14120, pods.the_time_is_bounded_at_the_pod),
    ("overlays/refresh", "CronJob", (*CRON, "args", 7), "--timeout", pods.the_time_is_bounded_at_the_pod),
    ("base", "Job", ("metadata", "name"), "download-weights-111111111111", combined.a_job_is_named_by_what_it_fetches),
    ("base", "Job", ("metadata", "name"), "download-weights", combined.a_job_is_named_by_what_it_fetches),
    ("base", "Job", (*JOB, "args", 1), "hf://a/b@" + "1" * 40, combined.a_job_is_named_by_what_it_fetches),
    ("overlays/s3-secret", "Job", ("metadata", "name"), "download-weights-0123456789ab", combined.a_job_is_named_by_what_it_fetches),
    ("overlays/wait-only", "Job", (*JOB, "args", 2), "other", combined.whoever_waits_waits_for_what_is_fetched),
    ("overlays/wait-only", "Deployment", ("spec", "template", "spec", "volumes", 0), {"name": "models", "emptyDir": {}}, combined.whoever_waits_waits_for_what_is_fetched),
    ("overlays/daemonset", "DaemonSet", (*FETCH, "args", 1), "hf://a/b@" + "1" * 40, combined.whoever_waits_waits_for_what_is_fetched),
    ("overlays/daemonset", "DaemonSet", (*FETCH, "env", 0, "valueFrom", "secretKeyRef", "optional"), True, sets.what_is_referred_to_is_there),
    ("overlays/daemonset", "DaemonSet", (*FETCH, "env", 0, "valueFrom", "secretKeyRef", "optional"), True, sets.credentials_reach_every_fetch),
    ("base", "Service", ("kind",), "PersistentVolumeClaim", sets.what_is_deleted_holds_no_models),
    ("overlays/statefulset", "StatefulSet", ("spec", "persistentVolumeClaimRetentionPolicy", "whenDeleted"), "Delete", sets.what_is_deleted_holds_no_models),
    ("storage/rwo-default-class", "PersistentVolumeClaim", ("spec", "storageClassName"), "models-gp3", sets.storage_is_as_it_says),
    ("overlays/empty-dir", "Deployment", ("spec", "replicas"), 2, sets.storage_is_as_it_says),
    ("overlays/verify", "CronJob", (*CRON, "args", 1), "/data/models/other", sets.who_prunes_keeps_what_servers_read),
    ("overlays/verify", "CronJob", (*CRON, "volumeMounts", 0, "readOnly"), False, pods.weightlift_is_called_as_it_can_be),
    (ONE_NODE, "CronJob", ("spec", "jobTemplate", "spec", "template", "metadata", "labels", "weightlift-volume"), "x", combined.what_is_combined_takes_effect),
    (ONE_NODE, "CronJob", ("spec", "jobTemplate", "spec", "template", "spec", "affinity"), {}, combined.what_is_combined_takes_effect),
    (ONE_NODE, "Deployment", ("spec", "template", "spec", "affinity"), {}, combined.what_is_combined_takes_effect),
    (EVERYTHING, "Deployment", ("spec", "template", "spec", "imagePullSecrets"), [], combined.what_is_combined_takes_effect),
    (EVERYTHING, "Deployment", (*SERVER, "image"), "vllm/vllm-openai:v0.30.0", combined.what_is_combined_takes_effect),
    (EVERYTHING, "Deployment", ("spec", "template", "spec", "securityContext", "fsGroup"), 65532, pods.every_pod_is_restricted),
    (EVERYTHING, "CronJob", ("spec", "jobTemplate", "spec", "template", "spec", "securityContext", "runAsUser"), 65532, pods.every_pod_is_restricted),
    (PLACES, "Job", (*JOB, "env"), [], combined.what_is_combined_takes_effect),
]


def whatever_is_broken_is_noticed(manifests):
    for name, kind, path, value, check in BREAKS:
        broken = copy.copy(manifests)
        broken.sets = dict(manifests.sets)
        broken.sets[name] = copy.deepcopy(manifests.sets[name])
        candidates = [r for r in broken.sets[name].of(kind) if has(r, path[:-1])]
        assert candidates, f"{name}: no {kind} has {path}"
        target = candidates[-1]
        for key in path[:-1]:
            target = target[key]
        if value is NOTHING:
            del target[path[-1]]
        else:
            target[path[-1]] = value
        try:
            check(broken)
        except (AssertionError, LookupError, TypeError):
            continue
        raise AssertionError(f"{check.__name__} does not notice {name}: {kind} {path} = {value}")


def has(resource, path):
    for key in path:
        try:
            resource = resource[key]
        except LookupError:
            return False
    return True


TESTS = [whatever_is_broken_is_noticed]
