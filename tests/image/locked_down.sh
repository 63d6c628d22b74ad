# shellcheck shell=bash disable=SC2154
# Containers by themselves, as locked down and as small as a cluster has them. Sourced by `run`.

# A model of more bytes than the containers may have memory.
mkdir -p "$work/model"
cp "$project/fixtures/tiny/config.json" "$work/model/"
python3 - "$work/model/model.safetensors" <<'END'
import json, random, sys
size = 160 << 20
header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
header += b" " * (-len(header) % 8)
generator = random.Random(5)
with open(sys.argv[1], "wb") as out:
    out.write(len(header).to_bytes(8, "little") + header)
    for _ in range(size >> 20):
        out.write(generator.randbytes(1 << 20))
END
sums="$(cd "$work/model" && sha256sum config.json model.safetensors)"

wait_for() {
  for _ in $(seq 300); do
    [ ! -e "$1" ] || return 0
    sleep 0.1
  done
  fail "$1 has not come"
}
"$hub" --repo "org/tiny=$work/model" --port-file "$work/hub.port" >"$work/hub.log" 2>&1 &
children+=("$!")
wait_for "$work/hub.port"
endpoint="http://127.0.0.1:$(cat "$work/hub.port")"

locked_down=(--read-only --cap-drop=ALL --user 65532 --security-opt=no-new-privileges --memory 64m)
volume() { mkdir -m 750 "$work/$1"; chown 65532:65532 "$work/$1"; }
# weightlift NETWORK VOLUME ARGUMENT…: in a container named `last`, which stays to be looked at.
weightlift() {
  local network="$1" volume="$2"
  shift 2
  podman rm --force --time 0 last >/dev/null 2>&1 || true
  podman run --name last "${locked_down[@]}" --network "$network" --volume "$work/$volume:/data/models" \
    --env "HF_ENDPOINT=$endpoint" --env WEIGHTLIFT_RETRY_TIMEOUT=2s localhost/weightlift:test "$@" 2>"$work/stderr"
}
# The seconds since `began`, with all that podman does itself: its own record of when a container
# started is sometimes later than when it finished.
took() { python3 -c 'import sys; print("%.2f" % (float(sys.argv[2]) - float(sys.argv[1])))' "$began" "$EPOCHREALTIME"; }
within_bound() { # a hang, not a speed
  python3 -c 'import sys; sys.exit(not 0 < float(sys.argv[1]) < 30)' "$1" || fail "took $1 seconds"
}

say "the locks are there"
seen="$(podman run --rm "${locked_down[@]}" --network none localhost/reader:test sh -c '
  grep -E "^(Uid|CapBnd|CapEff|NoNewPrivs|Seccomp):" /proc/self/status
  cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null
  grep -E "^[^ ]+ / " /proc/self/mounts')"
echo "$seen"
for line in "Uid:.65532.65532.65532.65532" "CapBnd:.0000000000000000" "CapEff:.0000000000000000" "NoNewPrivs:.1" "Seccomp:.2"; do
  grep -q "^$line\$" <<<"$seen" || fail "no $line"
done
grep -qE '^[^ ]+ / [^ ]+ ro[, ]' <<<"$seen" || fail "the root filesystem can be written"
grep -q '^67108864$' <<<"$seen" || skip "the memory is not limited: no memory cgroup here"

say "a fetch: ${locked_down[*]}"
volume alone
path="$(weightlift host alone fetch hf://org/tiny)" || { cat "$work/stderr"; fail "the fetch failed"; }
cat "$work/stderr"
equal "standard output" "$path" /data/models/tiny
equal "the files" "$(cd "$work/alone/tiny" && sha256sum config.json model.safetensors)" "$sums"
equal "the owner" "$(stat -c %u "$work/alone/tiny/model.safetensors")" 65532
equal "killed for memory" "$(podman inspect --format '{{.State.OOMKilled}}' last)" false
commit="$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["source"]["revision"])' \
  "$work/alone/tiny/.weightlift-complete.json" 2>/dev/null ||
  grep -oE '[0-9a-f]{40}' "$work/alone/tiny/.weightlift-complete.json" | head -1)"
pinned="hf://org/tiny@$commit"
echo "pinned: $pinned"

say "a second container on the volume, without a network"
began="$EPOCHREALTIME"
path="$(weightlift none alone fetch "$pinned" tiny)" || { cat "$work/stderr"; fail "the warm start failed"; }
seconds="$(took)"
echo "took $seconds seconds, podman included"
within_bound "$seconds"
cat "$work/stderr"
equal "standard output" "$path" /data/models/tiny
volume empty
status=0
weightlift none empty fetch "$pinned" tiny >/dev/null || status=$?
equal "the exit code on an empty volume without a network" "$status" 20

say "waiting for a model: no network, nothing writable"
if "$binary" wait --help >/dev/null 2>&1; then
  reading() {
    podman run --rm "${locked_down[@]}" --network none --volume "$work/$1:/data/models:ro" \
      localhost/weightlift:test wait /data/models/tiny --timeout 1s
  }
  equal "standard output" "$(reading alone)" /data/models/tiny
  status=0
  reading empty || status=$?
  equal "the exit code where nothing comes" "$status" 23
else
  skip "this binary has no \`wait\`"
fi
