"""What KServe's storage initializer runs: URI DEST. Its image has the same few lines."""

import sys

from kserve_storage import Storage, configure_logging

configure_logging()
uri, dest = sys.argv[1:]
Storage.download_files([uri], [dest])
