#!/usr/bin/env python3
"""Serves a directory as an S3 bucket with moto, an S3 server that others wrote.

    python3 tests/real/serve_moto.py DIRECTORY PREFIX [--checksum ALGORITHM] [--part-size MIB]

Creates the bucket `models` on a free port of 127.0.0.1, uploads DIRECTORY under PREFIX with boto3
(in parts where a file is larger than a part, as the AWS tools do), prints the line

    AWS_ENDPOINT_URL=http://127.0.0.1:PORT

and serves until its standard input ends. moto does not check signatures: any credentials will do.
Exits 77 with the reason on stderr when moto or boto3 is not installed.

Where moto differs from S3, so that a test does not expect too much of it:
- HEAD gives the checksum of an object that was uploaded in parts without `x-amz-checksum-type` and
  without the `-N` suffix, although SHA256, CRC32 and CRC32C are then checksums of checksums. Only
  GetObjectAttributes says COMPOSITE. For CRC64NVME, always of the full object, both are right.
- GetObjectAttributes never lists parts, and HEAD with `partNumber` gives no checksum of the part.
- A composite CRC32C is computed as CRC32 unless the package `crc32c` is installed.
"""

import argparse
import logging
import sys
from pathlib import Path

BUCKET = "models"
CHECKSUMS = ["SHA256", "SHA1", "CRC32", "CRC32C", "CRC64NVME"]
MIB = 1 << 20
CANNOT = 77


def main():
    options = arguments()
    try:
        import boto3
        from boto3.s3.transfer import TransferConfig
        from moto.server import ThreadedMotoServer
    except ImportError as problem:
        print(f"cannot serve: {problem}", file=sys.stderr)
        return CANNOT

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        s3 = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )
        s3.create_bucket(Bucket=BUCKET)
        parts = TransferConfig(
            multipart_threshold=options.part_size * MIB,
            multipart_chunksize=options.part_size * MIB,
        )
        checksum = {"ChecksumAlgorithm": options.checksum} if options.checksum else {}
        for path in sorted(p for p in options.directory.rglob("*") if p.is_file()):
            key = options.prefix + path.relative_to(options.directory).as_posix()
            s3.upload_file(str(path), BUCKET, key, ExtraArgs=checksum, Config=parts)
        print(f"AWS_ENDPOINT_URL={endpoint}", flush=True)
        sys.stdin.buffer.read()
    finally:
        server.stop()
    return 0


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path)
    parser.add_argument("prefix", help="start of every key; a missing `/` at its end is added")
    parser.add_argument("--checksum", choices=CHECKSUMS, help="default: what boto3 chooses (CRC32)")
    parser.add_argument("--part-size", type=int, default=8, metavar="MIB", help="default: 8, at least 5")
    options = parser.parse_args()
    if not options.directory.is_dir():
        parser.error(f"`{options.directory}` is no directory")
    if options.part_size < 5:
        parser.error("S3 takes no parts smaller than 5 MiB")
    options.prefix = options.prefix.strip("/") + "/" if options.prefix.strip("/") else ""
    return options


if __name__ == "__main__":
    sys.exit(main())
