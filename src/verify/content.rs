//! What a file is that is not what its name says.

/// Completes the sentence "it …" for the first bytes of a file that are no safetensors, where they
/// tell the cause.
pub fn says_of_itself(start: &[u8]) -> Option<&'static str> {
    let text = String::from_utf8_lossy(start).trim_start_matches('\u{feff}').to_ascii_lowercase();
    let text = text.trim_start();
    // The length of a header, which is what should be here, has zeros at its end.
    let is_length = start.len() >= 8 && start[4..8] == [0; 4];
    let is_pickle = start.len() > 2 && start[0] == 0x80 && (2..=5).contains(&start[1]);
    Some(match start {
        [] => "is empty",
        _ if text.starts_with("version https://git-lfs.github.com/spec/v1") => {
            "is a Git LFS pointer, not the file that it stands for"
        }
        _ if ["<!doctype html", "<html", "<head", "<body"]
            .iter()
            .any(|it| text.starts_with(it)) =>
        {
            "is an HTML page"
        }
        _ if text.starts_with("<?xml") => "is an XML document",
        _ if text.starts_with("{\"") => "is a JSON text",
        [b'G', b'G', b'U', b'F', ..] => "is a GGUF file",
        [b'P', b'K', 3, 4, ..] => "is a zip archive, as PyTorch writes them",
        [0x1f, 0x8b, 8, ..] => "is compressed by gzip",
        _ if is_pickle && !is_length => "is a pickle",
        _ if start.iter().all(|byte| *byte == 0) => "begins with zeros",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_told_by_its_first_bytes() {
        for (start, says) in [
            (&b""[..], Some("is empty")),
            (
                b"version https://git-lfs.github.com/spec/v1\noid",
                Some("is a Git LFS pointer, not the file that it stands for"),
            ),
            (b"version 2 of the model", None),
            (b"\n <!DOCTYPE HTML>", Some("is an HTML page")),
            ("\u{feff}<html lang".as_bytes(), Some("is an HTML page")),
            (b"<?xml version=", Some("is an XML document")),
            (b"{\"error\":\"gone\"}", Some("is a JSON text")),
            (b"GGUF\x03\0\0\0", Some("is a GGUF file")),
            (b"PK\x03\x04abcd", Some("is a zip archive, as PyTorch writes them")),
            (b"\x1f\x8b\x08\0\0\0\0\0", Some("is compressed by gzip")),
            (b"\x80\x02\x8a\x0al\xfc\x9c", Some("is a pickle")),
            (b"\x80\x02\0\0\0\0\0\0{", None),
            (&[0; 64], Some("begins with zeros")),
            (b"\x10\0\0\0\0\0\0\0[1]", None),
        ] {
            assert_eq!(says_of_itself(start), says, "{:?}", String::from_utf8_lossy(start));
        }
    }
}
