//! What must hold of answers of the store, and of chunks, that are accepted; see [`crate::fuzz`].

use bytes::Bytes;
use url::Url;

use super::answer::Window;
use super::chunk::{HEAD_BYTES, Head, MAX_CHUNK_BYTES, Unpacker};

pub fn xet_answer(data: &[u8]) {
    let store = Url::parse("https://cas.example/x").expect("a URL");
    if let Ok(window) = Window::read(data, &store) {
        assert_window(&window);
        assert!(window.skip < window.total() && window.len() > 0);
    }
    for (_, window) in Window::read_several(data, &store, |_| true).into_iter().flatten() {
        assert_window(&window);
    }
}

fn assert_window(window: &Window) {
    for term in &window.terms {
        assert!(!term.chunks.is_empty() && term.len as usize >= term.chunks.len());
        let Some(fetch) = window.fetch_of(term) else { continue };
        assert!(fetch.block == term.block && !fetch.bytes.is_empty());
        assert!(fetch.chunks.start <= term.chunks.start && term.chunks.end <= fetch.chunks.end);
        // Never to less safety.
        assert_eq!(fetch.url.scheme(), "https");
        let _ = fetch.lifetime();
    }
}

/// A chunk with its head.
pub fn xet_chunk(data: &[u8]) {
    let Some((head, packed)) = data.split_at_checked(HEAD_BYTES) else { return };
    let Ok(head) = Head::read(head.try_into().expect("as many bytes as a head has")) else {
        return;
    };
    assert!(head.len > 0 && head.len <= MAX_CHUNK_BYTES && head.packed <= 2 * MAX_CHUNK_BYTES);
    let packed = Bytes::copy_from_slice(&packed[..packed.len().min(head.packed as usize)]);
    if packed.len() == head.packed as usize
        && let Ok(chunk) = Unpacker::default().unpack(head, packed)
    {
        assert_eq!(chunk.len(), head.len as usize);
    }
}
