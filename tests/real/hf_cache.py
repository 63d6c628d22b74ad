"""What the Hub's own client finds of a repo in HF_HOME, without the network.

Prints the directory of the snapshot, then each file that a server would ask for by its name, then what the
client's look at the whole cache complains of.
"""

import sys

from huggingface_hub import hf_hub_download, scan_cache_dir, snapshot_download

repo, *files = sys.argv[1:]
print(snapshot_download(repo, local_files_only=True))
for file in files:
    # As a server does that was started with HF_HUB_OFFLINE.
    print(hf_hub_download(repo, file))
cache = scan_cache_dir()
for warning in cache.warnings:
    print("warning:", warning)
for found in cache.repos:
    for revision in found.revisions:
        print(found.repo_id, revision.commit_hash, *sorted(revision.refs), revision.nb_files)
