# shellcheck shell=bash disable=SC2154
# A podman of its own in $work, and what ends with it. Sourced by `run`.

work="$(mktemp -d "${TMPDIR:-/var/tmp}/weightlift-image.XXXXXX")"
chmod 755 "$work" # the containers' user walks through it
children=()
finish() {
  status=$?
  set +e
  [ "${#children[@]}" -eq 0 ] || kill "${children[@]}" 2>/dev/null
  podman pod rm --all --force --time 0 >/dev/null 2>&1
  podman rm --all --force --time 0 >/dev/null 2>&1
  podman volume rm --all --force >/dev/null 2>&1
  # A mount that is still there must not be walked into.
  awk -v dir="$work/" 'index($2, dir) == 1 { print $2 }' /proc/mounts | sort -r | xargs -r umount --lazy
  rm -rf --one-file-system "$work"
  exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# Nothing of the machine's own containers is touched. podman asks for more open files and processes
# than a CI machine may allow.
least() { [ "$2" != unlimited ] && [ "$2" -lt "$1" ] && echo "$2" || echo "$1"; }
files="$(least 1048576 "$(ulimit -Hn)")"
processes="$(least 32768 "$(ulimit -Hu)")"
cat >"$work/containers.conf" <<END
[containers]
default_ulimits = ["nofile=$files:$files", "nproc=$processes:$processes"]
log_driver = "k8s-file"
[engine]
# crun refuses machines with both versions of cgroups mounted.
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
network_config_dir = "$work/networks"
END
cat >"$work/storage.conf" <<END
[storage]
driver = "vfs"
graphroot = "$work/storage"
runroot = "$work/run"
END
export CONTAINERS_CONF="$work/containers.conf" CONTAINERS_STORAGE_CONF="$work/storage.conf"
export BUILDAH_ISOLATION=chroot TMPDIR="$work/tmp"
export http_proxy="" https_proxy="" HTTP_PROXY="" HTTPS_PROXY="" NO_PROXY=127.0.0.1 no_proxy=127.0.0.1
mkdir -p "$work/tmp"
