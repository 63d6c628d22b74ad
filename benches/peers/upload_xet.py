"""Uploads files to a Xet store: STORE LIST.json FILE …; the list has the hash of each file."""

import json
import sys
from pathlib import Path

import hf_xet

store, listed, *files = sys.argv[1:]
found = hf_xet.upload_files(files, store, ("bench", 4102444800), None, None, "model")
unfinished = Path(f"{listed}.new")
unfinished.write_text(json.dumps({path: it.hash for path, it in zip(files, found)}))
unfinished.rename(listed)
