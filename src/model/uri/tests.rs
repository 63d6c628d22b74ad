use super::*;

#[test]
fn hub_uris_have_a_repo_and_a_revision() {
    let parse = |uri: &str| SourceUri::parse(uri).expect(uri).to_string();
    assert_eq!(parse("hf://org/name"), "hf://org/name@main");
    assert_eq!(parse("hf://org/name@refs/pr/1"), "hf://org/name@refs/pr/1");
    assert_eq!(parse("hf://org/name:v1.0"), "hf://org/name@v1.0");
    assert_eq!(parse("hf://gpt2/"), "hf://gpt2@main");
    let pinned = SourceUri::parse(&format!("hf://org/Name@{}", "AB".repeat(20))).expect("pinned");
    assert_eq!(pinned.pinned_commit(), Some("ab".repeat(20).as_str()));
    assert_eq!(pinned.default_family(), "name");
}

#[test]
fn a_scheme_may_be_written_in_capitals() {
    for (uri, expected) in [
        ("HF://org/Name", "hf://org/Name@main"),
        ("S3://bucket/Prefix/", "s3://bucket/Prefix/"),
        ("Gs://bucket/x/", "gs://bucket/x/"),
        ("AZ://account/container/x/", "az://account/container/x/"),
        ("HTTPS://Host/Path/", "https://host/Path/"),
        ("OCI://ghcr.io/org/name:tag", "oci://ghcr.io/org/name:tag"),
        ("File:///data/X", "file:///data/X"),
    ] {
        assert_eq!(SourceUri::parse(uri).expect(uri).to_string(), expected);
    }
    let error = SourceUri::parse("HTTPS://user:hunter2@host/x").expect_err("a password");
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

#[test]
fn datasets_and_spaces_are_repos_with_a_kind_before_their_name() {
    for (uri, kind, id, family) in [
        ("hf://datasets/org/Name@v1", RepoKind::Dataset, "org/Name", "name"),
        ("hf://datasets/squad", RepoKind::Dataset, "squad", "squad"),
        ("hf://spaces/org/name/", RepoKind::Space, "org/name", "name"),
        ("hf://org/datasets", RepoKind::Model, "org/datasets", "datasets"),
    ] {
        let parsed = SourceUri::parse(uri).expect(uri);
        assert_eq!(parsed.default_family(), family);
        assert_eq!(parsed.is_model(), kind == RepoKind::Model);
        assert_eq!(SourceUri::parse(&parsed.to_string()).as_ref(), Ok(&parsed), "{uri}");
        let SourceUri::Hub(repo) = parsed else { panic!("{uri}") };
        assert_eq!((repo.kind, repo.id.as_str()), (kind, id), "{uri}");
        assert_eq!(HubRepo::named(&repo.name(), &repo.revision), repo, "{uri}");
    }
}

#[test]
fn an_address_of_the_web_and_a_model_of_modelscope_are_written_as_they_are_read() {
    let (sha256, commit) = ("ab".repeat(32), "ab".repeat(20));
    for (uri, name, family, pin) in [
        ("https://h/Models/Llama%203/".to_owned(), None, "llama 3", None),
        ("http://h:8080/a/B.gguf".to_owned(), None, "b.gguf", None),
        ("https://h/".to_owned(), None, "h", None),
        (
            format!("https://h/B.gguf#sha256={sha256}"),
            Some("https://h/B.gguf"),
            "b.gguf",
            Some(&sha256),
        ),
        ("ms://org/Name@master".to_owned(), Some("ms://org/Name"), "name", None),
        (format!("ms://org/Name@{commit}"), Some("ms://org/Name"), "name", Some(&commit)),
    ] {
        let parsed = SourceUri::parse(&uri).expect(&uri);
        assert_eq!(parsed.to_string(), uri);
        assert_eq!(parsed.source_name(), name.unwrap_or(&uri));
        assert_eq!(parsed.default_family(), family, "{uri}");
        assert_eq!(parsed.pinned_commit(), pin.map(String::as_str), "{uri}");
        assert!(parsed.is_model());
    }
    let encoded = SourceUri::parse("https://h:443/é/").expect("a URL").to_string();
    assert_eq!(encoded, "https://h/%C3%A9/");
}

#[test]
fn a_prefix_and_an_object_differ_by_the_last_slash() {
    let parse = |uri: &str| SourceUri::parse(uri).expect(uri);
    assert_eq!(parse("s3://models/llama/70B/").default_family(), "70b");
    assert_eq!(parse("s3://models").default_family(), "models");
    assert_eq!(parse("s3://models/a/One.safetensors").default_family(), "one.safetensors");
    assert_ne!(parse("s3://models/llama").source_name(), parse("s3://models/llama/").source_name());
}

#[test]
fn an_access_point_stands_where_a_bucket_stands() {
    let point = "arn:aws:s3:eu-west-1:123456789012:accesspoint";
    for (uri, bucket, key, family) in [
        (format!("s3://{point}/models/llama/"), format!("{point}/models"), "llama/", "llama"),
        (format!("s3://{point}:models/a/b.bin"), format!("{point}:models"), "a/b.bin", "b.bin"),
        (format!("s3://{point}:models"), format!("{point}:models"), "", "models"),
        (format!("s3://{point}/models/"), format!("{point}/models"), "", "models"),
    ] {
        let parsed = SourceUri::parse(&uri).expect(&uri);
        assert_eq!(parsed.default_family(), family, "{uri}");
        let SourceUri::S3(location) = parsed else { panic!("{uri}") };
        assert_eq!((location.bucket.as_str(), location.key.as_str()), (bucket.as_str(), key));
        assert_eq!(S3Location::region_of(&location.bucket), Some("eu-west-1"));
    }
    assert_eq!(S3Location::region_of("models"), None);
}

#[test]
fn a_prefix_may_hold_spaces() {
    let parsed = SourceUri::parse("s3://bucket/my models/Llama 3/").expect("spaces");
    assert_eq!(parsed.source_name(), "s3://bucket/my models/Llama 3/");
    assert_eq!(parsed.default_family(), "llama 3");
}

#[test]
fn a_bucket_of_google_and_a_container_of_azure_have_prefixes_as_s3_has() {
    for (uri, name, family) in [
        ("gs://models/llama/70B/", "gs://models/llama/70B/", "70b"),
        ("gs://my_models.example", "gs://my_models.example/", "my_models.example"),
        ("gs://models/my models/a.bin", "gs://models/my models/a.bin", "a.bin"),
        ("az://models/weights/llama/70B/", "az://models/weights/llama/70B/", "70b"),
        ("az://models/weights", "az://models/weights/", "weights"),
        (
            "https://models.blob.core.windows.net/weights/my%20models/x/",
            "az://models/weights/my models/x/",
            "x",
        ),
        ("https://models.dfs.core.windows.net/weights/x", "az://models/weights/x", "x"),
        (
            "https://models.blob.core.usgovcloudapi.net/weights/a%20b/",
            "https://models.blob.core.usgovcloudapi.net/weights/a%20b/",
            "a b",
        ),
    ] {
        let parsed = SourceUri::parse(uri).expect(uri);
        assert_eq!((parsed.to_string(), parsed.source_name()), (name.into(), name.into()));
        assert_eq!(parsed.default_family(), family);
        assert_eq!(SourceUri::parse(name).expect(name), parsed);
    }
    for uri in [
        "gs://",
        "gs://Bucket/x",
        "gs://bucket//x",
        "gs://bucket/../x",
        "gs://user:x@bucket/x",
        "az://models",
        "az://models/",
        "az://evil.example/weights/",
        "az://models@evil/weights/",
        "az://models/UPPER/x",
        "az://models/weights/a/../b",
        "https://models.blob.core.windows.net/",
        "https://models.blob.core.windows.net/weights/a%2F..%2Fb",
    ] {
        assert!(SourceUri::parse(uri).is_err(), "{uri}");
    }
    // A web server like any other.
    let uri = "https://models.blob.core.windows.net.evil.example/weights/";
    assert!(matches!(SourceUri::parse(uri), Ok(SourceUri::Web(_))));
    let uri = "https://models.blob.core.windows.net/weights/x?sig=hunter2";
    let error = SourceUri::parse(uri).expect_err("a query").to_string();
    assert!(error.contains("AZURE_STORAGE_SAS_TOKEN") && !error.contains("hunter2"), "{error}");
}

#[test]
fn a_directory_is_an_absolute_path_as_it_is() {
    for (uri, path, family) in [
        ("file:///data/models/Llama-3", "/data/models/Llama-3", "llama-3"),
        ("file:///mnt/my models/x/", "/mnt/my models/x", "x"),
        ("file:///a%20b", "/a%20b", "a%20b"),
    ] {
        let parsed = SourceUri::parse(uri).expect(uri);
        assert_eq!(parsed, SourceUri::Directory(path.into()), "{uri}");
        assert_eq!(parsed.to_string(), format!("file://{path}"));
        assert_eq!(parsed.default_family(), family);
    }
    for uri in [
        "file://host/x",
        "file://data",
        "file://",
        "file:///",
        "file:///a/../b",
        "file:///a//b",
        "file:///a/./b",
        "file:///a\nb",
    ] {
        assert!(SourceUri::parse(uri).is_err(), "{uri}");
    }
}

#[test]
fn uris_are_separated_by_commas_that_keys_may_hold_as_well() {
    for (text, expected) in [
        ("hf://a/b", vec!["hf://a/b"]),
        ("s3://b/x/,hf://a/b@main", vec!["s3://b/x/", "hf://a/b@main"]),
        (" s3://b/x/ ,\n hf://a/b ,", vec!["s3://b/x/", "hf://a/b"]),
        ("s3://b/Mistral, 7B/,hf://a/b", vec!["s3://b/Mistral, 7B/", "hf://a/b"]),
        ("s3://b/a,b", vec!["s3://b/a,b"]),
        ("nonsense,s3://b/a", vec!["nonsense", "s3://b/a"]),
        (" ", vec![]),
        (",", vec![]),
    ] {
        assert_eq!(SourceUri::split_list(text).collect::<Vec<_>>(), expected, "{text:?}");
    }
}

#[test]
fn what_is_not_a_source_is_refused_without_repeating_a_secret() {
    for uri in [
        "org/name",
        "ftp://x/y",
        "hf://",
        "hf://a/b/c",
        "hf://a/b@",
        "hf://../b",
        "hf://a/b@../x",
        "s3://",
        "s3://x",
        "s3://bucket//a",
        "s3://bucket/a/../b",
        "hf://a/b c",
        "hf://a/b@x?y",
        "s3://buc ket/a",
        "s3://bucket/a\n",
        "s3://bucket/a\u{1b}b/",
        "s3://bucket/a ",
        " s3://bucket/a",
        "s3://arn:aws:s3:eu-west-1:123456789012:bucket/x/",
        "s3://arn:aws:s3:eu-west-1:123456789012:accesspoint/",
        "s3://arn:aws:s3:evil.example/:1:accesspoint/x/",
        "s3://arn:aws:iam:eu-west-1:123456789012:accesspoint/x/",
        "s3://arn:aws:s3::123456789012:accesspoint/mfzwi23gnjvgw.mrap/x/",
    ] {
        assert!(SourceUri::parse(uri).is_err(), "{uri}");
    }
    let error = SourceUri::parse("https://user:hunter2@host/x?token=hunter2").expect_err("https");
    assert!(!error.to_string().contains("hunter2"), "{error}");
}
