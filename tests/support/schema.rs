//! The JSON Schemas in docs, held against every line that a run of the tests prints. Knows the words that they are
//! written with, and no others; tests/cli/json.rs holds it against a whole validator.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::LazyLock;

use serde_json::{Map, Value};

/// A schema in docs.
pub struct Schema(Value);

pub static OUTPUT: LazyLock<Schema> = LazyLock::new(|| Schema::named("output"));
pub static LOG: LazyLock<Schema> = LazyLock::new(|| Schema::named("log"));
pub static TERMINATION: LazyLock<Schema> = LazyLock::new(|| Schema::named("termination"));

impl Schema {
    fn named(name: &str) -> Self {
        let path = format!("{}/docs/{name}.schema.json", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(Path::new(&path)).expect(&path);
        Self(serde_json::from_str(&text).expect(&path))
    }

    /// The names in `$defs`.
    pub fn parts(&self) -> Vec<&str> {
        self.0["$defs"].as_object().unwrap().keys().map(String::as_str).collect()
    }

    /// The fields that one part describes.
    pub fn fields(&self, part: &str) -> BTreeSet<&str> {
        let fields = &self.part(&format!("#/$defs/{part}"))["properties"];
        fields.as_object().unwrap().keys().map(String::as_str).collect()
    }

    /// What is wrong with `value`.
    pub fn problem(&self, value: &Value) -> Option<String> {
        self.check(&self.0, value, "").err()
    }

    /// The same by one part of the schema.
    pub fn problem_by(&self, part: &str, value: &Value) -> Option<String> {
        self.check(self.part(&format!("#/$defs/{part}")), value, "").err()
    }

    #[track_caller]
    pub fn assert_holds(&self, value: &Value) {
        assert_eq!(self.problem(value), None, "{value}");
    }

    fn part(&self, pointer: &str) -> &Value {
        self.0.pointer(pointer.strip_prefix('#').expect(pointer)).expect(pointer)
    }

    fn check(&self, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
        let schema = schema.as_object().expect("a schema is an object");
        let ensure = |is_so: bool, word: &str| match is_so {
            true => Ok(()),
            false => Err(format!("{at}: {value} is not {word} {}", schema[word])),
        };
        for (word, rule) in schema {
            match word.as_str() {
                "$schema" | "$id" | "$defs" | "title" | "description" => {}
                "$ref" => self.check(self.part(rule.as_str().unwrap()), value, at)?,
                "type" => ensure(is_of_type(rule.as_str().unwrap(), value), word)?,
                "const" => ensure(rule == value, word)?,
                "enum" => ensure(rule.as_array().unwrap().contains(value), word)?,
                "minimum" => ensure(value.as_f64() >= rule.as_f64(), word)?,
                "maximum" => ensure(value.as_f64() <= rule.as_f64(), word)?,
                "format" => ensure(rule == "date-time" && is_time(value), word)?,
                "items" => {
                    for (n, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.check(rule, item, &format!("{at}/{n}"))?;
                    }
                }
                "required" => {
                    let names = rule.as_array().unwrap().iter().filter_map(Value::as_str);
                    for name in names {
                        value.get(name).ok_or_else(|| format!("{at}: {name} is missing"))?;
                    }
                }
                "properties" => self.check_fields(schema, value, at)?,
                "additionalProperties" if schema.contains_key("properties") => {}
                "additionalProperties" => {
                    for (name, field) in value.as_object().into_iter().flatten() {
                        self.check(rule, field, &format!("{at}/{name}"))?;
                    }
                }
                "anyOf" | "oneOf" => self.check_choice(word == "oneOf", rule, value, at)?,
                unknown => panic!("{unknown} is not known here"),
            }
        }
        Ok(())
    }

    /// Each field by its own schema; all are known where nothing is additional.
    fn check_fields(&self, of: &Map<String, Value>, value: &Value, at: &str) -> Result<(), String> {
        assert_eq!(of.get("additionalProperties"), Some(&Value::Bool(false)), "{at} is open");
        for (name, field) in value.as_object().into_iter().flatten() {
            let rule = of["properties"].get(name);
            let rule = rule.ok_or_else(|| format!("{at}/{name} is not in the schema"))?;
            self.check(rule, field, &format!("{at}/{name}"))?;
        }
        Ok(())
    }

    fn check_choice(&self, is_one: bool, of: &Value, value: &Value, at: &str) -> Result<(), String> {
        let tried = of.as_array().unwrap().iter().map(|rule| self.check(rule, value, at));
        let (fits, not): (Vec<_>, Vec<_>) = tried.partition(Result::is_ok);
        match fits.len() {
            0 => Err(not.into_iter().filter_map(Result::err).collect::<Vec<_>>().join("; or ")),
            2.. if is_one => Err(format!("{at}: fits {} of them", fits.len())),
            _ => Ok(()),
        }
    }
}

fn is_of_type(name: &str, value: &Value) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        unknown => panic!("{unknown} is not known here"),
    }
}

/// `2026-11-28T23:08:01Z`
fn is_time(value: &Value) -> bool {
    let like = |(found, form): (u8, u8)| match form {
        b'0' => found.is_ascii_digit(),
        form => found == form,
    };
    let (text, form) = (value.as_str().unwrap_or_default(), "0000-00-00T00:00:00Z");
    text.len() == form.len() && text.bytes().zip(form.bytes()).all(like)
}
