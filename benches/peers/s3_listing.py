"""`ListObjectsV2` (and the older form) for one bucket that is a directory; nginx has the objects.

The ETag of an object is the one nginx sends: its time and size in hex.
"""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit
from xml.sax.saxutils import escape

PAGE = 1000
DATE = "2024-02-29T12:00:00.000Z"


class Listing:
    def __init__(self, folder: Path, bucket: str):
        listing = self
        self.folder, self.bucket, self.known = folder, bucket, {}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                body = listing.answer(urlsplit(self.path).query).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/xml")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_HEAD = do_GET

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def objects(self, top: str) -> list[tuple[str, int, str]]:
        """Key, size and ETag of everything below one directory, read once."""
        if top not in self.known:
            found = []
            for path in sorted((self.folder / top).rglob("*")):
                if path.is_file():
                    stat = path.stat()
                    etag = f"{int(stat.st_mtime):x}-{stat.st_size:x}"
                    found.append((str(path.relative_to(self.folder)), stat.st_size, etag))
            self.known[top] = sorted(found)
        return self.known[top]

    def answer(self, query: str) -> str:
        asked = {name: values[0] for name, values in
                 parse_qs(query, keep_blank_values=True).items()}
        if "location" in asked:
            return f'<?xml version="1.0" encoding="UTF-8"?><LocationConstraint {XMLNS}/>'
        prefix, delimiter = asked.get("prefix", ""), asked.get("delimiter", "")
        after = asked.get("continuation-token") or asked.get("start-after") or asked.get("marker")
        limit = min(int(asked.get("max-keys") or PAGE), PAGE)

        def spelled(text: str) -> str:
            return quote(text) if asked.get("encoding-type") == "url" else escape(text)

        entries, folders, last, truncated = [], [], None, False
        for key, size, etag in self.objects(prefix.split("/")[0]):
            if not key.startswith(prefix) or (after and key <= after):
                continue
            cut = key.find(delimiter, len(prefix)) if delimiter else -1
            folder = key[:cut + len(delimiter)] if cut >= 0 else None
            if folder and (folder in folders or (after and after.startswith(folder))):
                last = key
                continue
            if len(entries) + len(folders) == limit:
                truncated = True
                break
            last = key
            if folder:
                folders.append(folder)
            else:
                entries.append(
                    f"<Contents><Key>{spelled(key)}</Key><LastModified>{DATE}</LastModified>"
                    f'<ETag>"{etag}"</ETag><Size>{size}</Size>'
                    "<StorageClass>STANDARD</StorageClass></Contents>")
        parts = [f"<Name>{self.bucket}</Name><Prefix>{spelled(prefix)}</Prefix>",
                 f"<KeyCount>{len(entries) + len(folders)}</KeyCount><MaxKeys>{limit}</MaxKeys>",
                 f"<IsTruncated>{str(truncated).lower()}</IsTruncated>"]
        if "encoding-type" in asked:
            parts.append(f"<EncodingType>{asked['encoding-type']}</EncodingType>")
        if delimiter:
            parts.append(f"<Delimiter>{spelled(delimiter)}</Delimiter>")
        if truncated:
            parts.append(f"<NextContinuationToken>{escape(last)}</NextContinuationToken>"
                         f"<NextMarker>{spelled(last)}</NextMarker>")
        parts += entries
        parts += [f"<CommonPrefixes><Prefix>{spelled(it)}</Prefix></CommonPrefixes>"
                  for it in folders]
        return (f'<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult {XMLNS}>'
                + "".join(parts) + "</ListBucketResult>")


XMLNS = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
