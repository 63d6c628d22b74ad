# Takes a snapshot, waits until it can be used, and only then removes the oldest beyond KEEP.
# Snapshots without our label are never touched.
set -eu
label=app.kubernetes.io/component=snapshot
new=$(kubectl create -f /snapshot/snapshot.yaml -o name)
echo "taking $new"
kubectl wait --for=jsonpath='{.status.readyToUse}'=true --timeout="${TIMEOUT:-30m}" "$new"
kubectl get volumesnapshots -l "$label" --sort-by=.metadata.creationTimestamp -o name >"${TMPDIR:-/tmp}/all"
count=$(wc -l <"${TMPDIR:-/tmp}/all")
echo "$count snapshots, $KEEP are kept"
if [ "$count" -gt "$KEEP" ]; then
  head -n "$((count - KEEP))" "${TMPDIR:-/tmp}/all" | while read -r old; do
    kubectl delete --wait=false "$old" </dev/null
  done
fi
