//! What SOURCE can be, for people: README has these rows.

/// One form of SOURCE, or several of a kind.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    /// As it is written; what stands in brackets may be left out.
    pub forms: &'static [&'static str],
    pub meaning: &'static str,
}

const fn form(forms: &'static [&'static str], meaning: &'static str) -> Form {
    Form { forms, meaning }
}

/// Every form.
#[rustfmt::skip]
pub const FORMS: [Form; 11] = [
    form(&["hf://org/name[@revision]"], "a repo of the Hugging Face Hub or a mirror (`HF_ENDPOINT`); a branch, a tag, `refs/pr/1` or, best, a commit"),
    form(&["hf://datasets/org/name[@revision]", "hf://spaces/org/name"], "a dataset or a space: everything in it"),
    form(&["s3://bucket/prefix/"], "everything below a prefix; `s3://bucket/llama` never matches `llama-70b/`; the bucket may be the ARN of an access point"),
    form(&["s3://bucket/one.safetensors"], "one object, published inside the family directory"),
    form(&["gs://bucket/prefix/"], "the same of Google Cloud Storage; also one object"),
    form(&["az://account/container/prefix/"], "the same of Azure Blob Storage, also as `https://account.blob.core.windows.net/container/prefix/`"),
    form(&["https://host/path/"], "a directory of any web server that holds `SHA256SUMS`, or the sentinel of a published or mirrored model"),
    form(&["https://host/one.gguf#sha256=…"], "one file; without a digest it is fetched with a warning"),
    form(&["oci://registry/name[:tag][@sha256:…]"], "a model in an OCI registry (ModelPack, KitOps, Docker Model Runner, oras), or `/models` of an image; best by its digest"),
    form(&["ms://org/name[@revision]"], "a model of ModelScope; a branch, a tag or a commit"),
    form(&["file:///directory"], "a model that weightlift has published in that directory, such as on another volume"),
];

#[cfg(test)]
mod tests {
    use super::super::SourceUri;
    use super::*;

    #[test]
    fn every_form_is_a_source_with_and_without_what_may_be_left_out() {
        for form in FORMS.iter().flat_map(|form| form.forms) {
            let mut short = String::new();
            let mut depth = 0;
            for c in form.chars() {
                depth += i32::from(c == '[');
                if depth == 0 {
                    short.push(c);
                }
                depth -= i32::from(c == ']');
            }
            for text in [short, form.replace(['[', ']'], "")] {
                // A registry has a dot or a port.
                let text = text.replace("//registry/", "//registry.example/");
                let text = text.replace('…', &"0".repeat(64));
                SourceUri::parse(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
            }
        }
    }
}
