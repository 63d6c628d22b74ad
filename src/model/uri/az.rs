//! `az://account/container/prefix/`: a container of Azure Blob Storage, also by its URL
//! `https://account.blob.core.windows.net/container/prefix/`.

use super::Refusal;
use percent_encoding::percent_decode_str;

/// Hosts of accounts: of the public cloud, and of those of China and of the US government.
const DOMAINS: [&str; 3] = ["windows.net", "chinacloudapi.cn", "usgovcloudapi.net"];

/// A prefix, or one blob, of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AzLocation {
    pub account: String,
    /// Where the account is: `windows.net`.
    pub domain: &'static str,
    pub container: String,
    /// Without a leading `/`; ends in `/` (or is empty) where the user wrote a directory.
    pub key: String,
}

impl AzLocation {
    /// Of `account/container/prefix/`.
    pub(super) fn parse(rest: &str) -> Result<Self, &'static str> {
        let (account, rest) = rest.split_once('/').unwrap_or((rest, ""));
        Self::of(account, DOMAINS[0], rest.to_owned())
    }

    /// Whether `https://` and `rest` is the URL of a container.
    pub(super) fn is_url(rest: &str) -> bool {
        Self::host_of(rest).is_some()
    }

    /// Of `account.blob.core.windows.net/container/prefix/`, which is written as in a URL.
    pub(super) fn parse_url(rest: &str) -> Result<Self, Refusal> {
        let Some((account, domain, path)) = Self::host_of(rest) else {
            return Err("is not the URL of a container".into());
        };
        if path.contains(['?', '#']) {
            return Err(Refusal::with_hint(
                "has a query",
                "put a shared access signature into AZURE_STORAGE_SAS_TOKEN",
            ));
        }
        let path = percent_decode_str(path).decode_utf8();
        Ok(Self::of(account, domain, path.map_err(|_| "is not UTF-8")?.into_owned())?)
    }

    fn host_of(rest: &str) -> Option<(&str, &'static str, &str)> {
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (host, path) = rest.split_at(end);
        DOMAINS.into_iter().find_map(|domain| {
            let account = host.strip_suffix(domain)?.strip_suffix(".core.")?;
            // The other one is how a hierarchical namespace is asked for the same.
            let account = account.strip_suffix(".blob").or_else(|| account.strip_suffix(".dfs"))?;
            Some((account, domain, path.strip_prefix('/').unwrap_or(path)))
        })
    }

    fn of(account: &str, domain: &'static str, rest: String) -> Result<Self, &'static str> {
        let is_lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        // It becomes part of a host name.
        if !(3..=24).contains(&account.len()) || !account.chars().all(is_lower) {
            return Err("does not name a storage account and a container");
        }
        let (container, key) = rest.split_once('/').unwrap_or((&rest, ""));
        let is_special = matches!(container, "$root" | "$web");
        let is_name = (3..=63).contains(&container.len())
            && container.chars().all(|c| is_lower(c) || c == '-');
        if !is_name && !is_special {
            return Err("does not name a container of the storage account");
        }
        super::check_key(key)?;
        let (container, key) = (container.to_owned(), key.to_owned());
        Ok(Self { account: account.to_owned(), domain, container, key })
    }

    pub(super) fn name(&self) -> String {
        let Self { account, domain, container, key } = self;
        match *domain == DOMAINS[0] {
            true => format!("az://{account}/{container}/{key}"),
            // Nothing but the URL says which cloud it is.
            false => {
                let written = percent_encoding::utf8_percent_encode(key, ESCAPED);
                format!("https://{account}.blob.core.{domain}/{container}/{written}")
            }
        }
    }
}

/// What would end the path of a URL, or be taken for an escape.
const ESCAPED: &percent_encoding::AsciiSet =
    &percent_encoding::CONTROLS.add(b'%').add(b'?').add(b'#').add(b' ');
