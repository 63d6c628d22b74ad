//! The S3 endpoint, as a client sees it. Signatures of real clients are tested in `sigv4`.

mod client;

use client::{Answer, get, get_range, request};
use weightlift_fakes::{
    Blob, Checksum, FakeS3, FakeS3Builder, Fault, Habits, ObjectOptions, Rule, Unpacks, Writes,
};

fn blob() -> Blob {
    Blob::synthetic(25_000, 9)
}

fn s3_with(change: impl FnOnce(FakeS3Builder) -> FakeS3Builder) -> FakeS3 {
    let multipart = ObjectOptions {
        checksum: Some(Checksum::Sha256),
        parts: Some(vec![10_000, 10_000, 5_000]),
        composite: true,
        ..ObjectOptions::default()
    };
    let whole = ObjectOptions { checksum: Some(Checksum::Crc64Nvme), ..ObjectOptions::default() };
    let builder = FakeS3::builder()
        .bucket("empty")
        .object("models", "a/config.json", Blob::bytes("{}"))
        .object_with("models", "a/parts.bin", blob(), multipart)
        .object_with("models", "a/whole.bin", blob(), whole)
        .object("models", "b/<odd> & key.txt", Blob::bytes("odd"));
    change(builder).start()
}

fn s3() -> FakeS3 {
    s3_with(|builder| builder)
}

fn text_of<'a>(xml: &'a str, name: &str) -> Vec<&'a str> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    xml.split(&open).skip(1).filter_map(|rest| rest.split(&close).next()).collect()
}

fn assert_error(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status, text_of(&answer.text(), "Code")), (status, vec![code]));
}

#[test]
fn a_listing_has_keys_sizes_and_kinds_of_checksums() {
    let s3 = s3();
    let xml = get(&format!("{}/models?list-type=2&prefix=a%2F", s3.url())).text();
    assert_eq!(text_of(&xml, "Key"), ["a/config.json", "a/parts.bin", "a/whole.bin"]);
    assert_eq!(text_of(&xml, "Size"), ["2", "25000", "25000"]);
    assert_eq!(text_of(&xml, "ChecksumAlgorithm"), ["SHA256", "CRC64NVME"]);
    assert_eq!(text_of(&xml, "ChecksumType"), ["COMPOSITE", "FULL_OBJECT"]);
    assert_eq!(text_of(&xml, "IsTruncated"), ["false"]);
    let odd = get(&format!("{}/models/?list-type=2&prefix=b", s3.url())).text();
    assert_eq!(text_of(&odd, "Key"), ["b/&lt;odd&gt; &amp; key.txt"]);
    let empty = get(&format!("{}/empty?list-type=2", s3.url()));
    assert_eq!(text_of(&empty.text(), "KeyCount"), ["0"]);
}

#[test]
fn a_long_listing_comes_in_pages() {
    let s3 = s3_with(|builder| builder.page_size(3));
    let first = get(&format!("{}/models?list-type=2", s3.url())).text();
    assert_eq!(text_of(&first, "Key").len(), 3);
    let token = text_of(&first, "NextContinuationToken")[0].replace('=', "%3D").replace('+', "%2B");
    let second = get(&format!("{}/models?list-type=2&continuation-token={token}", s3.url())).text();
    assert_eq!(text_of(&second, "Key").len(), 1);
    assert!(text_of(&second, "NextContinuationToken").is_empty());
    let few = get(&format!("{}/models?list-type=2&max-keys=2", s3.url())).text();
    assert_eq!(text_of(&few, "Key").len(), 2);
}

#[test]
fn an_object_is_served_whole_in_ranges_and_in_parts() {
    let s3 = s3();
    let url = format!("{}/models/a/parts.bin", s3.url());
    let bytes = blob().to_vec();
    assert_eq!(get(&url).body, bytes);
    let range = get_range(&url, "bytes=9990-10009");
    assert_eq!((range.status, range.content_range()), (206, "bytes 9990-10009/25000"));
    assert_eq!(range.body, bytes[9_990..10_010]);
    assert_error(&get_range(&url, "bytes=25000-"), 416, "InvalidRange");

    let part = get(&format!("{url}?partNumber=3"));
    assert_eq!((part.status, part.content_range()), (206, "bytes 20000-24999/25000"));
    assert_eq!(part.header("x-amz-mp-parts-count"), Some("3"));
    assert_eq!(part.body, bytes[20_000..]);
    let head = request("HEAD", &format!("{url}?partNumber=1"), &[], "");
    assert_eq!((head.status, head.header("content-length")), (206, Some("10000")));
    assert_error(&get(&format!("{url}?partNumber=4")), 416, "InvalidPartNumber");
}

#[test]
fn checksums_come_when_asked_for() {
    let s3 = s3();
    let mode = [("x-amz-checksum-mode", "ENABLED")];
    let whole = format!("{}/models/a/whole.bin", s3.url());
    let head = request("HEAD", &whole, &mode, "");
    let crc = base64(&blob().crc64nvme().to_be_bytes());
    assert_eq!(head.header("x-amz-checksum-crc64nvme"), Some(crc.as_str()));
    assert_eq!(head.header("x-amz-checksum-type"), Some("FULL_OBJECT"));
    assert_eq!(request("HEAD", &whole, &[], "").header("x-amz-checksum-crc64nvme"), None);
    let range = request("GET", &whole, &[mode[0], ("Range", "bytes=0-1")], "");
    assert_eq!(range.header("x-amz-checksum-crc64nvme"), None);

    let parts = format!("{}/models/a/parts.bin", s3.url());
    let head = request("HEAD", &parts, &mode, "");
    let digest = |part| blob().checksum_of(Checksum::Sha256, part);
    let joined = [digest(0..10_000), digest(10_000..20_000), digest(20_000..25_000)].concat();
    let composite = base64(&Blob::bytes(joined).checksum(Checksum::Sha256)) + "-3";
    assert_eq!(head.header("x-amz-checksum-sha256"), Some(composite.as_str()));
    assert_eq!(head.header("x-amz-checksum-type"), Some("COMPOSITE"));
    let part = request("HEAD", &format!("{parts}?partNumber=2"), &mode, "");
    assert_eq!(
        part.header("x-amz-checksum-sha256"),
        Some(base64(&digest(10_000..20_000)).as_str())
    );
}

#[test]
fn attributes_tell_the_parts() {
    let s3 = s3();
    let asked = [("x-amz-object-attributes", "ETag,Checksum,ObjectParts,ObjectSize")];
    let xml =
        request("GET", &format!("{}/models/a/parts.bin?attributes", s3.url()), &asked, "").text();
    assert_eq!(text_of(&xml, "PartsCount"), ["3"]);
    assert_eq!(text_of(&xml, "Size"), ["10000", "10000", "5000"]);
    assert_eq!(text_of(&xml, "ChecksumSHA256").len(), 4);
    assert_eq!(text_of(&xml, "ObjectSize"), ["25000"]);
    assert!(text_of(&xml, "ETag")[0].ends_with("-3"));
    assert!(text_of(&xml, "StorageClass").is_empty());
    let page = [asked[0], ("x-amz-max-parts", "1"), ("x-amz-part-number-marker", "1")];
    let xml =
        request("GET", &format!("{}/models/a/parts.bin?attributes", s3.url()), &page, "").text();
    assert_eq!(
        (text_of(&xml, "PartNumber"), text_of(&xml, "IsTruncated")),
        (vec!["2"], vec!["true"])
    );
}

#[test]
fn an_overwritten_object_no_longer_matches() {
    let s3 = s3();
    let url = format!("{}/models/a/whole.bin", s3.url());
    let etag = request("HEAD", &url, &[], "").header("etag").expect("an entity tag").to_owned();
    assert_eq!(s3.etag("models", "a/whole.bin").as_ref(), Some(&etag));
    let pinned = [("If-Match", etag.as_str())];
    assert_eq!(request("GET", &url, &pinned, "").status, 200);
    s3.overwrite("models", "a/whole.bin", Blob::bytes("new"));
    assert_error(&request("GET", &url, &pinned, ""), 412, "PreconditionFailed");
    assert_eq!(get(&url).text(), "new");
    s3.remove("models", "a/whole.bin");
    assert_error(&get(&url), 404, "NoSuchKey");
}

#[test]
fn a_versioned_bucket_keeps_what_was_overwritten() {
    let s3 = s3_with(FakeS3Builder::versioned);
    let url = format!("{}/models/a/config.json", s3.url());
    let version = get(&url).header("x-amz-version-id").expect("a version").to_owned();
    s3.overwrite("models", "a/config.json", Blob::bytes("new"));
    assert_eq!(get(&url).text(), "new");
    assert_ne!(s3.version_id("models", "a/config.json").as_ref(), Some(&version));
    assert_eq!(get(&format!("{url}?versionId={version}")).text(), "{}");
    assert_error(&get(&format!("{url}?versionId=0")), 404, "NoSuchVersion");
}

#[test]
fn missing_and_forbidden_things_have_the_codes_of_s3() {
    let s3 = s3();
    assert_error(&get(&format!("{}/models/none", s3.url())), 404, "NoSuchKey");
    assert_error(&get(&format!("{}/none?list-type=2", s3.url())), 404, "NoSuchBucket");
    assert_error(
        &request("PUT", &format!("{}/models/x", s3.url()), &[], "x"),
        405,
        "MethodNotAllowed",
    );
    let head = request("HEAD", &format!("{}/models", s3.url()), &[], "");
    assert_eq!((head.status, head.header("x-amz-bucket-region")), (200, Some("us-east-1")));

    let s3 = s3_with(FakeS3Builder::deny_list);
    assert_error(&get(&format!("{}/models?list-type=2", s3.url())), 403, "AccessDenied");
    assert_error(&get(&format!("{}/models/none", s3.url())), 403, "AccessDenied");
    assert_eq!(get(&format!("{}/models/a/config.json", s3.url())).status, 200);
    let s3 = s3_with(FakeS3Builder::deny_get);
    assert_error(&get(&format!("{}/models/a/config.json", s3.url())), 403, "AccessDenied");
    assert_eq!(get(&format!("{}/models?list-type=2", s3.url())).status, 200);
}

#[test]
fn another_region_is_redirected_and_unsigned_requests_are_refused() {
    let s3 = s3_with(|builder| builder.region("eu-west-1").redirect_wrong_region());
    let url = format!("{}/models/a/config.json", s3.url());
    let signed_for = |region: &str| {
        let credential = format!("X-Amz-Credential=K%2F20240101%2F{region}%2Fs3%2Faws4_request");
        let rest = "X-Amz-SignedHeaders=host&X-Amz-Signature=0&X-Amz-Date=20240101T000000Z";
        get(&format!("{url}?{credential}&{rest}&X-Amz-Expires=60"))
    };
    assert_eq!(signed_for("eu-west-1").text(), "{}");
    let wrong = signed_for("us-east-1");
    assert_error(&wrong, 301, "PermanentRedirect");
    assert_eq!(wrong.header("x-amz-bucket-region"), Some("eu-west-1"));

    let s3 = s3_with(|builder| builder.credentials("K", "S"));
    assert_error(&get(&format!("{}/models/a/config.json", s3.url())), 403, "AccessDenied");
}

#[test]
fn archived_objects_are_listed_but_not_served() {
    let glacier =
        ObjectOptions { storage_class: Some("GLACIER".into()), ..ObjectOptions::default() };
    let s3 = FakeS3::builder().object_with("models", "old.bin", blob(), glacier).start();
    let url = format!("{}/models/old.bin", s3.url());
    assert_error(&get(&url), 403, "InvalidObjectState");
    assert_eq!(request("HEAD", &url, &[], "").header("x-amz-storage-class"), Some("GLACIER"));
}

#[test]
fn a_store_has_the_habits_that_it_is_given() {
    let having = |habits: Habits| s3_with(|builder| builder.habits(habits));
    let url = |s3: &FakeS3| format!("{}/models/a/whole.bin", s3.url());
    let etag = |answer: &Answer| answer.header("etag").unwrap_or_default().to_owned();

    let s3 = having(Habits {
        refuses_checksum_mode: Some(501),
        refuses_query_signatures: Some(403),
        refuses_if_match: true,
        has_own_listing: true,
        ..Habits::default()
    });
    assert_eq!(ask("HEAD", &url(&s3), &[]).status, 200);
    assert_eq!(ask("HEAD", &url(&s3), &[("x-amz-checksum-mode", "ENABLED")]).status, 501);
    assert_eq!(get(&format!("{}?X-Amz-Signature=0", url(&s3))).status, 403);
    let own = etag(&get(&url(&s3)));
    assert_eq!(ask("GET", &url(&s3), &[("If-Match", &own)]).status, 412);
    let listing = get(&format!("{}/models?list-type=2&prefix=a%2Fwhole", s3.url())).text();
    assert!(!listing.contains(own.trim_matches('"')), "{listing}");

    let s3 = having(Habits {
        refuses_head: Some(405),
        ignores_if_match: true,
        sends_on: Some((302, "http://cdn.example".into())),
        ..Habits::default()
    });
    assert_eq!(ask("HEAD", &url(&s3), &[]).status, 405);
    let sent_on = ask("GET", &url(&s3), &[("If-Match", "\"other\"")]);
    let location = "http://cdn.example/models/a/whole.bin?link=0";
    assert_eq!((sent_on.status, sent_on.header("location")), (302, Some(location)));

    let s3 = having(Habits { requester_pays: true, ..Habits::default() });
    s3.script(Rule::on("GET", "").when_header("x-nothing", "x").then(Fault::status(500)));
    assert_error(&get(&url(&s3)), 403, "AccessDenied");
    assert_eq!(ask("GET", &url(&s3), &[("x-amz-request-payer", "requester")]).status, 200);
    assert_eq!(ask("GET", &url(&s3), &[("x-nothing", "yx")]).status, 500);
}

#[test]
fn what_is_stored_packed_can_be_unpacked_on_the_way() {
    let sizes = |unpacks, accept: &str| {
        let options = ObjectOptions {
            content_encoding: Some("gzip".into()),
            unpacked: Some(Blob::zeros(900)),
            ..ObjectOptions::default()
        };
        let builder = FakeS3::builder().object_with("models", "p", Blob::zeros(70), options);
        let s3 = builder.habits(Habits { unpacks, ..Habits::default() }).start();
        let url = format!("{}/models/p", s3.url());
        let headers = [("Accept-Encoding", accept), ("Range", "bytes=0-9")];
        let answer = ask("GET", &url, &headers);
        (answer.status, answer.body.len(), answer.header("content-encoding").is_some())
    };
    assert_eq!(sizes(Unpacks::Never, "identity"), (206, 10, true));
    assert_eq!(sizes(Unpacks::UnlessAccepted, "gzip"), (206, 10, true));
    assert_eq!(sizes(Unpacks::UnlessAccepted, "identity"), (200, 900, false));
    assert_eq!(sizes(Unpacks::Always, "gzip"), (200, 900, false));
}

fn ask(method: &str, url: &str, headers: &[(&str, &str)]) -> Answer {
    request(method, url, headers, "")
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[test]
fn an_endpoint_that_takes_objects_keeps_their_conditions_and_checksums() {
    let read_only = s3();
    let refused = request("PUT", &format!("{}/models/new", read_only.url()), &[], "x");
    assert_error(&refused, 405, "MethodNotAllowed");
    let s3 = s3_with(|builder| builder.writable(Writes::default()));
    let put = |headers: &[(&str, &str)], body| {
        request("PUT", &format!("{}/models/new", s3.url()), headers, body)
    };
    let wrong = [("x-amz-checksum-crc64nvme", "AAAAAAAAAAA=")];
    assert_error(&put(&wrong, "123456789"), 400, "BadDigest");
    let right = [("x-amz-checksum-crc64nvme", "rosUhgp5mIg="), ("x-amz-meta-a", "b")];
    let answer = put(&right, "123456789");
    assert_eq!(answer.header("etag"), Some("\"25f9e794323b453885f5181f1b624d0b\""));
    assert_error(&put(&[("If-None-Match", "*")], "x"), 412, "PreconditionFailed");
    assert_error(&put(&[("If-Match", "\"other\"")], "x"), 412, "PreconditionFailed");
    let url = format!("{}/models/new", s3.url());
    let head = request("HEAD", &url, &[("x-amz-checksum-mode", "ENABLED")], "");
    assert_eq!(head.header("x-amz-checksum-crc64nvme"), Some("rosUhgp5mIg="));
    assert_eq!(head.header("x-amz-meta-a"), Some("b"));
    assert_eq!(get(&url).text(), "123456789");
    assert_eq!(put(&[("If-Match", answer.header("etag").unwrap_or_default())], "x").status, 200);
    let none = request("PUT", &format!("{}/none/new", s3.url()), &[], "x");
    assert_error(&none, 404, "NoSuchBucket");
}

#[test]
fn an_upload_in_parts_is_an_object_when_it_is_completed() {
    let s3 = s3_with(|builder| builder.writable(Writes::default()));
    let url = format!("{}/models/big", s3.url());
    let begun = request("POST", &format!("{url}?uploads"), &[], "").text();
    let id = text_of(&begun, "UploadId")[0].to_owned();
    let large = "a".repeat(5 << 20);
    let parts = ["1", "2"].map(|number| {
        let body = if number == "1" { large.as_str() } else { "end" };
        let url = format!("{url}?partNumber={number}&uploadId={id}");
        let etag = request("PUT", &url, &[], body).header("etag").unwrap_or_default().to_owned();
        format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>")
    });
    assert_eq!((get(&url).status, s3.unfinished_uploads()), (404, 1));
    let listed = get(&format!("{url}?uploadId={id}")).text();
    assert_eq!(text_of(&listed, "Size"), ["5242880", "3"]);
    let all = get(&format!("{}/models?uploads&prefix=b", s3.url())).text();
    assert_eq!(text_of(&all, "Key"), ["big"]);
    let complete = |parts: &str| request("POST", &format!("{url}?uploadId={id}"), &[], parts);
    let unknown = "<Part><PartNumber>3</PartNumber><ETag>x</ETag></Part>";
    assert_error(&complete(unknown), 400, "InvalidPart");
    assert_eq!(complete(&parts.concat()).status, 200);
    assert_eq!(get(&url).body.len(), (5 << 20) + 3);
    assert!(s3.etag("models", "big").is_some_and(|etag| etag.ends_with("-2\"")));
    assert_error(&complete(&parts.concat()), 404, "NoSuchUpload");
}
