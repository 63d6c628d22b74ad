//! What must hold of journals and heartbeats that are accepted; see [`crate::fuzz`].

use super::journal;
use crate::lock::heartbeat::Owner;
use crate::model::Checksum;

/// As it is, and once more with the right checksum on every line: damage stops at the first one,
/// a forger would not.
pub fn journal(data: &[u8]) {
    check(data);
    let text = String::from_utf8_lossy(data);
    let json = |line: &'_ str| line.split_once(' ').map_or(line, |(_, json)| json).to_owned();
    let signed = |json: String| format!("{:08x} {json}\n", Checksum::Crc32c.of(json.as_bytes()));
    let forged: String = text.lines().map(json).map(signed).collect();
    check(forged.as_bytes());
}

fn check(content: &[u8]) {
    let Some((_, files)) = journal::parse(content) else { return };
    let lines = content.split(|byte| *byte == b'\n').count();
    assert!(files.len() + files.iter().map(|file| file.chunks.len()).sum::<usize>() < lines);
    for file in files {
        for chunk in file.chunks {
            assert!(chunk.range.start < chunk.range.end && chunk.range.end <= file.size);
        }
    }
}

pub fn owner(data: &[u8]) {
    let Ok(owner) = serde_json::from_slice::<Owner>(data) else { return };
    let told = owner.describe();
    assert!(!told.chars().any(crate::model::text::is_control), "{told:?}");
    assert!(told.chars().count() < 1_500, "{told}");
    let _ = crate::lock::waiter::Beat::from(&owner);
}
