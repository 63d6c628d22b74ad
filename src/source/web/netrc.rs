//! The format of a netrc file, as curl and Python read it. Only the entry of one host is kept.

use std::iter::Peekable;
use std::str::CharIndices;

/// User and password.
pub type Pair = (String, String);

/// What `text` says of `host`, by the first entry for it, or by `default`. Otherwise the number of the first
/// line that is none of a netrc file: no word of it is repeated.
pub fn login(text: &str, host: &str) -> Result<Option<Pair>, usize> {
    let mut words = Words { text, left: text.char_indices().peekable() };
    let mut found: Option<Pair> = None;
    // Whether the entry that is read is the one that counts.
    let (mut is_meant, mut is_over) = (false, false);
    while let Some((line, keyword)) = words.next()? {
        let mut value = || words.next()?.map(|(_, value)| value).ok_or(line);
        match keyword.as_str() {
            "machine" | "default" => {
                is_over |= is_meant;
                let is_its = keyword == "default" || value()?.eq_ignore_ascii_case(host);
                is_meant = is_its && !is_over;
            }
            "login" | "password" | "account" => {
                let value = value()?;
                if value.chars().any(char::is_control)
                    || (keyword == "login" && value.contains(':'))
                {
                    return Err(line);
                }
                if is_meant && keyword != "account" {
                    let pair = found.get_or_insert_default();
                    let part = if keyword == "login" { &mut pair.0 } else { &mut pair.1 };
                    *part = value;
                }
            }
            "macdef" => {
                value()?;
                words.skip_macro();
            }
            comment if comment.starts_with('#') => words.skip_line(),
            _ => return Err(line),
        }
    }
    Ok(found)
}

struct Words<'a> {
    text: &'a str,
    left: Peekable<CharIndices<'a>>,
}

impl Words<'_> {
    /// The next word and its line; a word in double quotes may hold blanks.
    fn next(&mut self) -> Result<Option<(usize, String)>, usize> {
        while self.left.next_if(|(_, c)| c.is_whitespace()).is_some() {}
        let Some(&(at, first)) = self.left.peek() else { return Ok(None) };
        let line = self.text[..at].matches('\n').count() + 1;
        let mut word = String::new();
        if first != '"' {
            while let Some((_, c)) = self.left.next_if(|(_, c)| !c.is_whitespace()) {
                word.push(c);
            }
            return Ok(Some((line, word)));
        }
        self.left.next();
        loop {
            match self.left.next().ok_or(line)?.1 {
                '"' => return Ok(Some((line, word))),
                '\\' => word.push(self.left.next().ok_or(line)?.1),
                '\n' => return Err(line),
                c => word.push(c),
            }
        }
    }

    fn skip_line(&mut self) {
        while self.left.next_if(|(_, c)| *c != '\n').is_some() {}
    }

    /// A macro ends at an empty line.
    fn skip_macro(&mut self) {
        self.skip_line();
        while self.left.next().is_some() {
            if self.left.peek().is_none_or(|(_, c)| *c == '\n') {
                return;
            }
            self.skip_line();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_entry_for_the_host_counts() {
        let file = "# of all\nmachine a.example login one password \"p w\\\"1\" account x\n\
                    machine b.example\n  login two\n  password #two\n\
                    macdef init\ncd /x\nmachine c.example login no password no\n\n\
                    machine a.example login late password late\n\
                    default login rest password any\n\
                    machine d.example login never password never\n";
        let pair = |user: &str, password: &str| Ok(Some((user.to_owned(), password.to_owned())));
        for (host, expected) in [
            ("a.example", pair("one", "p w\"1")),
            ("A.Example", pair("one", "p w\"1")),
            ("b.example", pair("two", "#two")),
            ("c.example", pair("rest", "any")),
            ("d.example", pair("rest", "any")),
            ("evil-a.example", pair("rest", "any")),
        ] {
            assert_eq!(login(file, host), expected, "{host}");
        }
        assert_eq!(login("machine a login x password y", "b"), Ok(None));
        assert_eq!(login("", "a"), Ok(None));
        assert_eq!(login("machine a login x", "a"), pair("x", ""));
    }

    #[test]
    fn what_is_no_netrc_is_told_by_its_line() {
        for (file, line) in [
            ("machine a login x password two words", 1),
            ("\n\nmachine", 3),
            ("machine a\nlogin x\npassword \"open", 3),
            ("machine a login x:y password z", 1),
            ("user:password", 1),
        ] {
            assert_eq!(login(file, "a"), Err(line), "{file}");
        }
    }
}
