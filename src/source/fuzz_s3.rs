//! A listing of S3 through the SDK that reads it, without a network; see [`crate::fuzz`].

use std::cell::OnceCell;
use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_s3::config::{BehaviorVersion, Region};
use aws_sdk_s3::types::EncodingType;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::retry::RetryConfig;

use super::fuzz::assert_inert;
use super::s3_errors::Asked;
use super::s3_failures::Failed;
use super::s3_listing::{Entry, entries};

const BASE: &str = "m/";

/// `data` is the XML of a page.
pub fn s3_listing(data: &[u8]) {
    thread_local! {
        static S3: OnceCell<Canned> = const { OnceCell::new() };
    }
    S3.with(|s3| s3.get_or_init(Canned::new).list(data));
}

/// An S3 that answers everything with the same bytes.
struct Canned {
    answer: Answer,
    client: aws_sdk_s3::Client,
    runtime: tokio::runtime::Runtime,
}

#[derive(Clone, Debug, Default)]
struct Answer(Arc<Mutex<Vec<u8>>>);

impl Canned {
    fn new() -> Self {
        let answer = Answer::default();
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::from_static("us-east-1"))
            .allow_no_auth()
            .retry_config(RetryConfig::disabled())
            .http_client(answer.clone())
            .build();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Self {
            answer,
            client: aws_sdk_s3::Client::from_conf(config),
            runtime: runtime.expect("a runtime can be made"),
        }
    }

    fn list(&self, xml: &[u8]) {
        *self.answer.0.lock().unwrap_or_else(PoisonError::into_inner) = xml.to_vec();
        let asking = self.client.list_objects_v2().bucket("b").prefix(BASE);
        let page = match self.runtime.block_on(asking.encoding_type(EncodingType::Url).send()) {
            Ok(page) => page,
            Err(error) => {
                let refused = Failed::of(&error).explain("b", Asked::List(BASE));
                return assert_inert(&refused.to_string());
            }
        };
        for entry in entries(BASE, &page) {
            match entry {
                Ok(Entry::File(listed)) => crate::model::fuzz::assert_safe(&listed.path),
                Ok(Entry::Refused(file)) => assert_inert(&file.why.to_string()),
                Ok(Entry::Sentinel(_) | Entry::Marker) => {}
                Err(refused) => assert_inert(&refused.to_string()),
            }
        }
    }
}

impl HttpConnector for Answer {
    fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
        let body = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let status = 200.try_into().expect("a status");
        HttpConnectorFuture::ready(Ok(HttpResponse::new(status, SdkBody::from(body))))
    }
}

impl HttpClient for Answer {
    fn http_connector(
        &self,
        _: &HttpConnectorSettings,
        _: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}
