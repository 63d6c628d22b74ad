//! Links that are followed as long as they stay inside one directory: those of a cache that is only read.

use super::{Dir, Kind};

/// Links on one way; the caches that are known have two.
const MAX_LINKS: usize = 8;
/// Parts on one way, those of the links included.
const MAX_PARTS: usize = 200;
/// Directories one below the other, which are held open.
const MAX_DEPTH: usize = 32;

/// Where a name leads.
#[derive(Debug)]
pub enum Followed {
    /// To a regular file `name` in `dir`.
    File { dir: Dir, name: String },
    /// Out of the directory, where nothing is looked at.
    Outside,
    /// To something else, or to nothing.
    Nothing,
}

impl Dir {
    /// Follows `path`, which is relative to this directory, and the links on the way. Each part is opened by
    /// itself without following it, so that nobody can lead us out meanwhile.
    pub fn follow(&self, path: &str) -> Followed {
        let parts = |path: &str| path.split('/').rev().map(str::to_owned).collect::<Vec<_>>();
        // What is still to go, the next part last; and the directories that were gone through.
        let mut ahead = parts(path);
        let mut above: Vec<Self> = Vec::new();
        let (mut links, mut seen) = (0, 0);
        while let Some(part) = ahead.pop() {
            seen += 1;
            if seen > MAX_PARTS || above.len() > MAX_DEPTH {
                return Followed::Nothing;
            }
            match part.as_str() {
                "" | "." => continue,
                ".." if above.pop().is_some() => continue,
                ".." => return Followed::Outside,
                _ => {}
            }
            let dir = above.last().unwrap_or(self);
            match dir.kind(&part) {
                Ok(Some(Kind::Directory)) => match dir.child(&part) {
                    Ok(Some(child)) => above.push(child),
                    Ok(None) | Err(_) => return Followed::Nothing,
                },
                Ok(Some(Kind::File)) if ahead.is_empty() => {
                    let found = above.pop().map_or_else(|| self.again(), Ok);
                    return found
                        .map_or(Followed::Nothing, |dir| Followed::File { dir, name: part });
                }
                Ok(Some(Kind::Link)) if links < MAX_LINKS => {
                    links += 1;
                    match dir.link_target(&part) {
                        Ok(target) if target.starts_with('/') => return Followed::Outside,
                        Ok(target) => ahead.extend(parts(&target)),
                        Err(_) => return Followed::Nothing,
                    }
                }
                _ => return Followed::Nothing,
            }
        }
        Followed::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_are_followed_inside_the_directory_only() {
        let at = tempfile::tempdir().expect("a directory");
        let hub = at.path().join("hub");
        for dir in ["models/blobs", "models/snapshots/c", "blobs/ab", "deep"] {
            std::fs::create_dir_all(hub.join(dir)).expect("it is new");
        }
        std::fs::write(at.path().join("secret"), "s").expect("written");
        std::fs::write(hub.join("blobs/ab/abcd"), "x").expect("written");
        for (target, link) in [
            ("../../blobs/ab/abcd", "models/blobs/etag"),
            ("../../blobs/etag", "models/snapshots/c/file"),
            ("../../../../secret", "models/snapshots/c/up"),
            ("../../../blobs/../../secret", "models/snapshots/c/again"),
            ("/etc/hostname", "absolute"),
            ("circle", "circle"),
            ("gone", "dangling"),
            ("models", "linked"),
            ("blobs/ab", "directory"),
        ] {
            symlink(target, hub.join(link)).expect("it is new");
        }
        let dir = Dir::open(&hub).expect("it is there").expect("it is there");
        for (path, expected) in [
            ("blobs/ab/abcd", "file blobs/ab/abcd"),
            ("models/blobs/etag", "file blobs/ab/abcd"),
            ("models/snapshots/c/file", "file blobs/ab/abcd"),
            ("linked/snapshots/c/file", "file blobs/ab/abcd"),
            ("deep/../blobs/ab/abcd", "file blobs/ab/abcd"),
            ("models/snapshots/c/up", "outside"),
            ("models/snapshots/c/again", "outside"),
            ("absolute", "outside"),
            ("../secret", "outside"),
            ("circle", "nothing"),
            ("dangling", "nothing"),
            ("directory", "nothing"),
            ("blobs", "nothing"),
            ("blobs/ab/abcd/x", "nothing"),
            ("", "nothing"),
        ] {
            let found = match dir.follow(path) {
                Followed::File { dir, name } => {
                    let path = dir.path_of(&name);
                    format!("file {}", path.strip_prefix(&hub).expect("inside").display())
                }
                Followed::Outside => "outside".into(),
                Followed::Nothing => "nothing".into(),
            };
            assert_eq!(found, expected, "{path}");
        }
    }
}
