//! Finds out how the hosts are reached that sources have asked: DNS, proxy, certificate, clock.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use reqwest::Method;
use reqwest::header::HeaderMap;
use url::Url;

use super::asking::{TIME_FOR_A_QUESTION, Teller};
use super::verdict::network::{Host, clock, judge, roots};
use super::verdict::{Failure, Question};
use crate::error::{Class, Error};
use crate::net::http::{self, Deadlines, Http};
use crate::net::{Exchange, Roots, SourceError, Witness, addresses_of};

/// Two of these steps and the last word fit into the time for one question.
const STEP: Duration = Duration::from_secs(4);
/// Until the thread is given up, whose questions have had their time.
const SLACK: Duration = Duration::from_secs(2);

/// The client of all questions, if what it is told can work.
pub fn set_up(teller: &Teller, witness: &Witness) -> Option<Http> {
    let question = Question::of_network("certificates", None);
    teller.asks(question.clone());
    match Roots::from_environment() {
        Ok(found) => teller.tell(roots(found.built_in, &found.named)),
        Err(error) => {
            teller.tell(question.failed(failure(error)));
            return None;
        }
    }
    let second = Duration::from_secs(1);
    let deadlines = Deadlines { connect: STEP, first_byte: 8 * second, stall: 8 * second };
    match Http::new(deadlines) {
        Ok(http) => Some(http.telling(Some(witness.told()))),
        Err(error) => {
            teller.tell(Question::of_network("proxy", None).failed(failure(error)));
            None
        }
    }
}

/// Checks each host that was asked, and the clock by all answers.
pub async fn check(teller: &Teller, http: &Http, witness: &Witness, mut seen: Vec<Exchange>) {
    let asked: BTreeSet<String> = seen.iter().map(|exchange| exchange.origin.clone()).collect();
    for origin in asked {
        let Ok(url) = Url::parse(&origin) else { continue };
        // A service of the node, asked for credentials: no host of the network.
        if http::is_link_local(&url) {
            continue;
        }
        teller.asks_for(Question::of_network("dns", Some(&origin)), TIME_FOR_A_QUESTION + SLACK);
        let host = look(origin, &url, http).await;
        seen.append(&mut witness.take());
        judge(&host).into_iter().for_each(|check| teller.tell(check));
    }
    clock(&clocks(&seen)).into_iter().for_each(|check| teller.tell(check));
}

async fn look(origin: String, url: &Url, http: &Http) -> Host {
    let proxy = http.proxy_for(url);
    let looked_up = proxy.as_ref().unwrap_or(url).host_str().unwrap_or_default();
    let looked_up = looked_up.trim_matches(['[', ']']).to_owned();
    let addresses = match looked_up.parse::<IpAddr>() {
        Ok(address) => Ok(vec![address.to_string()]),
        Err(_) => look_up(&looked_up).await,
    };
    let started = Instant::now();
    let asking = ask(url, http);
    let answer = match tokio::time::timeout(2 * STEP, asking).await {
        Ok(answer) => answer.map(|status| (status, started.elapsed())).map_err(failure),
        Err(_) => Err(failure(http::no_answer(origin.clone(), 2 * STEP))),
    };
    Host { origin, proxy: proxy.as_ref().map(http::origin), looked_up, addresses, answer }
}

async fn look_up(host: &str) -> Result<Vec<String>, Failure> {
    let found = match tokio::time::timeout(STEP, addresses_of(host)).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => return Err(unreachable(error.to_string())),
        Err(_) => return Err(unreachable("the name server does not answer".into())),
    };
    let mut shown: Vec<String> = found.iter().map(IpAddr::to_string).collect();
    shown.dedup();
    Ok(shown)
}

fn unreachable(what: String) -> Failure {
    Failure { class: Class::Unreachable, what, hint: None }
}

/// The status of whatever answer comes to a question about nothing.
async fn ask(url: &Url, http: &Http) -> Result<u16, SourceError> {
    let client = http.client()?;
    match http.send(&client, Method::HEAD, url, HeaderMap::new()).await {
        Ok(response) => Ok(response.status().as_u16()),
        // It answers.
        Err(SourceError::RateLimited { .. }) => Ok(429),
        Err(error) => Err(error),
    }
}

/// What the clocks of hosts have shown, and ours at that time.
fn clocks(seen: &[Exchange]) -> Vec<(String, SystemTime, SystemTime)> {
    let clocks = |exchange: &Exchange| {
        // A service of the node has the node's clock.
        let is_of_node = Url::parse(&exchange.origin).is_ok_and(|url| http::is_link_local(&url));
        let (theirs, ours) = exchange.answer.as_ref().ok().filter(|_| !is_of_node)?.clocks?;
        Some((exchange.origin.clone(), theirs, ours))
    };
    seen.iter().filter_map(clocks).collect()
}

fn failure(error: SourceError) -> Failure {
    Failure::of(&Error::from(error))
}
