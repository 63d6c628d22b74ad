//! `--link`: a link of the pod's own that leads its server to one revision, whatever the model directory
//! shows later.

use std::path::{Component, Path, PathBuf};

const IN_A_VOLUME_OF_THE_POD: &str = "name a path in an emptyDir of the pod";

use crate::Error;
use crate::fs::{Kind, LinkPath};
use crate::model::{Message, STATE_DIR, text};

/// Where that link is to be. Checked before anything is asked for.
#[derive(Debug)]
pub struct ServerLink {
    path: PathBuf,
    at: LinkPath,
    /// The volume, as we see it and as the server does.
    roots: Vec<PathBuf>,
}

impl ServerLink {
    /// `family` is the model directory. Nothing may be put below `volume`, which others share, if that is
    /// known; links that lead below `roots` are ours to replace.
    pub fn open(
        path: &Path,
        family: &Path,
        volume: Option<&Path>,
        roots: Vec<PathBuf>,
    ) -> Result<Self, Error> {
        let path = plain(path)?;
        refuse(&path, family, volume)?;
        let above = path.parent().unwrap_or(Path::new("/"));
        match std::fs::canonicalize(above) {
            Ok(real) => {
                let real = real.join(path.file_name().unwrap_or_default());
                let volume = volume.map(real_path);
                refuse(&real, &real_path(family), volume.as_deref())?;
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::Unusable(
                    Message::new(format!(
                        "`{}` does not exist, so --link cannot create a link there",
                        above.display()
                    ))
                    .hint("mount an emptyDir of the pod at it"),
                ));
            }
            // Opening it tells more.
            Err(_) => {}
        }
        let link = Self { at: LinkPath::open(&path)?, path, roots };
        link.check()?;
        link.at.check_writable()?;
        Ok(link)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lets the link lead to `target`.
    pub fn lead_to(&self, target: &Path) -> Result<(), Error> {
        let target = target.to_str().ok_or_else(|| {
            Error::Usage(
                Message::new("--link-root is not UTF-8")
                    .hint("rename the directory, or name another one"),
            )
        })?;
        self.check()?;
        Ok(self.at.lead_to(target)?)
    }

    /// Fails where something is that weightlift has not put there.
    fn check(&self) -> Result<(), Error> {
        let (what, it) = match self.at.kind()? {
            None => return Ok(()),
            Some(Kind::Link) => {
                let target = self.at.target()?;
                let is_below = |root: &PathBuf| target.starts_with(root) && target != *root;
                if is_revision(&target) || self.roots.iter().any(is_below) {
                    return Ok(());
                }
                (format!("a link to `{}`", text::name(&target.to_string_lossy(), 120)), "that link")
            }
            Some(Kind::Directory) => ("a directory".into(), "that directory"),
            Some(Kind::File) => ("a file".into(), "that file"),
            Some(Kind::Other) => ("a pipe, a socket or a device".into(), "what is there"),
        };
        Err(Error::Conflict(
            Message::new(format!(
                "`{}` is {what}, which weightlift did not create",
                self.path.display()
            ))
            .hint(format!("name another path with --link, or remove {it}")),
        ))
    }
}

/// Whether a path is that of a revision on a volume, whichever.
fn is_revision(path: &Path) -> bool {
    let parts: Vec<Component<'_>> = path.components().collect();
    let names = [STATE_DIR, "revisions"].map(|name| Component::Normal(name.as_ref()));
    parts.windows(2).any(|pair| pair == names)
}

fn plain(path: &Path) -> Result<PathBuf, Error> {
    let shown = text::inert(&path.to_string_lossy(), 200);
    let odd = || {
        Error::Usage(
            Message::new(format!("--link `{shown}` is not a plain path of a link"))
                .hint(IN_A_VOLUME_OF_THE_POD),
        )
    };
    let is_odd = |part: Component<'_>| matches!(part, Component::ParentDir);
    if path.to_str().is_none_or(|path| path.is_empty() || path.chars().any(text::is_control))
        || path.components().any(is_odd)
        || path.file_name().is_none()
    {
        return Err(odd());
    }
    std::path::absolute(path).map_err(|_| odd())
}

fn refuse(path: &Path, family: &Path, volume: Option<&Path>) -> Result<(), Error> {
    let is_kept = |part: Component<'_>| part == Component::Normal(STATE_DIR.as_ref());
    let why = if path.components().any(is_kept) {
        "lies in weightlift's own directory"
    } else if path.starts_with(family) || family.starts_with(path) {
        "would be in the way of the model"
    } else if volume.is_some_and(|volume| path.starts_with(volume)) {
        "lies on the volume, where other pods would find it as well"
    } else {
        return Ok(());
    };
    Err(Error::Usage(
        Message::new(format!("--link `{}` {why}", path.display())).hint(IN_A_VOLUME_OF_THE_POD),
    ))
}

/// The same without links, as far as it is there.
fn real_path(path: &Path) -> PathBuf {
    let mut below = Vec::new();
    for above in path.ancestors() {
        if let Ok(real) = std::fs::canonicalize(above) {
            // The model directory is a link itself, and means the place that it has.
            if below.is_empty() && above.is_symlink() {
                below.extend(above.file_name());
                continue;
            }
            return below.into_iter().rev().fold(real, |path, part| path.join(part));
        }
        below.extend(above.file_name());
    }
    path.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_would_harm_the_volume_is_refused() {
        let family = Path::new("/data/models/a/b");
        for (path, is_fine) in [
            ("/model/current", true),
            ("/data/current", true),
            ("/data/models-of-mine", true),
            ("/data/models/current", false),
            ("/data/models/a/b", false),
            ("/data/models/a/b/c", false),
            ("/data/models/a", false),
            ("/data/models", false),
            ("/data", false),
            ("/model/.weightlift/current", false),
        ] {
            let refused = refuse(Path::new(path), family, Some(Path::new("/data/models")));
            assert_eq!(refused.is_ok(), is_fine, "{path}");
        }
        // Where nobody knows what the volume is, the model alone is looked after.
        assert!(refuse(Path::new("/data/models/current"), family, None).is_ok());
        assert!(refuse(Path::new("/data/models/a/b/c"), family, None).is_err());
        for odd in ["", "/", "..", "/model/..", "/model/../x", "a\u{1b}b"] {
            assert!(plain(Path::new(odd)).is_err(), "{odd}");
        }
    }

    #[test]
    fn what_leads_to_a_revision_is_known() {
        for (target, is_one) in [
            ("/data/models/.weightlift/revisions/a%2Fb/0123", true),
            ("../x/.weightlift/revisions/a/1", true),
            ("/data/models/.weightlift/attempts/revisions", false),
            ("/data/revisions/a", false),
        ] {
            assert_eq!(is_revision(Path::new(target)), is_one, "{target}");
        }
    }
}
