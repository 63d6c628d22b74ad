//! Takes a request from the SDK when it is signed, and before it is sent.

use std::error::Error;

use aws_sdk_s3::config::interceptors::BeforeTransmitInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;

/// Takes each request from the SDK when it is signed.
#[derive(Debug)]
pub struct Caught;

/// A request on its way back to us.
pub struct Request {
    pub url: String,
    pub headers: Vec<(String, String)>,
}

impl Request {
    pub fn carried_by<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(request) = error.downcast_ref() {
                return Some(request);
            }
            cause = error.source();
        }
        None
    }
}

impl Error for Request {}

impl std::fmt::Display for Request {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("a signed request")
    }
}

impl std::fmt::Debug for Request {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Request(…)")
    }
}

impl Intercept for Caught {
    fn name(&self) -> &'static str {
        "weightlift sends it"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let request = context.request();
        // The host is that of the URL, and who we are is no part of the signature.
        let ours = |name: &str| matches!(name, "host" | "user-agent");
        let headers = request.headers().iter().filter(|(name, _)| !ours(name));
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Err(Box::new(Request { url: request.uri().to_owned(), headers }))
    }
}
