//! The process's environment: every variable that is read, and the only functions that read one. A
//! variable that is not in the list is not read. Imports nothing.

use std::ffi::OsString;

/// What a variable is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Says what a flag says, which comes first.
    Flags,
    Hub,
    S3,
    Oci,
    Google,
    Azure,
    Network,
    Kubernetes,
    Terminal,
    Files,
}

#[derive(Clone, Copy, Debug)]
pub struct Variable {
    /// With a `*` at its end: all that begin so.
    pub name: &'static str,
    pub part: Part,
    pub meaning: &'static str,
}

const fn variable(name: &'static str, part: Part, meaning: &'static str) -> Variable {
    Variable { name, part, meaning }
}

/// Every variable; the page on them has the same rows.
#[rustfmt::skip]
pub const VARIABLES: [Variable; 168] = [
    variable("WEIGHTLIFT_OUTPUT", Part::Flags, "`--output`"),
    variable("WEIGHTLIFT_LOG_FORMAT", Part::Flags, "`--log-format`"),
    variable("WEIGHTLIFT_QUIET", Part::Flags, "`--quiet`"),
    variable("WEIGHTLIFT_VERBOSE", Part::Flags, "`--verbose`"),
    variable("WEIGHTLIFT_TERMINATION_LOG", Part::Flags, "`--termination-log`"),
    variable("WEIGHTLIFT_PROGRESS_FILE", Part::Flags, "`--progress-file`"),
    variable("WEIGHTLIFT_METRICS_FILE", Part::Flags, "`--metrics-file`"),
    variable("WEIGHTLIFT_METRICS_LABEL", Part::Flags, "`--metrics-label`"),
    variable("WEIGHTLIFT_METRICS_LISTEN", Part::Flags, "`--metrics-listen`"),
    variable("WEIGHTLIFT_SANDBOX", Part::Flags, "`--sandbox`"),
    variable("WEIGHTLIFT_MODELS", Part::Flags, "`--models`"),
    variable("WEIGHTLIFT_LOCKED", Part::Flags, "`--locked`"),
    variable("WEIGHTLIFT_CHECK", Part::Flags, "`--check`"),
    variable("WEIGHTLIFT_UPGRADE", Part::Flags, "`--upgrade`"),
    variable("WEIGHTLIFT_DRY_RUN", Part::Flags, "`--dry-run`"),
    variable("WEIGHTLIFT_ONLY", Part::Flags, "`--only`"),
    variable("WEIGHTLIFT_ALSO", Part::Flags, "`--also`"),
    variable("WEIGHTLIFT_MIRROR", Part::Flags, "`--mirror`"),
    variable("WEIGHTLIFT_ADOPT", Part::Flags, "`--adopt`"),
    variable("WEIGHTLIFT_ROOT", Part::Flags, "`--root`"),
    variable("WEIGHTLIFT_LAYOUT", Part::Flags, "`--layout`"),
    variable("WEIGHTLIFT_INCLUDE", Part::Flags, "`--include`"),
    variable("WEIGHTLIFT_EXCLUDE", Part::Flags, "`--exclude`"),
    variable("WEIGHTLIFT_ALL", Part::Flags, "`--all`"),
    variable("WEIGHTLIFT_DENY_PICKLE", Part::Flags, "`--deny-pickle`"),
    variable("WEIGHTLIFT_REQUIRE_DIGESTS", Part::Flags, "`--require-digests`"),
    variable("WEIGHTLIFT_VERIFY_SIGNATURE", Part::Flags, "`--verify-signature`"),
    variable("WEIGHTLIFT_SIGNATURE_FILE", Part::Flags, "`--signature-file`"),
    variable("WEIGHTLIFT_IGNORE_UNSIGNED", Part::Flags, "`--ignore-unsigned`"),
    variable("WEIGHTLIFT_CONNECTIONS", Part::Flags, "`--connections`"),
    variable("WEIGHTLIFT_DIRECT_IO", Part::Flags, "`--direct-io`"),
    variable("WEIGHTLIFT_P2P", Part::Flags, "`--p2p`"),
    variable("WEIGHTLIFT_XET", Part::Flags, "`--xet`"),
    variable("WEIGHTLIFT_CHUNK_SIZE", Part::Flags, "`--chunk-size`"),
    variable("WEIGHTLIFT_LOCK_TIMEOUT", Part::Flags, "`--lock-timeout`"),
    variable("WEIGHTLIFT_TAKEOVER_AFTER", Part::Flags, "`--takeover-after`"),
    variable("WEIGHTLIFT_TAKEOVER_RATE", Part::Flags, "`--takeover-rate`"),
    variable("WEIGHTLIFT_LOCK", Part::Flags, "`--lock`"),
    variable("WEIGHTLIFT_LEASE_NAME", Part::Flags, "`--lease-name`"),
    variable("WEIGHTLIFT_SERVICE_ACCOUNT", Part::Flags, "`--service-account`"),
    variable("WEIGHTLIFT_RETRY_TIMEOUT", Part::Flags, "`--retry-timeout`"),
    variable("WEIGHTLIFT_RETRY_DELAY", Part::Flags, "`--retry-delay`"),
    variable("WEIGHTLIFT_STALL_TIMEOUT", Part::Flags, "`--stall-timeout`"),
    variable("WEIGHTLIFT_BANDWIDTH", Part::Flags, "`--bandwidth`"),
    variable("WEIGHTLIFT_MIN_RATE", Part::Flags, "`--min-rate`"),
    variable("WEIGHTLIFT_EXPECT_REVISION", Part::Flags, "`--expect-revision`"),
    variable("WEIGHTLIFT_LINK", Part::Flags, "`--link`"),
    variable("WEIGHTLIFT_LINK_ROOT", Part::Flags, "`--link-root`"),
    variable("WEIGHTLIFT_KEEP_REVISIONS", Part::Flags, "`--keep-revisions`"),
    variable("WEIGHTLIFT_KEEP_FOR", Part::Flags, "`--keep-for`"),
    variable("WEIGHTLIFT_UMASK", Part::Flags, "`--umask`"),
    variable("WEIGHTLIFT_OLDER_THAN", Part::Flags, "`--older-than`"),
    variable("WEIGHTLIFT_UNTIL_FREE", Part::Flags, "`--until-free`"),
    variable("WEIGHTLIFT_YES", Part::Flags, "`--yes`"),
    variable("WEIGHTLIFT_S3_ENDPOINT", Part::Flags, "`--s3-endpoint`"),
    variable("WEIGHTLIFT_S3_PATH_STYLE", Part::Flags, "`--s3-path-style`"),
    variable("WEIGHTLIFT_S3_ANONYMOUS", Part::Flags, "`--s3-anonymous`"),
    variable("WEIGHTLIFT_S3_REQUESTER_PAYS", Part::Flags, "`--s3-requester-pays`"),
    variable("WEIGHTLIFT_DEEP", Part::Flags, "`--deep`"),
    variable("WEIGHTLIFT_IF_STALE", Part::Flags, "`--if-stale`"),
    variable("WEIGHTLIFT_REPLACE", Part::Flags, "`--replace`"),
    variable("WEIGHTLIFT_RECHECK", Part::Flags, "`--recheck`"),
    variable("WEIGHTLIFT_ALLOW_DEGRADED", Part::Flags, "`--allow-degraded`"),
    variable("WEIGHTLIFT_DEADLINE", Part::Flags, "`--deadline`"),
    variable("WEIGHTLIFT_TIMEOUT", Part::Flags, "`--timeout`"),
    variable("HF_ENDPOINT", Part::Hub, "where the Hub is, in place of `https://huggingface.co`; it may hold a user and a password"),
    variable("HF_TOKEN", Part::Hub, "the token for the Hub"),
    variable("HUGGING_FACE_HUB_TOKEN", Part::Hub, "the same, where `HF_TOKEN` is not set"),
    variable("HF_TOKEN_PATH", Part::Hub, "the file that holds the token"),
    variable("HF_HOME", Part::Hub, "the directory whose file `token` holds the token; with `--layout hf-cache` the root, where `--root` is not given"),
    variable("HF_HUB_CACHE", Part::Hub, "with `--layout hf-cache` the directory of repos, where `--root` is not given; else `hub` in `HF_HOME`"),
    variable("XDG_CACHE_HOME", Part::Hub, "the directory in which `huggingface` is `HF_HOME`, where that is not set"),
    variable("HF_HUB_DISABLE_IMPLICIT_TOKEN", Part::Hub, "true: no token is looked for"),
    variable("HF_HUB_DISABLE_XET", Part::Hub, "true: `--xet never`, where `--xet` is not given"),
    variable("HF_HUB_OFFLINE", Part::Hub, "true: the Hub is not asked"),
    variable("TRANSFORMERS_OFFLINE", Part::Hub, "the same, where `HF_HUB_OFFLINE` is not set"),
    variable("MODELSCOPE_ENDPOINT", Part::Hub, "where ModelScope is, in place of `https://modelscope.cn`"),
    variable("MODELSCOPE_DOMAIN", Part::Hub, "the same, where `MODELSCOPE_ENDPOINT` is not set"),
    variable("MODELSCOPE_API_TOKEN", Part::Hub, "the token for ModelScope"),
    variable("AWS_ACCESS_KEY_ID", Part::S3, "credentials: the key"),
    variable("AWS_SECRET_ACCESS_KEY", Part::S3, "credentials: the secret of the key"),
    variable("SECRET_ACCESS_KEY", Part::S3, "the same, where `AWS_SECRET_ACCESS_KEY` is not set"),
    variable("AWS_SESSION_TOKEN", Part::S3, "credentials: the token of a session"),
    variable("AWS_ACCOUNT_ID", Part::S3, "credentials: the account that the key is of"),
    variable("AWS_PROFILE", Part::S3, "which profile of the files counts"),
    variable("AWS_CONFIG_FILE", Part::S3, "the file of profiles"),
    variable("AWS_SHARED_CREDENTIALS_FILE", Part::S3, "the file of credentials by profile"),
    variable("AWS_WEB_IDENTITY_TOKEN_FILE", Part::S3, "IRSA: the file that holds the token"),
    variable("AWS_ROLE_ARN", Part::S3, "IRSA: the role"),
    variable("AWS_ROLE_SESSION_NAME", Part::S3, "IRSA: the name of the session"),
    variable("AWS_STS_REGIONAL_ENDPOINTS", Part::S3, "IRSA: which endpoints of STS are asked"),
    variable("AWS_CONTAINER_CREDENTIALS_FULL_URI", Part::S3, "Pod Identity and ECS: where credentials are asked for"),
    variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", Part::S3, "ECS: the same, as a path"),
    variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", Part::S3, "Pod Identity: the file that holds the token"),
    variable("AWS_CONTAINER_AUTHORIZATION_TOKEN", Part::S3, "ECS: the token"),
    variable("AWS_EC2_METADATA_DISABLED", Part::S3, "true: the metadata service of the node is not asked"),
    variable("AWS_EC2_METADATA_SERVICE_ENDPOINT", Part::S3, "where the metadata service of the node is"),
    variable("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", Part::S3, "`IPv6`: the metadata service is asked at its IPv6 address"),
    variable("AWS_NO_SIGN_REQUEST", Part::S3, "true: as `--s3-anonymous`"),
    variable("AWS_SKIP_SIGNATURE", Part::S3, "the same, where the one before is not set"),
    variable("AWS_REGION", Part::S3, "the region"),
    variable("AWS_DEFAULT_REGION", Part::S3, "the region, where `AWS_REGION` is not set"),
    variable("AWS_ENDPOINT_URL_S3", Part::S3, "the endpoint"),
    variable("AWS_ENDPOINT_URL", Part::S3, "the endpoint, where `AWS_ENDPOINT_URL_S3` is not set"),
    variable("AWS_ENDPOINT_URL_*", Part::S3, "endpoints of other services of AWS, such as STS"),
    variable("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", Part::S3, "true: endpoints of variables and profiles do not count"),
    variable("AWS_USE_DUALSTACK_ENDPOINT", Part::S3, "true: endpoints of AWS that have IPv6 as well"),
    variable("AWS_USE_FIPS_ENDPOINT", Part::S3, "true: endpoints of AWS that comply with FIPS"),
    variable("AWS_SDK_UA_APP_ID", Part::S3, "a name in the User-Agent of requests"),
    variable("AWS_EXECUTION_ENV", Part::S3, "the same, set by services of AWS"),
    variable("S3_ENDPOINT", Part::S3, "KServe: the endpoint, as `host:port`"),
    variable("S3_USE_HTTPS", Part::S3, "KServe: whether `S3_ENDPOINT` is asked over TLS"),
    variable("S3_USER_VIRTUAL_BUCKET", Part::S3, "KServe: true: the bucket is a part of the host name"),
    variable("S3_USE_ACCELERATE", Part::S3, "KServe: true: the endpoints of AWS for transfer acceleration"),
    variable("S3_VERIFY_SSL", Part::S3, "KServe: ignored; a warning says so"),
    variable("awsAnonymousCredential", Part::S3, "KServe: true: as `--s3-anonymous`"),
    variable("DOCKER_CONFIG", Part::Oci, "the directory whose `config.json` (or `.dockerconfigjson`, `.dockercfg`, as a pull secret has them) holds the credentials for registries; else `.docker` in `HOME`"),
    variable("REGISTRY_AUTH_FILE", Part::Oci, "the file that holds them, in place of such a directory"),
    variable("WEIGHTLIFT_OCI_PLAIN_HTTP", Part::Oci, "the registries that are asked without TLS, as `host` or `host:port` with commas between them; `true`: all"),
    variable("GOOGLE_APPLICATION_CREDENTIALS", Part::Google, "the file of credentials: the key of a service account, or those of a user"),
    variable("CLOUDSDK_CONFIG", Part::Google, "the directory of gcloud, whose `application_default_credentials.json` counts where no file is named; else `~/.config/gcloud`"),
    variable("GCE_METADATA_HOST", Part::Google, "where the metadata server is, as `host:port`"),
    variable("GCE_METADATA_ROOT", Part::Google, "the same, where `GCE_METADATA_HOST` is not set"),
    variable("GCE_METADATA_IP", Part::Google, "where it is asked next, in place of `169.254.169.254`"),
    variable("GOOGLE_CLOUD_QUOTA_PROJECT", Part::Google, "the project that pays for requests, for buckets whose readers pay"),
    variable("CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE", Part::Google, "the endpoint in place of `https://storage.googleapis.com`, such as one of Private Service Connect"),
    variable("STORAGE_EMULATOR_HOST", Part::Google, "an emulator, as a URL or `host:port`; it is sent no credentials"),
    variable("GOOGLE_SKIP_SIGNATURE", Part::Google, "true: no credentials are looked for"),
    variable("AZURE_SKIP_SIGNATURE", Part::Azure, "true: no credentials are looked for, as for public containers"),
    variable("AZURE_STORAGE_CONNECTION_STRING", Part::Azure, "credentials, the first that count: the key or the signature of an account, and its endpoint"),
    variable("AZURE_STORAGE_ACCOUNT", Part::Azure, "the account that the key and the signature are of; they are sent to no other"),
    variable("AZURE_STORAGE_ACCOUNT_NAME", Part::Azure, "the same, where `AZURE_STORAGE_ACCOUNT` is not set"),
    variable("AZURE_STORAGE_KEY", Part::Azure, "credentials: the key of the account"),
    variable("AZURE_STORAGE_ACCOUNT_KEY", Part::Azure, "the same, where `AZURE_STORAGE_KEY` is not set"),
    variable("AZURE_STORAGE_SAS_TOKEN", Part::Azure, "credentials: a shared access signature"),
    variable("AZURE_CLIENT_SECRET", Part::Azure, "credentials: the secret of the application `AZURE_CLIENT_ID`"),
    variable("AZURE_FEDERATED_TOKEN_FILE", Part::Azure, "workload identity: the file that holds the token"),
    variable("AZURE_CLIENT_ID", Part::Azure, "the application, or which managed identity of the node"),
    variable("AZURE_TENANT_ID", Part::Azure, "the tenant of the application"),
    variable("AZURE_AUTHORITY_HOST", Part::Azure, "where tokens are asked for, in place of `https://login.microsoftonline.com`"),
    variable("IDENTITY_ENDPOINT", Part::Azure, "where the managed identity is asked for, in place of the metadata service of the node"),
    variable("IDENTITY_HEADER", Part::Azure, "what that is sent as `X-Identity-Header`"),
    variable("AZURE_STORAGE_ENDPOINT", Part::Azure, "the endpoint of the account, such as that of an emulator"),
    variable("HTTPS_PROXY", Part::Network, "the proxy for https"),
    variable("https_proxy", Part::Network, "the same, where it is not set in upper case"),
    variable("HTTP_PROXY", Part::Network, "the proxy for http"),
    variable("http_proxy", Part::Network, "the same, where it is not set in upper case"),
    variable("ALL_PROXY", Part::Network, "the proxy for both, also `socks5h://`"),
    variable("all_proxy", Part::Network, "the same, where it is not set in upper case"),
    variable("NO_PROXY", Part::Network, "hosts that are asked without a proxy"),
    variable("no_proxy", Part::Network, "the same, where it is not set in upper case"),
    variable("NETRC", Part::Network, "the file that holds logins for web servers; else `.netrc` in `HOME`"),
    variable("SSL_CERT_FILE", Part::Network, "a file of certificates to trust in addition to the built-in ones"),
    variable("SSL_CERT_DIR", Part::Network, "a directory of such certificates"),
    variable("AWS_CA_BUNDLE", Part::Network, "another such file"),
    variable("CA_BUNDLE_CONFIGMAP_NAME", Part::Network, "with the next, what KServe sets: `cabundle.crt` in that directory is such a file, unless `AWS_CA_BUNDLE` is set"),
    variable("CA_BUNDLE_VOLUME_MOUNT_POINT", Part::Network, "see there"),
    variable("KUBERNETES_SERVICE_HOST", Part::Kubernetes, "where the API server is, for `--lock kubernetes`; set by the kubelet"),
    variable("KUBERNETES_SERVICE_PORT", Part::Kubernetes, "its port; set by the kubelet"),
    variable("POD_NAMESPACE", Part::Kubernetes, "the namespace of the Lease; else that of the service account"),
    variable("POD_NAME", Part::Kubernetes, "the name of this pod for those who wait; else the host name"),
    variable("NODE_NAME", Part::Kubernetes, "the name of this node for those who wait"),
    variable("NO_COLOR", Part::Terminal, "set to anything: no colours"),
    variable("TERM", Part::Terminal, "not set, or `dumb`: lines in place of bars, and no colours"),
    variable("LC_ALL", Part::Terminal, "a locale in UTF-8: the tracks of bars are lines, and else signs of ASCII"),
    variable("LC_CTYPE", Part::Terminal, "the same, where `LC_ALL` is not set"),
    variable("LANG", Part::Terminal, "the same, where neither of these two is set"),
    variable("HOME", Part::Files, "where `~` and the usual files of the Hub and of AWS are"),
];

impl Variable {
    fn is(&self, name: &str) -> bool {
        match self.name.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => self.name == name,
        }
    }
}

/// The entry of the variable `name`, if it is read at all.
pub fn entry(name: &str) -> Option<&'static Variable> {
    VARIABLES.iter().find(|variable| variable.is(name))
}

/// The value of a variable as it is.
pub fn os(name: &str) -> Option<OsString> {
    entry(name)?;
    std::env::var_os(name)
}

/// The value of a variable that the user has named in a file, whatever its name.
pub fn of_user(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The value of a variable, trimmed, if it has one that is text.
pub fn text(name: &str) -> Option<String> {
    let value = os(name)?.into_string().ok()?;
    let value = value.trim();
    (!value.is_empty()).then(|| value.to_owned())
}

/// Whether a variable of this part is set to nothing or to white space.
pub fn has_empty(part: Part) -> bool {
    let is_of_part = |name: &OsString| {
        name.to_str().and_then(entry).is_some_and(|variable| variable.part == part)
    };
    let is_empty = |value: &OsString| value.to_str().is_some_and(|it| it.trim().is_empty());
    std::env::vars_os().any(|(name, value)| is_empty(&value) && is_of_part(&name))
}

/// All variables of one part that are set, and those of [`Part::Files`].
pub fn all(part: Part) -> impl Iterator<Item = (String, OsString)> {
    let is_of_part = move |name: &str| {
        entry(name).is_some_and(|variable| [part, Part::Files].contains(&variable.part))
    };
    let names =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
    names.filter(move |(name, _)| is_of_part(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_in_the_list_is_not_read() {
        assert!(std::env::var_os("PATH").is_some() && os("PATH").is_none());
        assert!(entry("AWS_ENDPOINT_URL_STS").is_some() && entry("AWS_ENDPOINT").is_none());
    }

    #[test]
    fn each_variable_is_listed_once() {
        for (n, variable) in VARIABLES.iter().enumerate() {
            let again = VARIABLES[n + 1..].iter().any(|other| other.name == variable.name);
            assert!(!again, "{}", variable.name);
        }
    }
}
