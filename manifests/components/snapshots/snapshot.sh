# Takes a snapshot, waits until it can be used, and removes the oldest beyond KEEP.
# Only those that can be used count: one that is not ready neither goes nor drives out another.
# Snapshots without our label are never touched.
set -eu
label=app.kubernetes.io/component=snapshot
all="${TMPDIR:-/tmp}/all" ready="${TMPDIR:-/tmp}/ready"
new=$(kubectl create -f /snapshot/snapshot.yaml -o name)
echo "taking $new"
# One that takes longer is a failure, and may be ready tomorrow: the old ones are cleared all the same.
code=0
kubectl wait --for=jsonpath='{.status.readyToUse}'=true --timeout="${TIMEOUT:-30m}" "$new" || code=$?
kubectl get volumesnapshots -l "$label" --sort-by=.metadata.creationTimestamp \
  -o jsonpath='{range .items[*]}{.status.readyToUse} {.metadata.name}{"\n"}{end}' >"$all"
sed -n 's/^true //p' "$all" >"$ready"
count=$(wc -l <"$ready")
echo "$count of $(wc -l <"$all") snapshots are ready, $KEEP are kept"
if [ "$count" -gt "$KEEP" ]; then
  head -n "$((count - KEEP))" "$ready" | while read -r old; do
    kubectl delete --wait=false volumesnapshot "$old" </dev/null
  done
fi
exit "$code"
