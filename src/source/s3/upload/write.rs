//! Sends an object, or a part of one: signed by the SDK, over the client of whoever writes.

use std::error::Error;

use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use bytes::Bytes;
use reqwest::Client;
use reqwest::header::{EXPECT, HeaderMap};

use super::object::{Before, crc_text, metadata};
use crate::model::Mark;
use crate::net::{SourceError, http};
use crate::source::s3::client::Bucket;
use crate::source::s3::errors::Refusal;
use crate::source::s3::failures::Failed;
use crate::source::s3::sign::Signed;
use crate::source::s3::transport::SLOW_DOWN;
use crate::source::s3::ways::Way;

/// What is sent.
pub enum Ask<'a> {
    Object { body: Bytes, crc64nvme: u64, mark: &'a Mark, before: &'a Before },
    Part { body: Bytes, upload: &'a str, number: u32, crc64nvme: Option<u64> },
}

/// What is said beside the bytes, that not every store knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extras {
    has_checksum: bool,
    has_condition: bool,
}

/// `If-Match` and `If-None-Match`.
pub fn conditions(before: &Before) -> (Option<String>, Option<String>) {
    match before {
        Before::Nothing => (None, Some("*".to_owned())),
        Before::This(etag) => (etag.clone(), None),
    }
}

impl Ask<'_> {
    fn body(&self) -> &Bytes {
        match self {
            Self::Object { body, .. } | Self::Part { body, .. } => body,
        }
    }
}

impl Bucket {
    /// Whether a condition is to be said, tried in this order: where the store refuses it, without.
    pub fn with_condition(&self, before: &Before) -> &'static [bool] {
        match before {
            Before::This(None) => &[false],
            Before::This(_) if self.ways.know(Way::NoReplacing) => &[false],
            _ if self.ways.know(Way::NoConditions) => &[false],
            _ => &[true, false],
        }
    }

    fn extras(&self, ask: &Ask<'_>) -> Vec<Extras> {
        let with_condition = match ask {
            Ask::Object { before, .. } => self.with_condition(before),
            Ask::Part { .. } => &[false],
        };
        let with_checksum: &[bool] = match ask {
            Ask::Part { crc64nvme: None, .. } => &[false],
            _ if self.ways.know(Way::NoUploadChecksums) => &[false],
            _ => &[true, false],
        };
        let all = with_condition.iter().flat_map(|has_condition| {
            with_checksum.iter().map(|has_checksum| Extras {
                has_checksum: *has_checksum,
                has_condition: *has_condition,
            })
        });
        all.collect()
    }

    pub fn takes_no_checksums(&self) {
        self.ways.learn(Way::NoUploadChecksums, || {
            "the store does not accept checksums of what is sent; using the SHA-256 in each signature"
                .to_owned()
        });
    }

    pub fn takes_no_conditions(&self) {
        self.ways.learn(Way::NoConditions, || {
            "the store does not support conditional writes: what another program writes to the same key at \
             the same moment may be overwritten"
                .to_owned()
        });
    }

    /// Sends `ask`, and once more where a refusal says what to do better; the headers of the answer.
    pub async fn write(
        &self,
        client: &Client,
        key: &str,
        ask: &Ask<'_>,
    ) -> Result<HeaderMap, Failed> {
        let all = self.extras(ask);
        let mut refused = None;
        for extras in &all {
            match self.write_once(client, key, ask, *extras).await {
                Ok(headers) => {
                    if all[0].has_checksum && !extras.has_checksum {
                        self.takes_no_checksums();
                    }
                    if all[0].has_condition && !extras.has_condition {
                        self.takes_no_conditions();
                    }
                    return Ok(headers);
                }
                Err(Failed::Refused(refusal)) if refusal.is_unknown_call() => {
                    // The first no says more than the others.
                    refused.get_or_insert(refusal);
                }
                failed => return failed,
            }
        }
        Err(Failed::Refused(refused.unwrap_or_default()))
    }

    async fn write_once(
        &self,
        client: &Client,
        key: &str,
        ask: &Ask<'_>,
        extras: Extras,
    ) -> Result<HeaderMap, Failed> {
        let mut amendments = 0;
        loop {
            let sign = || self.sign_write(key, ask, extras);
            let signed = self.signed_when_due(sign).await.map_err(Failed::Otherwise)?;
            let mut headers = signed.headers.clone();
            // Nobody is waited for.
            headers.remove(EXPECT);
            let (method, body) = (signed.method.clone(), ask.body().clone());
            let sent = self.http.send_body(client, method, &signed.url, headers, body).await;
            let response = sent.map_err(Failed::Otherwise)?;
            if response.status().is_success() {
                let headers = response.headers().clone();
                http::read_off(response, self.http.deadlines.stall).await;
                return Ok(headers);
            }
            let refusal = Refusal::read(response, self.http.deadlines.stall).await;
            if refusal.is_slow_down() {
                let host = http::origin(&signed.url);
                let wait = self.http.pace.slow_down(&host, SLOW_DOWN);
                return Err(Failed::Otherwise(SourceError::RateLimited { host, wait }));
            }
            if amendments == 2 || !self.amend(&signed.by, &refusal).await {
                return Err(Failed::Refused(refusal));
            }
            amendments += 1;
        }
    }

    async fn sign_write(
        &self,
        key: &str,
        ask: &Ask<'_>,
        extras: Extras,
    ) -> Result<Signed, SourceError> {
        let by = self.connection().await?;
        // Shared, not copied.
        let body = ByteStream::new(SdkBody::from(ask.body().clone()));
        let stopped: Option<Box<dyn Error>> = match ask {
            Ask::Object { crc64nvme, mark, before, .. } => {
                let mut request = by.signer.put_object().bucket(&self.name).key(key).body(body);
                for (name, value) in metadata(mark) {
                    request = request.metadata(name, value);
                }
                let checksum = extras.has_checksum.then(|| crc_text(*crc64nvme));
                let conditions = extras.has_condition.then(|| conditions(before));
                let (if_match, if_none_match) = conditions.unwrap_or_default();
                let request = request.set_if_match(if_match).set_if_none_match(if_none_match);
                let sent = request.set_checksum_crc64_nvme(checksum).send().await;
                sent.err().map(Into::into)
            }
            Ask::Part { upload, number, crc64nvme, .. } => {
                let request = by.signer.upload_part().bucket(&self.name).key(key).body(body);
                let checksum = crc64nvme.filter(|_| extras.has_checksum).map(crc_text);
                let number = i32::try_from(*number).unwrap_or(0);
                let request = request.upload_id(*upload).part_number(number);
                let sent = request.set_checksum_crc64_nvme(checksum).send().await;
                sent.err().map(Into::into)
            }
        };
        Signed::caught(reqwest::Method::PUT, key, stopped, by)
    }
}
