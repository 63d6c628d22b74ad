//! One bucket, as the AWS SDK sees it: credentials, region and small calls.
//!
//! The SDK never carries the bytes of a model and never tries twice.

use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use aws_config::imds;
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
use url::Url;

use super::caught::Caught;
use super::credentials::Chain;
use super::endpoint::{Endpoint, OnePlace};
use super::env::Environment;
use super::errors::Refusal;
use super::failures::Failed;
use super::payer::RequesterPays;
use super::profile::Files;
use super::settings::{self, S3Settings};
use super::transport::Transport;
use super::ways::Ways;
use crate::model::S3Location;
use crate::net::http::Http;
use crate::net::http::PLAIN_URL;
use crate::net::{BadSetting, SourceError};

/// Where every bucket can be asked for, and what servers that know no regions expect.
const DEFAULT_REGION: &str = "us-east-1";
/// Longest that one call may take, whatever arrives in the meantime; a pause that the host asked
/// for is part of it.
const CALL_TIMEOUT: Duration = Duration::from_secs(600);
/// Credentials younger than this that are refused as expired are not asked for again.
const RENEW_AFTER: Duration = Duration::from_secs(30);
/// The metadata service answers at once, or is not there.
const IMDS_TIMEOUT: Duration = Duration::from_secs(1);

/// A bucket and how to ask for it.
pub struct Bucket {
    /// Or the ARN of an access point.
    pub name: String,
    pub http: Http,
    /// What is known about the store beside what all of them do.
    pub ways: Ways,
    settings: S3Settings,
    environment: Environment,
    is_anonymous: bool,
    transport: Transport,
    /// The server knows only the older of the two ways to list.
    pub lists_v1: AtomicBool,
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
    /// Refuses at once what flags and variables say that can never work.
    pub fn new(name: String, settings: S3Settings, http: Http) -> Result<Self, SourceError> {
        let environment = Environment::read();
        let is_anonymous = settings.is_anonymous(&environment)?;
        environment.check(is_anonymous)?;
        if let Some(endpoint) = settings.endpoint(&environment)? {
            endpoint.of_bucket(&name, settings.path_style(&environment)?)?;
        }
        Ok(Self {
            name,
            http: http.clone(),
            ways: Ways::default(),
            settings,
            environment,
            is_anonymous,
            transport: Transport::new(http)?,
            lists_v1: AtomicBool::new(false),
            connection: Mutex::default(),
        })
    }

    /// What the user has set and what does nothing, each a line.
    pub fn warnings(&self) -> Vec<String> {
        let endpoint = self.settings.endpoint(&self.environment).ok().flatten();
        settings::warnings(&self.environment, endpoint.as_ref())
    }

    /// Makes a call of the SDK, and once more where a refusal says what to do better.
    pub async fn try_call<T, E, F, Answer>(&self, send: F) -> Result<T, Failed>
    where
        F: Fn(&Client) -> Answer,
        Answer: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
        E: ProvideErrorMetadata + Error + 'static,
    {
        let mut amendments = 0;
        loop {
            let connection = self.connection().await.map_err(Failed::Otherwise)?;
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
                Box::pin(self.connect(Some(region), true)).await.is_ok_and(|made| {
                    *connection = Some(Arc::new(made));
                    true
                })
            }
            Some(_) => false,
            None if refused.made.elapsed() < RENEW_AFTER => false,
            None => {
                let region = Some(refused.region.clone());
                Box::pin(self.connect(region, refused.redirected)).await.is_ok_and(|made| {
                    *connection = Some(Arc::new(made));
                    true
                })
            }
        }
    }

    /// For what is asked beside the reads of the workers.
    pub fn client(&self) -> Result<reqwest::Client, SourceError> {
        self.transport.client()
    }

    pub async fn connection(&self) -> Result<Arc<Connection>, SourceError> {
        let mut connection = self.connection.lock().await;
        if let Some(connection) = connection.as_ref() {
            return Ok(Arc::clone(connection));
        }
        let made = Arc::new(Box::pin(self.connect(None, false)).await?);
        *connection = Some(Arc::clone(&made));
        Ok(made)
    }

    async fn connect(
        &self,
        region: Option<String>,
        redirected: bool,
    ) -> Result<Connection, SourceError> {
        let files = Files::read(&self.environment, &[]).await;
        let endpoint = self.settings.any_endpoint(&self.environment, &files)?;
        if let Some(endpoint) = &endpoint {
            settings::check_variants(&self.environment, &files, endpoint)?;
        }
        let timeouts = TimeoutConfig::builder().operation_timeout(CALL_TIMEOUT).build();
        let http = SharedHttpClient::new(self.transport.clone());
        let imds = self.metadata_service(&http, &timeouts)?;
        let region = match region {
            Some(region) => region,
            None => self.find_region(&files, endpoint.as_ref(), imds.clone()).await?,
        };
        // What names an endpoint has been read, and cleaned.
        let env = settings::without_endpoints(&self.environment);
        let loader = aws_config::defaults(BehaviorVersion::latest())
            .env(env)
            .fs(files.fs.clone())
            .http_client(http.clone())
            .region(Region::new(region.clone()))
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts.clone())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            // Otherwise every signed GET asks for checksums, which S3 has for no range.
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired);
        let loader = if self.is_anonymous {
            loader.no_credentials()
        } else {
            loader.credentials_provider(self.chain_of(&region, http, timeouts, imds))
        };
        let mut config = aws_sdk_s3::config::Builder::from(&loader.load().await);
        config.set_endpoint_url(None);
        if self.settings.requester_pays {
            config.push_interceptor(SharedInterceptor::new(RequesterPays));
        }
        self.place(&mut config, endpoint.as_ref(), &region)?;
        let config = config.build();
        let signer = config.to_builder().interceptor(Caught).build();
        Ok(Connection {
            client: Client::from_conf(config),
            signer: Client::from_conf(signer),
            region,
            redirected,
            made: Instant::now(),
        })
    }

    /// Finds the credentials for requests to `region`; none where nothing is signed.
    pub fn chain(&self, region: &str) -> Result<Option<Chain>, SourceError> {
        if self.is_anonymous {
            return Ok(None);
        }
        let timeouts = TimeoutConfig::builder().operation_timeout(CALL_TIMEOUT).build();
        let http = SharedHttpClient::new(self.transport.clone());
        let imds = self.metadata_service(&http, &timeouts)?;
        Ok(Some(self.chain_of(region, http, timeouts, imds)))
    }

    fn chain_of(
        &self,
        region: &str,
        http: SharedHttpClient,
        timeouts: TimeoutConfig,
        imds: Option<imds::Client>,
    ) -> Chain {
        let provider = imds::credentials::ImdsCredentialsProvider::builder();
        Chain {
            environment: self.environment.clone(),
            http,
            region: Region::new(region.to_owned()),
            timeouts,
            metadata: imds.map(|imds| provider.imds_client(imds).build()),
        }
    }

    /// Where requests about the bucket go.
    fn place(
        &self,
        config: &mut aws_sdk_s3::config::Builder,
        endpoint: Option<&Endpoint>,
        region: &str,
    ) -> Result<(), SourceError> {
        let path_style = self.settings.path_style(&self.environment)?;
        match endpoint {
            // The rules of the SDK make the host of an access point.
            Some(endpoint) if S3Location::is_arn(&self.name) => {
                config.set_endpoint_url(Some(endpoint.as_str().to_owned()));
            }
            Some(endpoint) => {
                let place = OnePlace::new(endpoint.of_bucket(&self.name, path_style)?, region);
                let resolver =
                    aws_sdk_s3::config::endpoint::ResolveEndpoint::into_shared_resolver(place);
                config.set_endpoint_resolver(Some(resolver));
            }
            None => {
                config.set_force_path_style(path_style);
                let accelerates = settings::accelerates(&self.environment);
                config.set_accelerate(accelerates.then_some(true));
            }
        }
        Ok(())
    }

    /// The metadata service of the node, if it may be asked.
    fn metadata_service(
        &self,
        http: &SharedHttpClient,
        timeouts: &TimeoutConfig,
    ) -> Result<Option<imds::Client>, SourceError> {
        let disabled = self.environment.get("AWS_EC2_METADATA_DISABLED");
        if disabled.is_some_and(|text| text.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        let providers = ProviderConfig::without_region()
            .with_behavior_version(Some(BehaviorVersion::latest()))
            .with_http_client(http.clone())
            .with_retry_config(RetryConfig::standard())
            .with_timeout_config(timeouts.clone());
        let client = imds::Client::builder()
            .configure(&providers)
            .connect_timeout(IMDS_TIMEOUT)
            .read_timeout(IMDS_TIMEOUT)
            .max_attempts(2);
        let is_v6 = self.environment.get("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE");
        let usual = match is_v6.is_some_and(|mode| mode.eq_ignore_ascii_case("ipv6")) {
            true => "http://[fd00:ec2::254]",
            false => "http://169.254.169.254",
        };
        const NAMED: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT";
        let named = self.environment.get(NAMED).unwrap_or(usual);
        if !Url::parse(named).is_ok_and(|url| url.has_host()) {
            return Err(SourceError::Settings(
                BadSetting::new(NAMED, "is not a URL").hint(PLAIN_URL).into(),
            ));
        }
        // Told in any case: the client would otherwise look into the process's environment.
        let client = client.endpoint(named).map_err(|_| {
            SourceError::Settings(BadSetting::new(NAMED, "is not a URL").hint(PLAIN_URL).into())
        })?;
        Ok(Some(client.build()))
    }

    /// The region of the access point, of the environment, the profile or the node.
    async fn find_region(
        &self,
        files: &Files,
        endpoint: Option<&Endpoint>,
        imds: Option<imds::Client>,
    ) -> Result<String, SourceError> {
        if let Some(region) = S3Location::region_of(&self.name) {
            return Ok(region.to_owned());
        }
        if let Some((region, named)) = settings::region(&self.environment, files)? {
            settings::check_region(&region, &named, endpoint.is_some())?;
            return Ok(region);
        }
        // The node's region says nothing about somebody else's server, and waiting for a metadata
        // service that is not there takes a second.
        let node = imds.filter(|_| endpoint.is_none() && !self.is_anonymous);
        let of_node = match node {
            Some(imds) => {
                let node = imds::region::ImdsRegionProvider::builder().imds_client(imds).build();
                node.region().await.map(|region| region.to_string())
            }
            None => None,
        };
        let usable = |region: &String| {
            settings::check_region(region, "the region of the node", false).is_ok()
        };
        Ok(of_node.filter(usable).unwrap_or_else(|| DEFAULT_REGION.into()))
    }
}
