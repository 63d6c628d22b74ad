//! Python's `fnmatch.fnmatchcase` on whole repo paths, as `hf download --include` understands it:
//! `*` and `?` cross `/`, and a pattern that ends in `/` means everything below.

/// Whether `pattern` matches the whole of `path`.
pub fn matches(pattern: &str, path: &str) -> bool {
    let mut pattern: Vec<char> = pattern.chars().collect();
    if pattern.last() == Some(&'/') {
        pattern.push('*');
    }
    let path: Vec<char> = path.chars().collect();
    // Greedy with one point of return, the last `*`: linear in practice and never exponential.
    let (mut p, mut s) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while s < path.len() {
        match step(&pattern, p, path[s]) {
            Step::One(next) => {
                p = next;
                s += 1;
            }
            Step::Star => {
                star = Some((p + 1, s));
                p += 1;
            }
            Step::No => match star {
                Some((after, from)) => {
                    star = Some((after, from + 1));
                    p = after;
                    s = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// The pattern that matches `path` and nothing else.
pub fn literal(path: &str) -> String {
    let mut pattern = String::with_capacity(path.len());
    for c in path.chars() {
        match c {
            '*' | '?' | '[' => pattern.extend(['[', c, ']']),
            c => pattern.push(c),
        }
    }
    pattern
}

/// The option that leaves out what matches `pattern`, ready to be pasted into a shell.
pub fn exclude_flag(pattern: &str) -> String {
    format!("--exclude '{}'", pattern.replace('\'', "'\\''"))
}

enum Step {
    /// The character matched; the pattern goes on here.
    One(usize),
    Star,
    No,
}

fn step(pattern: &[char], at: usize, c: char) -> Step {
    match pattern.get(at) {
        None => Step::No,
        Some('*') => Step::Star,
        Some('?') => Step::One(at + 1),
        Some('[') => match class(pattern, at) {
            // An unclosed `[` stands for itself.
            None if c == '[' => Step::One(at + 1),
            None => Step::No,
            Some((members, negated, next)) => {
                if class_holds(members, c) != negated {
                    Step::One(next)
                } else {
                    Step::No
                }
            }
        },
        Some(literal) if *literal == c => Step::One(at + 1),
        Some(_) => Step::No,
    }
}

/// The members of the class that opens at `at`, whether it is negated, and where it ends.
fn class(pattern: &[char], at: usize) -> Option<(&[char], bool, usize)> {
    let mut from = at + 1;
    let negated = pattern.get(from) == Some(&'!');
    if negated {
        from += 1;
    }
    // A `]` right at the start is a member.
    let close = (from + 1..pattern.len()).find(|n| pattern[*n] == ']')?;
    Some((&pattern[from..close], negated, close + 1))
}

fn class_holds(members: &[char], c: char) -> bool {
    let mut n = 0;
    while n < members.len() {
        if n + 2 < members.len() && members[n + 1] == '-' {
            if (members[n]..=members[n + 2]).contains(&c) {
                return true;
            }
            n += 3;
        } else {
            if members[n] == c {
                return true;
            }
            n += 1;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_pattern_matches_its_path_only() {
        for path in ["a/b.bin", "a*", "a?[b]", "[", "]", "[!a]", "it's"] {
            assert!(matches(&literal(path), path), "{path}");
        }
        assert!(!matches(&literal("a*"), "ab") && !matches(&literal("[ab]"), "a"));
        assert_eq!(exclude_flag(&literal("it's [1]")), r"--exclude 'it'\''s [[]1]'");
    }

    /// The expectations were read off `fnmatch.fnmatchcase` of Python 3.11.
    #[test]
    fn it_agrees_with_python() {
        for (pattern, path, expected) in [
            ("*.json", "config.json", true),
            ("*.json", "1_Pooling/config.json", true),
            ("*.JSON", "config.json", false),
            ("onnx/", "onnx/model.onnx", true),
            ("onnx/", "onnx", false),
            ("onnx", "onnx/model.onnx", false),
            ("model-0000?-of-*.safetensors", "model-00001-of-00002.safetensors", true),
            ("[!a]*", "b.txt", true),
            ("[!a]*", "a.txt", false),
            ("[a-c]x", "bx", true),
            ("[]x]", "]", true),
            ("[", "[", true),
            ("a[b", "a[b", true),
            ("[a-]", "-", true),
            ("", "", true),
            ("", "a", false),
            ("**", "a/b/c", true),
            ("*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false),
            ("?", "é", true),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} on {path}");
        }
    }
}
