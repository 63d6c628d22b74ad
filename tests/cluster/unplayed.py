"""The overlays of manifests/ that no place plays, and why: what a place would need, or that the steps are not written."""

SNAPSHOTS = "needs a CSI driver with snapshots"
BUCKET = "needs a bucket, and the fake Hub has none"
NOT_WRITTEN = "would need no more than a small cluster; the steps are not written"

UNPLAYED = {
    "overlays/doctor": NOT_WRITTEN,
    "overlays/dragonfly": "needs Dragonfly",
    "overlays/hf-token-file": NOT_WRITTEN,
    "overlays/job-indexed": BUCKET,
    "overlays/kserve": "needs KServe",
    "overlays/lock-kubernetes": "needs an API server with Leases: a cluster has one, the stand-in has none; the steps are not written",
    "overlays/network-policy": "needs a network plugin that enforces policies",
    "overlays/prune": NOT_WRITTEN,
    "overlays/quota": NOT_WRITTEN,
    "overlays/read-only-many/fill": SNAPSHOTS,
    "overlays/read-only-many/serve": SNAPSHOTS,
    "overlays/restore-snapshot": SNAPSHOTS,
    "overlays/s3-irsa": BUCKET,
    "overlays/s3-pod-identity": BUCKET,
    "overlays/s3-secret": BUCKET,
    "overlays/snapshots": SNAPSHOTS,
    "overlays/verify": NOT_WRITTEN,
}
