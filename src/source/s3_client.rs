//! One bucket, as the AWS SDK sees it: credentials, region and small calls.
//!
//! The SDK never carries the bytes of a model and never tries twice.

use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::imds;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{
    RequestChecksumCalculation, ResponseChecksumValidation, SharedInterceptor,
};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use tokio::sync::Mutex;

use super::SourceError;
use super::credentials::text_of;
use super::http::{self, Http};
use super::s3_errors::{Asked, Refusal};
use super::s3_failures::Failed;
use super::s3_payer::RequesterPays;
use super::s3_sign::Caught;
use super::s3_transport::Transport;
use super::s3_ways::Ways;

/// Where every bucket can be asked for, and what servers that know no regions expect.
const DEFAULT_REGION: &str = "us-east-1";
/// Longest that one call may take, whatever arrives in the meantime; a pause that the host asked
/// for is part of it.
const CALL_TIMEOUT: Duration = Duration::from_secs(600);
/// Credentials younger than this that are refused as expired are not asked for again.
const RENEW_AFTER: Duration = Duration::from_secs(30);
/// The metadata service answers at once, or is not there.
const IMDS_TIMEOUT: Duration = Duration::from_secs(1);

/// How S3 is reached and who asks.
#[derive(Clone, Debug, Default)]
pub struct S3Settings {
    /// `--s3-endpoint`; without it `AWS_ENDPOINT_URL_S3` and `AWS_ENDPOINT_URL` apply.
    pub endpoint: Option<String>,
    pub path_style: bool,
    pub anonymous: bool,
    /// Whoever asks pays for it, and says so in every request.
    pub requester_pays: bool,
}

/// A bucket and how to ask for it.
pub struct Bucket {
    pub name: String,
    pub http: Http,
    /// What is known about the store beside what all of them do.
    pub ways: Ways,
    settings: S3Settings,
    transport: Transport,
    /// Made by the first call: finding a region and credentials needs the network.
    connection: Mutex<Option<Arc<Connection>>>,
}

/// A client for one region with its own cache of credentials.
pub struct Connection {
    client: Client,
    /// The same, but that it signs and does not send.
    pub signer: Client,
    pub region: String,
    /// The region came from the bucket itself.
    redirected: bool,
    made: Instant,
}

impl Bucket {
    pub fn new(name: String, settings: S3Settings, http: Http) -> Result<Self, SourceError> {
        match &settings.endpoint {
            Some(endpoint) => drop(http::endpoint(endpoint, "--s3-endpoint")?),
            // The SDK reads these itself, and would repeat a bad one whole in its error.
            None => {
                ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"].into_iter().try_for_each(|name| {
                    text_of(name)
                        .map_or(Ok(()), |endpoint| http::endpoint(&endpoint, name).map(drop))
                })?
            }
        }
        let transport = Transport::new(http.clone())?;
        let (ways, connection) = (Ways::default(), Mutex::default());
        Ok(Self { name, http, ways, settings, transport, connection })
    }

    /// Makes a call of the SDK, and once more where a refusal says what to do better.
    pub async fn call<T, E, F, Answer>(&self, asked: Asked<'_>, send: F) -> Result<T, SourceError>
    where
        F: Fn(&Client) -> Answer,
        Answer: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
        E: ProvideErrorMetadata + Error + 'static,
    {
        self.try_call(send).await.map_err(|failed| failed.explain(&self.name, asked))
    }

    /// As [`call`](Self::call), for a caller who makes something of a refusal.
    pub async fn try_call<T, E, F, Answer>(&self, send: F) -> Result<T, Failed>
    where
        F: Fn(&Client) -> Answer,
        Answer: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
        E: ProvideErrorMetadata + Error + 'static,
    {
        let mut amendments = 0;
        loop {
            let connection = self.connection().await;
            let failed = match send(&connection.client).await {
                Ok(answer) => return Ok(answer),
                Err(error) => Failed::of(&error),
            };
            match failed {
                Failed::Refused(refusal)
                    if amendments < 2 && self.amend(&connection, &refusal).await =>
                {
                    amendments += 1;
                }
                failed => return Err(failed),
            }
        }
    }

    /// Puts right what `refusal` says is wrong with the region or the age of the credentials;
    /// whether that was possible, and the same request is worth sending again.
    pub async fn amend(&self, refused: &Arc<Connection>, refusal: &Refusal) -> bool {
        let region = refusal.region_instead_of(&refused.region).map(str::to_owned);
        if region.is_none() && !refusal.is_expired() {
            return false;
        }
        let mut connection = self.connection.lock().await;
        let current = connection.as_ref().is_some_and(|current| Arc::ptr_eq(current, refused));
        if !current {
            // Somebody else was refused too, and has dealt with it.
            return true;
        }
        match region {
            // The host that answered is the one that was asked: no redirect is ever followed.
            Some(region) if !refused.redirected => {
                *connection = Some(Arc::new(self.connect(Some(region), true).await));
                true
            }
            Some(_) => false,
            None if refused.made.elapsed() < RENEW_AFTER => false,
            None => {
                let region = Some(refused.region.clone());
                *connection = Some(Arc::new(self.connect(region, refused.redirected).await));
                true
            }
        }
    }

    /// For what is asked beside the reads of the workers.
    pub fn client(&self) -> Result<reqwest::Client, SourceError> {
        self.transport.client()
    }

    pub async fn connection(&self) -> Arc<Connection> {
        let mut connection = self.connection.lock().await;
        if let Some(connection) = connection.as_ref() {
            return Arc::clone(connection);
        }
        let made = Arc::new(self.connect(None, false).await);
        *connection = Some(Arc::clone(&made));
        made
    }

    async fn connect(&self, region: Option<String>, redirected: bool) -> Connection {
        let retries = RetryConfig::disabled();
        let timeouts = TimeoutConfig::builder().operation_timeout(CALL_TIMEOUT).build();
        let http = SharedHttpClient::new(self.transport.clone());
        let providers = ProviderConfig::without_region()
            .with_behavior_version(Some(BehaviorVersion::latest()))
            .with_http_client(http.clone())
            // A token that is missing for a moment would end the run; so these may try again.
            .with_retry_config(RetryConfig::standard())
            .with_timeout_config(timeouts.clone());
        let imds = imds::Client::builder()
            .configure(&providers)
            .connect_timeout(IMDS_TIMEOUT)
            .read_timeout(IMDS_TIMEOUT)
            .max_attempts(2)
            .build();
        let region = match region {
            Some(region) => Region::new(region),
            None => self.find_region(&imds).await,
        };

        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http)
            .region(region.clone())
            .retry_config(retries)
            .timeout_config(timeouts)
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            // Otherwise every signed GET asks for checksums, which S3 has for no range.
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired);
        loader = if self.settings.anonymous {
            loader.no_credentials()
        } else {
            let chain = DefaultCredentialsChain::builder()
                .configure(providers)
                .imds_client(imds)
                .region(region.clone());
            loader.credentials_provider(chain.build().await)
        };
        let shared = loader.load().await;
        let mut config = aws_sdk_s3::config::Builder::from(&shared);
        if let Some(endpoint) = &self.settings.endpoint {
            config.set_endpoint_url(Some(endpoint.clone()));
        }
        if self.settings.path_style {
            config.set_force_path_style(Some(true));
        }
        if self.settings.requester_pays {
            config.push_interceptor(SharedInterceptor::new(RequesterPays));
        }
        let config = config.build();
        let signer = config.to_builder().interceptor(Caught).build();
        Connection {
            client: Client::from_conf(config),
            signer: Client::from_conf(signer),
            region: region.to_string(),
            redirected,
            made: Instant::now(),
        }
    }

    /// The region of the environment, the profile or the node.
    async fn find_region(&self, imds: &imds::Client) -> Region {
        let mut chain = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
            .or_else(ProfileFileRegionProvider::new());
        // The node's region says nothing about somebody else's server, and waiting for a metadata
        // service that is not there takes a second.
        if !self.has_endpoint() && !self.settings.anonymous {
            let node = imds::region::ImdsRegionProvider::builder().imds_client(imds.clone());
            chain = chain.or_else(node.build());
        }
        chain
            .or_else(Region::from_static(DEFAULT_REGION))
            .region()
            .await
            .unwrap_or_else(|| Region::from_static(DEFAULT_REGION))
    }

    fn has_endpoint(&self) -> bool {
        self.settings.endpoint.is_some()
            || ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]
                .iter()
                .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
    }
}
