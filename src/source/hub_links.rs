//! Links to the storage behind the Hub: one per file, made without a range, used for all ranges of
//! the file until the storage refuses it.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use url::Url;

use super::http;
use crate::model::RelPath;

/// How the bytes of a file are reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// Through the Hub, which redirects or answers itself.
    Resolve,
    /// By a signed link. Secret: its query is a credential.
    Link(Url),
}

#[derive(Debug, Default)]
pub struct Links(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    links: HashMap<RelPath, Link>,
    /// Hosts whose links serve only the range that they were made for.
    one_range_each: HashSet<String>,
    /// Files whose fresh links were refused, and how often in a row.
    strikes: HashMap<RelPath, u32>,
}

#[derive(Debug)]
struct Link {
    url: Url,
    worked: bool,
}

impl Links {
    /// The known route to a file.
    pub fn route(&self, path: &RelPath) -> Option<Route> {
        self.state()
            .links
            .get(path)
            .map(|link| Route::Link(link.url.clone()))
    }

    /// Keeps a fresh link, unless its host signs ranges one by one.
    pub fn minted(&self, path: &RelPath, url: Url) -> Route {
        let mut state = self.state();
        if state.one_range_each.contains(&http::origin(&url)) {
            return Route::Resolve;
        }
        state.links.insert(
            path.clone(),
            Link {
                url: url.clone(),
                worked: false,
            },
        );
        Route::Link(url)
    }

    /// The storage answered with bytes.
    pub fn worked(&self, path: &RelPath) {
        let mut state = self.state();
        state.strikes.remove(path);
        if let Some(link) = state.links.get_mut(path) {
            link.worked = true;
        }
    }

    pub fn forget(&self, path: &RelPath) {
        self.state().links.remove(path);
    }

    /// The storage refused a link. Returns whether another way is left to try.
    ///
    /// A link that had worked has expired: a new one is made. A fresh link that is refused is made
    /// anew once, then the host is taken to sign each range, and then there is no access.
    pub fn refused(&self, path: &RelPath, origin: &str, minted_for_this_range: bool) -> bool {
        let mut state = self.state();
        let had_worked = state.links.remove(path).is_some_and(|link| link.worked);
        if had_worked {
            return true;
        }
        let strikes = state.strikes.entry(path.clone()).or_default();
        *strikes += 1;
        let strikes = *strikes;
        if minted_for_this_range {
            // One more try: a link can expire between the redirect and the request.
            return strikes <= 1 || (strikes == 3 && state.one_range_each.contains(origin));
        }
        if strikes >= 2 {
            state.one_range_each.insert(origin.to_owned());
        }
        true
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup() -> (Links, RelPath, Url) {
        let url = Url::parse("https://cdn.example/x?Signature=s").expect("url");
        (
            Links::default(),
            RelPath::parse("model.safetensors").expect("path"),
            url,
        )
    }

    #[test]
    fn an_expired_link_is_made_anew_as_often_as_it_expires() {
        let (links, path, url) = setup();
        for _ in 0..10 {
            assert_eq!(links.minted(&path, url.clone()), Route::Link(url.clone()));
            links.worked(&path);
            assert!(links.refused(&path, "https://cdn.example", false));
            assert_eq!(links.route(&path), None);
        }
    }

    #[test]
    fn a_host_that_refuses_two_fresh_links_is_asked_range_by_range() {
        let (links, path, url) = setup();
        links.minted(&path, url.clone());
        assert!(links.refused(&path, "https://cdn.example", false));
        links.minted(&path, url.clone());
        assert!(links.refused(&path, "https://cdn.example", false));
        assert_eq!(links.minted(&path, url), Route::Resolve);
    }

    #[test]
    fn a_host_that_refuses_everything_ends_the_tries() {
        let (links, path, url) = setup();
        let mut tries = 0;
        let mut by_range = false;
        loop {
            by_range |= links.minted(&path, url.clone()) == Route::Resolve;
            tries += 1;
            if !links.refused(&path, "https://cdn.example", by_range) {
                break;
            }
            assert!(tries < 10);
        }
        assert!(by_range && tries <= 4, "{tries}");
    }
}
