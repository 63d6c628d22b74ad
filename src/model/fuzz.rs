//! What must hold of names and sentinels that are accepted; see [`crate::fuzz`].

use std::ops::ControlFlow;
use std::path::{Component, Path};

use super::{ModelDir, RelPath, SENTINEL, STATE_DIR, Sentinel, each_sentinel_file, text};

pub fn repo_path(data: &[u8]) {
    let name = String::from_utf8_lossy(data);
    match RelPath::parse(&name) {
        Ok(path) => {
            assert_eq!(path.as_str(), name, "changed on the way");
            assert_safe(&path);
        }
        Err(refused) => assert!(!refused.to_string().chars().any(text::is_control)),
    }
    if let Ok(family) = ModelDir::parse(&name) {
        assert_safe(family.path());
        let file = family.file_name();
        assert!(!file.contains('/') && file.len() <= 200 && file != "." && file != "..", "{file}");
    }
    assert!(!text::inert(&name, 50).chars().any(text::is_control));
}

/// Joined to a root, it is a name strictly below that, and none of ours.
pub(crate) fn assert_safe(path: &RelPath) {
    let text = path.as_str();
    let below: Vec<_> = Path::new(text).components().collect();
    assert!(!below.is_empty() && below.iter().all(|part| matches!(part, Component::Normal(_))));
    assert_eq!(below.iter().collect::<std::path::PathBuf>().as_os_str(), text, "not as written");
    assert!(Path::new("/root").join(text).starts_with("/root"));
    assert!(text.len() <= 3_072 && path.parts().all(|part| part.len() <= 255), "too long");
    assert!(!text.chars().any(text::is_control), "has control characters");
    let first = path.parts().next().unwrap_or_default().to_lowercase();
    assert!(first != STATE_DIR && text.to_lowercase() != SENTINEL, "reserved");
    let parent = path.parent().map(|parent| format!("{parent}/")).unwrap_or_default();
    assert_eq!(format!("{parent}{}", path.name()), text);
}

pub fn sentinel(data: &[u8]) {
    match Sentinel::parse(data) {
        Ok(sentinel) => {
            for file in &sentinel.files {
                assert_safe(&RelPath::parse(&file.path).expect("checked by `parse`"));
            }
            let shown = [&sentinel.source, &sentinel.revision, &sentinel.tool];
            for told in shown.into_iter().chain(&sentinel.renamed_to) {
                assert!(!told.chars().any(text::is_control), "acts on a terminal");
            }
            let mut files = Vec::new();
            each_sentinel_file(data, &mut |file| {
                files.push(file);
                ControlFlow::Continue(())
            })
            .expect("reads file by file");
            assert_eq!(files, sentinel.files);
            let mut json = Vec::new();
            sentinel.write(&mut json).expect("written to memory");
            assert_eq!(Sentinel::parse(&json).expect("reads back"), sentinel);
        }
        // Shown to people, after `inert`.
        Err(problem) => drop(problem.to_string()),
    }
}
