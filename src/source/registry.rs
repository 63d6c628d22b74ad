//! Which source serves which scheme: the one place that knows them all.

use std::sync::Arc;
use std::time::Duration;

use super::listed::Listed;
use super::mirrors::{Mirrors, Place};
use super::peers::WithPeers;
use super::{Hub, ModelScope, Oci, Published, S3, S3Settings, Web, Xet, XetMode, az, gs, hub};
use crate::content::Source;
use crate::model::{Locked, RemoteFile, Selection, SourceUri};
use crate::net::SourceError;
use crate::net::http::Http;

/// What the flags say about sources. Each takes its part; what only variables and files say, a source
/// finds itself.
#[derive(Clone, Debug, Default)]
pub struct SourceSettings {
    /// What will be fetched: nothing else needs to be known of a source.
    pub selection: Selection,
    pub s3: S3Settings,
    /// Which way to the bytes of a Hub; none: what `HF_HUB_DISABLE_XET` says.
    pub xet: Option<XetMode>,
    /// It is one of several places, beside the one that lists.
    pub is_place: bool,
    /// How long the listing of one of several places may take.
    pub patience: Duration,
}

/// The source of `uri`, one line for each kind. Nothing is asked yet; settings that cannot work are an
/// error.
pub fn open(
    uri: &SourceUri,
    settings: &SourceSettings,
    http: &Http,
) -> Result<Box<dyn Source>, SourceError> {
    Ok(match uri {
        SourceUri::Hub(repo) => two_ways(uri, hub::open(repo, http)?, settings),
        SourceUri::S3(location) => {
            Box::new(S3::open(location, &settings.s3, &settings.selection, http)?)
        }
        SourceUri::ModelScope(repo) => Box::new(ModelScope::open(repo, http)?),
        SourceUri::Web(location) => Box::new(Web::open(location, &settings.selection, http)?),
        SourceUri::Oci(artifact) => Box::new(Oci::open(artifact, settings.is_place, http)?),
        SourceUri::Gs(location) => Box::new(gs::open(location, &settings.selection, http)?),
        SourceUri::Az(location) => Box::new(az::open(location, &settings.selection, http)?),
        SourceUri::Directory(path) => Box::new(Published::new(path)),
    })
}

/// The source of `uri`, whose bytes are read from `also` where they can be.
pub fn open_with(
    uri: &SourceUri,
    also: &[SourceUri],
    settings: &SourceSettings,
    http: &Http,
) -> Result<Box<dyn Source>, SourceError> {
    let source = read_from_also(uri, open(uri, settings, http)?, also, settings, http)?;
    Ok(with_peers(source, http))
}

/// The same where a lock file says what `uri` holds: it is not asked for that.
pub fn open_locked(
    uri: &SourceUri,
    locked: &Locked,
    also: &[SourceUri],
    settings: &SourceSettings,
    http: &Http,
) -> Result<Box<dyn Source>, SourceError> {
    let source: Result<Box<dyn Source>, _> = match (offline_by(uri), uri) {
        (Some(variable), _) => Err(variable),
        (None, SourceUri::Hub(repo)) => {
            Ok(two_ways(uri, hub::open_at(repo, locked, http)?, settings))
        }
        (None, SourceUri::S3(location)) => {
            Ok(Box::new(S3::open_at(location, &settings.s3, locked, http)?))
        }
        (None, SourceUri::ModelScope(repo)) => Ok(Box::new(ModelScope::open(repo, http)?)),
        (None, SourceUri::Web(location)) => {
            Ok(Box::new(Web::open(location, &settings.selection, http)?))
        }
        (None, SourceUri::Oci(artifact)) => Ok(Box::new(Oci::open_at(artifact, locked, http)?)),
        (None, SourceUri::Gs(location)) => Ok(Box::new(gs::open_at(location, locked, http)?)),
        (None, SourceUri::Az(location)) => Ok(Box::new(az::open_at(location, locked, http)?)),
        (None, SourceUri::Directory(path)) => Ok(Box::new(Published::new(path))),
    };
    let listed = Listed { source, snapshot: locked.snapshot() };
    let source = read_from_also(uri, Box::new(listed), also, settings, http)?;
    Ok(with_peers(source, http))
}

fn with_peers(source: Box<dyn Source>, http: &Http) -> Box<dyn Source> {
    match &http.p2p {
        Some(p2p) => Box::new(WithPeers { source, p2p: p2p.clone() }),
        None => source,
    }
}

/// The bridge of a Hub and its chunk store.
fn two_ways(uri: &SourceUri, hub: Hub, settings: &SourceSettings) -> Box<dyn Source> {
    let is_first = match settings.xet.unwrap_or_else(hub::xet_mode) {
        XetMode::Never => return Box::new(hub),
        XetMode::Auto => false,
        XetMode::Always => true,
    };
    let hub = Arc::new(hub);
    let bridge = Place { name: uri.to_string(), source: hub.clone() };
    let xet = Place { name: "Xet".into(), source: Arc::new(Xet::new(hub)) };
    let has_both = |file: &RemoteFile| file.xet_hash.is_some() && file.size > 0;
    let (ways, bridge) = if is_first { ([xet, bridge], 1) } else { ([bridge, xet], 0) };
    Box::new(Mirrors::two_ways(ways, bridge, has_both))
}

fn read_from_also(
    uri: &SourceUri,
    source: Box<dyn Source>,
    also: &[SourceUri],
    settings: &SourceSettings,
    http: &Http,
) -> Result<Box<dyn Source>, SourceError> {
    if also.is_empty() {
        return Ok(source);
    }
    let place = |uri: &SourceUri, source: Box<dyn Source>| Place {
        name: uri.to_string(),
        source: source.into(),
    };
    // The same content may have another path there, which no pattern of the user's is about.
    let anything =
        SourceSettings { selection: Selection::default(), is_place: true, ..settings.clone() };
    let open_place = |uri| open(uri, &anything, http).map(|source| place(uri, source));
    let also = also.iter().map(open_place).collect::<Result<Vec<Place>, SourceError>>()?;
    Ok(Box::new(Mirrors::new(also, place(uri, source), settings.patience)))
}

/// The variable that forbids to ask the source of `uri`, if one does.
pub fn offline_by(uri: &SourceUri) -> Option<&'static str> {
    match uri {
        SourceUri::Hub(_) => hub::offline_by(),
        _ => None,
    }
}
