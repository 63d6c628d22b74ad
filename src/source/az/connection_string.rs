//! `AZURE_STORAGE_CONNECTION_STRING`: `AccountName=…;AccountKey=…;BlobEndpoint=…`.

use url::Url;

/// What it says. The key and the signature are in no message.
#[derive(Default)]
pub struct ConnectionString {
    pub account: Option<String>,
    pub key: Option<String>,
    pub signature: Option<String>,
    pub endpoint: Option<String>,
}

impl ConnectionString {
    pub fn parse(text: &str) -> Self {
        let mut said = Self::default();
        let (mut protocol, mut suffix) = ("https", None);
        for part in text.split(';') {
            let Some((name, value)) = part.split_once('=') else { continue };
            let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
            if value.is_empty() {
                continue;
            }
            let kept = || Some(value.to_owned());
            match name.as_str() {
                "accountname" => said.account = kept(),
                "accountkey" => said.key = kept(),
                "sharedaccesssignature" => said.signature = kept(),
                "blobendpoint" => said.endpoint = kept(),
                "defaultendpointsprotocol" if value.eq_ignore_ascii_case("http") => {
                    protocol = "http"
                }
                "endpointsuffix" => suffix = Some(value),
                _ => {}
            }
        }
        if let (None, Some(account), Some(suffix)) = (&said.endpoint, &said.account, suffix) {
            said.endpoint = Some(format!("{protocol}://{account}.blob.{suffix}"));
        }
        if said.account.is_none() {
            said.account = said.endpoint.as_deref().and_then(account_of);
        }
        said
    }
}

/// The account in `https://account.blob.core.windows.net/` or `http://127.0.0.1:10000/account`.
fn account_of(endpoint: &str) -> Option<String> {
    let url = Url::parse(endpoint).ok()?;
    let in_path = url.path_segments()?.find(|part| !part.is_empty()).map(str::to_owned);
    in_path.or_else(|| Some(url.domain()?.split('.').next()?.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_string_is_read_in_the_forms_that_azure_writes() {
        let said = ConnectionString::parse(
            "DefaultEndpointsProtocol=https;AccountName=models;AccountKey=a+b/c==;\
             EndpointSuffix=core.windows.net",
        );
        assert_eq!(said.account.as_deref(), Some("models"));
        assert_eq!(said.key.as_deref(), Some("a+b/c=="));
        assert_eq!(said.endpoint.as_deref(), Some("https://models.blob.core.windows.net"));
        let said = ConnectionString::parse(
            "BlobEndpoint=https://models.blob.core.windows.net/;SharedAccessSignature=sv=1&sig=x%3D;",
        );
        assert_eq!(said.account.as_deref(), Some("models"));
        assert_eq!(said.signature.as_deref(), Some("sv=1&sig=x%3D"));
        let said = ConnectionString::parse("BlobEndpoint=http://127.0.0.1:10000/devstoreaccount1;");
        assert_eq!(said.account.as_deref(), Some("devstoreaccount1"));
        assert!(ConnectionString::parse("nonsense").account.is_none());
    }
}
