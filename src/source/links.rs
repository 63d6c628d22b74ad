//! Links to the storage behind a Hub or a registry: one per file, used for all ranges of the file until
//! the storage refuses it.
//!
//! Imports `model` and `net`; knows no source.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use url::Url;

use crate::model::RelPath;
use crate::net::http;

/// How the bytes of a file are reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// Through the Hub or the registry, which redirects or answers itself.
    Resolve,
    /// By a signed link. Secret: its query is a credential.
    Link(Url),
}

#[derive(Debug, Default)]
pub struct Links(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    routes: HashMap<RelPath, Known>,
    /// Hosts whose links serve only the range that they were made for.
    one_range_each: HashSet<String>,
    /// Files whose fresh links were refused, and how often in a row.
    strikes: HashMap<RelPath, u32>,
}

#[derive(Debug)]
struct Known {
    route: Route,
    worked: bool,
}

/// Refusals in a row, through the Hub and range by range, after which there is no access. One can
/// be a link that expired between the redirect and the request.
const MAX_STRIKES: u32 = 4;

impl Links {
    /// The known route to a file.
    pub fn route(&self, path: &RelPath) -> Option<Route> {
        self.state().routes.get(path).map(|known| known.route.clone())
    }

    /// Keeps a fresh link, unless its host signs ranges one by one; returns the route to take.
    pub fn minted(&self, path: &RelPath, url: Url) -> Route {
        let one_range_each = self.state().one_range_each.contains(&http::origin(&url));
        self.keep(path, if one_range_each { Route::Resolve } else { Route::Link(url) })
    }

    /// Keeps `route` for all ranges of the file.
    pub fn keep(&self, path: &RelPath, route: Route) -> Route {
        let known = Known { route: route.clone(), worked: false };
        self.state().routes.insert(path.clone(), known);
        route
    }

    /// The storage answered with bytes.
    pub fn worked(&self, path: &RelPath) {
        let mut state = self.state();
        state.strikes.remove(path);
        if let Some(known) = state.routes.get_mut(path) {
            known.worked = true;
        }
    }

    pub fn forget(&self, path: &RelPath) {
        self.state().routes.remove(path);
    }

    /// The storage at `origin` refused `link`, or, without one, what it had just been redirected
    /// to. Returns whether another way is left to try.
    ///
    /// A link that had worked has expired: a new one is made. A fresh link that is refused is made
    /// anew once, then the host is taken to sign each range, and then there is no access.
    pub fn refused(&self, path: &RelPath, origin: &str, link: Option<&Url>) -> bool {
        let mut state = self.state();
        if let Some(link) = link {
            match state.routes.get(path) {
                Some(known) if known.route == Route::Link(link.clone()) => {
                    let had_worked = known.worked;
                    state.routes.remove(path);
                    if had_worked {
                        return true;
                    }
                }
                // Others have noticed before us, and there is a newer one already.
                _ => return true,
            }
        }
        let strikes = state.strikes.entry(path.clone()).or_default();
        *strikes += 1;
        let strikes = *strikes;
        if link.is_some() && strikes >= 2 {
            state.one_range_each.insert(origin.to_owned());
        }
        strikes < MAX_STRIKES
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CDN: &str = "https://cdn.example";

    fn setup() -> (Links, RelPath) {
        (Links::default(), RelPath::parse("model.safetensors").expect("path"))
    }

    fn url(n: u32) -> Url {
        Url::parse(&format!("{CDN}/x?Signature={n}")).expect("url")
    }

    #[test]
    fn an_expired_link_is_made_anew_as_often_as_it_expires() {
        let (links, path) = setup();
        for n in 0..10 {
            assert_eq!(links.minted(&path, url(n)), Route::Link(url(n)));
            links.worked(&path);
            // All workers that had it are refused; the first one to come makes a new one.
            assert!(links.refused(&path, CDN, Some(&url(n))));
            assert_eq!(links.route(&path), None);
            links.minted(&path, url(n + 100));
            for _ in 0..8 {
                assert!(links.refused(&path, CDN, Some(&url(n))));
            }
            assert_eq!(links.route(&path), Some(Route::Link(url(n + 100))));
            links.forget(&path);
        }
    }

    #[test]
    fn a_host_that_refuses_two_fresh_links_is_asked_range_by_range_from_then_on() {
        let (links, path) = setup();
        for n in 0..2 {
            links.minted(&path, url(n));
            assert!(links.refused(&path, CDN, Some(&url(n))));
        }
        assert_eq!(links.minted(&path, url(2)), Route::Resolve);
        assert_eq!(links.route(&path), Some(Route::Resolve));
        // Refusals that come one by one, with success between them, are no reason to end.
        for _ in 0..10 {
            links.worked(&path);
            assert!(links.refused(&path, CDN, None));
        }
    }

    #[test]
    fn a_host_that_refuses_everything_ends_the_tries() {
        let (links, path) = setup();
        let mut tries = 0;
        let mut by_range = false;
        loop {
            let route = links.minted(&path, url(tries));
            by_range |= route == Route::Resolve;
            tries += 1;
            let link = url(tries - 1);
            if !links.refused(&path, CDN, (route != Route::Resolve).then_some(&link)) {
                break;
            }
            assert!(tries < 10);
        }
        assert!(by_range && tries == 4, "{tries}");
    }
}
