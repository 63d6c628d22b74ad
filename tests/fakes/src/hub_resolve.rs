//! From the name of a file to its bytes: answered here, or redirected.

use crate::http::{Request, Response};
use crate::hub_repos::File;
use crate::hub_routes::{Answer, Found, Refusal, State, Wanted, without_kind};
use crate::text::percent_encode;

impl State {
    /// `/{id}/resolve/{revision}/{path}`
    pub(crate) fn resolve(
        &self,
        request: &Request,
        id: &str,
        revision: &str,
        path: &[&str],
    ) -> Answer {
        if let Some(redirect) = self.new_location(request, id) {
            return Ok(redirect);
        }
        let found = self.find(request, id, revision, Wanted::Files)?;
        let path = path.join("/");
        let Some(file) = found.snapshot.files.get(&path) else {
            return Err(Refusal::entry_not_found().at_commit(&found.snapshot.commit));
        };
        let response = if file.lfs.is_some() && !self.mirror.lfs_direct {
            redirect(302, &self.storage_location(request, id, &path, file))
        } else if file.lfs.is_some() || is_served_directly(&found, file) {
            contents(request, file)
        } else {
            let location = cache_location(request, &found, &path, file);
            redirect(307, &format!("{}{location}", self.mirror.prefix))
        };
        let mut response = response.header("X-Repo-Commit", &found.snapshot.commit);
        if let Some(lfs) = &file.lfs {
            response = response
                .header("X-Linked-Size", &file.blob.len().to_string())
                .header("X-Linked-ETag", &format!("\"{}\"", lfs.sha256));
            if self.mirror.xet {
                let (kind, id) = without_kind(id);
                let auth = format!("/api/{kind}/{id}/xet-read-token/{}", found.snapshot.commit);
                response = response
                    .header("X-Xet-Hash", &lfs.xet_hash)
                    .header("Link", &format!("<{auth}>; rel=\"xet-auth\""));
            }
        }
        Ok(response)
    }

    /// Where the bytes of an LFS file are: at the CDN beside this hub, or at the caller's.
    fn storage_location(&self, request: &Request, id: &str, path: &str, file: &File) -> String {
        if self.mirror.external_cdn {
            return format!("{}/{id}/{}", self.cdn_url, percent_encode(path, "/"));
        }
        let target = self.cdn.mint(request, id, path, file.etag(), &file.blob);
        format!("{}{target}", self.cdn_url)
    }

    /// `/api/resolve-cache/models/{id}/{commit}/{path}`
    pub(crate) fn resolve_cache(&self, request: &Request, id: &str, rest: &[&str]) -> Answer {
        let (commit, path) = rest.split_first().ok_or_else(Refusal::entry_not_found)?;
        let found = self.find(request, id, commit, Wanted::Files)?;
        let file =
            found.snapshot.files.get(&path.join("/")).ok_or_else(Refusal::entry_not_found)?;
        Ok(contents(request, file).header("X-Repo-Commit", &found.snapshot.commit))
    }
}

/// Small files of these are not worth (or not fit for) a shared cache.
fn is_served_directly(found: &Found, file: &File) -> bool {
    let is_without_owner = !without_kind(&found.id).1.contains('/');
    found.repo.private || found.repo.gated || is_without_owner || file.blob.is_empty()
}

fn contents(request: &Request, file: &File) -> Response {
    let plain = Response::blob(request, &file.blob).header("Content-Type", "text/plain");
    plain.header("ETag", &format!("\"{}\"", file.etag()))
}

fn redirect(status: u16, location: &str) -> Response {
    Response::text(status, &format!("Redirecting to {location}")).header("Location", location)
}

/// Relative, pinned to the commit, with a query that has to be kept.
fn cache_location(request: &Request, found: &Found, path: &str, file: &File) -> String {
    let (kind, id) = without_kind(&found.id);
    format!(
        "/api/resolve-cache/{kind}/{id}/{}/{}?{}=&etag=%22{}%22",
        found.snapshot.commit,
        percent_encode(path, "/"),
        percent_encode(&request.path, ""),
        file.etag()
    )
}
